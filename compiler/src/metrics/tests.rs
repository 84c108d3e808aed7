use super::*;
use minic_grammar::ast::Declaration;
use minic_grammar::{Sources, render};
use std::collections::BTreeMap;

fn parse(source: &str) -> Vec<minic_grammar::ast::Metric> {
    let (recipe, diagnostics) = minic_grammar::parse(source);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let metric = |d| if let Declaration::Metric(m) = d { Some(m) } else { None };
    recipe.declarations.into_iter().filter_map(metric).collect()
}

fn program(metric: &str) -> Program {
    let metric = &parse(&format!("mrecipe 1\nmetric {metric}\n"))[0];
    compile(metric).expect("compiles")
}

#[test]
fn programs() {
    let metrics = [
        "activation(x) = l2(mean(abs(x), over = sequence), over = batch)",
        "flap(x, w) = variance(x, over = tokens) * l2(w) * l2(w)",
        "energy(x, w) = mean(square(x), over = tokens) * square(l2(w))",
        "magnitude(w) = l2(w)",
        "folded(x) = (2 * 3 - 50%) * -max(-x, over = tokens)",
        "maxima(x) = max(max(max(x, 0.5), over = sequence), over = batch)",
        "clamped(x) = sqrt(sum(clamp(pow(x, 2), 0, 1_000), over = tokens)) + mean(min(x, 0), over = tokens)",
        "spread(x) = variance(mean(x, over = sequence) - max(x, over = sequence), over = batch)",
        "shared(x) = l1(mean(x, over = sequence), over = batch) / l1(mean(x, over = sequence), over = batch)",
        "entries(w) = mean(silu(w) * sigmoid(w)) + max(relu(w))",
    ];
    let text: Vec<String> =
        metrics.into_iter().map(program).map(|p| format!("{p}  [{} slots]", p.slots())).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn what_a_program_needs() {
    let needs = |metric| {
        let program = program(metric);
        (program.uses_x(), program.uses_w())
    };
    assert_eq!(needs("a(x) = mean(x, over = tokens)"), (true, false));
    assert_eq!(needs("a(x, w) = mean(x, over = tokens) * l1(w)"), (true, true));
    assert_eq!(needs("a(w) = mean(abs(w)) + variance(w)"), (false, true));
    assert_eq!(needs("a(x, w) = sum(w)"), (false, true));
}

#[test]
fn equal_formulas_have_equal_texts_whatever_their_names() {
    let text = |metric| program(metric).formula();
    assert_eq!(text("a(x) = l2(x, over = tokens)"), text("b(x, w) = (l2(x, over = tokens))"));
    assert_ne!(text("a(x) = l2(x, over = tokens)"), text("a(x) = l1(x, over = tokens)"));
    assert_ne!(text("a(w) = l2(w) - (l1(w) - sum(w))"), text("a(w) = l2(w) - l1(w) - sum(w)"));
}

#[test]
fn params_of_the_recipe_are_numbers() {
    let metric = &parse("mrecipe 1\nmetric m(x) = mean(pow(abs(x), p), over = tokens)\n")[0];
    let params = BTreeMap::from([("p".to_string(), 1.5)]);
    assert_eq!(
        compile_with(metric, &params).unwrap().formula(),
        "t0 = mean(pow(abs(x), 1.5)) over tokens; t0"
    );
    assert_eq!(compile(metric).unwrap_err()[0].code, "E1001");
}

/// Every diagnostic, as the user sees it.
#[test]
fn diagnostics() {
    let source = include_str!("tests/bad.mrecipe");
    let mut found = Vec::new();
    for metric in parse(source) {
        match compile(&metric) {
            Ok(_) => found.extend(lint(&metric)),
            Err(diagnostics) => found.extend(diagnostics),
        }
    }
    let codes: std::collections::BTreeSet<&str> = found.iter().map(|d| d.code).collect();
    let listed = minic_grammar::codes::CODES.iter().map(|c| c.id).filter(|c| c[1..].starts_with("10"));
    assert_eq!(codes, listed.collect(), "every code of metrics is raised, and is listed");
    assert!(found.iter().all(|d| d.help.is_some()));
    insta::assert_snapshot!(render::render(&Sources::new("bad.mrecipe", source), &found, false));
}

/// A long sum is a deep tree.
#[test]
fn depth_is_bounded() {
    let sum = vec!["x"; 100].join(" + ");
    let metric = &parse(&format!("mrecipe 1\nmetric m(x) = mean({sum}, over = tokens)\n"))[0];
    assert_eq!(compile(metric).unwrap_err()[0].code, "E1009");
}

#[test]
fn functions_keep_nan_visible_and_follow_their_definitions() {
    for function in FUNCTIONS {
        let nan = || Expr::Number(f64::NAN);
        let call = function.build(vec![nan(); function.arity()]).expect("the arity is right");
        assert!(matches!(call, Expr::Number(v) if v.is_nan()), "{}", function.name);
        assert!(function.form.starts_with(function.name) && !function.doc.is_empty());
    }
    let clamp = |v: f64| {
        let find = FUNCTIONS.iter().find(|f| f.name == "clamp").unwrap();
        find.build([v, -1.0, 2.0].map(Expr::Number).to_vec()).unwrap()
    };
    assert_eq!([clamp(-3.0), clamp(0.5), clamp(7.0)], [-1.0, 0.5, 2.0].map(Expr::Number));
    assert_eq!([-2.0, 0.0, 0.1].map(|v| Unary::Sign.apply(v)), [-1.0, 0.0, 1.0]);
    assert_eq!(Binary::Min.apply(1.0, f64::NAN).is_nan(), Binary::Max.apply(f64::NAN, 1.0).is_nan());
    assert_eq!(
        [Binary::Min.apply(1.0, 2.0), Binary::Max.apply(1.0, 2.0), Binary::Pow.apply(2.0, 3.0)],
        [1.0, 2.0, 8.0]
    );
    assert_eq!(REDUCERS.len(), REDUCERS.iter().filter(|r| r.name == r.reducer.name()).count());
}

#[test]
fn partials_survive_json_bit_for_bit() {
    let values = vec![0.1, -0.0, f64::NEG_INFINITY, f64::NAN, f64::MIN_POSITIVE / 3.0];
    let partial = Partial::of_sample(7, values);
    let text = serde_json::to_string(&partial).unwrap();
    let back: Partial = serde_json::from_str(&text).unwrap();
    let bits = |p: &Partial| p.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!((back.samples, back.tokens, bits(&back)), (1, 7, bits(&partial)));
}
