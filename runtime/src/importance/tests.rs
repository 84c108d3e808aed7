//! Metrics from their text to their scores, against definitions written out by hand.

mod oracle;

use super::*;
use crate::kernels::View;
use crate::kernels::metric::partial;
use crate::random::SplitMix64;
use crate::tree::Tree;
use minic_compiler::metrics::{self, Partial, Program};
use minic_grammar::ast::Declaration;
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

fn program(metric: &str) -> Program {
    let (recipe, diagnostics) = minic_grammar::parse(&format!("mrecipe 1\nmetric {metric}\n"));
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    match &recipe.declarations[0] {
        Declaration::Metric(metric) => metrics::compile(metric).expect("compiles"),
        other => panic!("{other:?}"),
    }
}

/// A sample's activation [positions, elements].
struct Sample {
    values: Vec<f32>,
    elements: usize,
}

impl Sample {
    fn view(&self) -> View<'_> {
        View::new(&self.values, self.values.len() / self.elements, self.elements, self.elements)
    }

    fn column(&self, c: usize) -> Vec<f64> {
        self.values.chunks(self.elements).map(|row| f64::from(row[c])).collect()
    }
}

/// Samples of different lengths, far from zero, so that careless variances would lose digits.
fn samples(count: usize, elements: usize) -> Vec<Sample> {
    let mut rng = SplitMix64::new(11);
    let mut sample = |i: usize| {
        let number = |_| rng.below(1 << 20) as f32 / (1 << 18) as f32 - 1.5;
        Sample { values: (0..(17 + 5 * (i % 3)) * elements).map(number).collect(), elements }
    };
    (0..count).map(&mut sample).collect()
}

fn partial_of(program: &Program, sample: &Sample) -> Partial {
    let mut values = vec![f64::NAN; program.slots() * sample.elements];
    partial(program, sample.view(), &mut values);
    Partial::of_sample(sample.values.len() / sample.elements, values)
}

fn total(program: &Program, partials: impl IntoIterator<Item = Partial>) -> Partial {
    let mut tree = Tree::new();
    partials.into_iter().for_each(|p| tree.push(p, |l, r| program.merge(l, &r)));
    tree.finish(|l, r| program.merge(l, &r)).expect("there are samples")
}

/// Of one element: its values in every sample, and its row of the weight.
type Definition = fn(&[Vec<f64>], &[f64]) -> f64;

fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().sum()
}

fn mean(values: &[f64]) -> f64 {
    sum(values.iter().copied()) / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let center = mean(values);
    mean(&values.iter().map(|v| (v - center).powi(2)).collect::<Vec<_>>())
}

fn l2(values: &[f64]) -> f64 {
    sum(values.iter().map(|v| v * v)).sqrt()
}

fn map(values: &[f64], f: fn(f64) -> f64) -> Vec<f64> {
    values.iter().map(|&v| f(v)).collect()
}

const DEFINITIONS: &[(&str, Definition)] = &[
    ("(x) = l2(mean(abs(x), over = sequence), over = batch)", |x, _| {
        l2(&x.iter().map(|s| mean(&map(s, f64::abs))).collect::<Vec<_>>())
    }),
    ("(x, w) = variance(x, over = tokens) * l2(w) * l2(w)", |x, w| {
        variance(&x.concat()) * sum(w.iter().map(|v| v * v))
    }),
    ("(x, w) = mean(square(x), over = tokens) * square(l2(w))", |x, w| {
        mean(&map(&x.concat(), |v| v * v)) * sum(w.iter().map(|v| v * v))
    }),
    ("(x) = variance(l2(x, over = sequence), over = batch)", |x, _| {
        variance(&x.iter().map(|s| l2(s)).collect::<Vec<_>>())
    }),
    ("(x) = sum(max(abs(x), over = sequence) - variance(x, over = sequence), over = batch)", |x, _| {
        sum(x.iter().map(|s| map(s, f64::abs).into_iter().fold(0.0, f64::max) - variance(s)))
    }),
    ("(x) = max(x, over = tokens) / l1(x, over = tokens) + l2(relu(x), over = tokens)", |x, _| {
        let all = x.concat();
        let relu = l2(&map(&all, |v| v.max(0.0)));
        all.iter().copied().fold(f64::NEG_INFINITY, f64::max) / sum(map(&all, f64::abs)) + relu
    }),
    ("(x, w) = mean(silu(x) * x - exp(-square(x)), over = tokens) + max(w) - mean(abs(w))", |x, w| {
        let inner = |v: f64| v * v / (1.0 + (-v).exp()) - (-v * v).exp();
        let of_w = w.iter().copied().fold(f64::NEG_INFINITY, f64::max) - mean(&map(w, f64::abs));
        mean(&map(&x.concat(), inner)) + of_w
    }),
    (
        "(x) = log(sum(pow(abs(x), 1.5), over = tokens)) * sqrt(mean(clamp(x, -1, 0.5), over = tokens) + 2)",
        |x, _| {
            let all = x.concat();
            sum(map(&all, |v| v.abs().powf(1.5))).ln()
                * (mean(&map(&all, |v| v.clamp(-1.0, 0.5))) + 2.0).sqrt()
        },
    ),
    ("(w) = l1(w) - sum(sign(w)) + variance(w)", |_, w| {
        sum(map(w, f64::abs)) - sum(map(w, f64::signum)) + variance(w)
    }),
];

#[test]
fn scores_are_what_the_expressions_say() {
    let elements = 131;
    for count in [1, 2, 7] {
        let samples = samples(count, elements);
        let weight: Vec<f32> = samples[0].values[..13 * elements].iter().map(|v| v - 0.3).collect();
        for (metric, definition) in DEFINITIONS {
            let program = program(&format!("m{metric}"));
            let mut statistics = Statistics::new(&program, elements);
            weight.chunks(elements).for_each(|row| statistics.push_row(row));
            let total = total(&program, samples.iter().map(|s| partial_of(&program, s)));
            let scores = program.finish(elements, Some(&total), &statistics.finish());
            for (c, score) in scores.iter().enumerate() {
                let x: Vec<Vec<f64>> = samples.iter().map(|s| s.column(c)).collect();
                let w: Vec<f64> = weight.chunks(elements).map(|row| f64::from(row[c])).collect();
                let expected = definition(&x, &w);
                let error = (score - expected).abs();
                assert!(error <= 1e-12 * expected.abs().max(1.0), "{metric} {c}: {score}, {expected}");
            }
        }
    }
}

/// However samples are batched and over however many threads they are spread, the scores have the same bits;
/// a state that is written and read again goes on as if nothing had happened.
#[test]
fn batches_threads_and_interruptions_change_no_bit() {
    let samples = samples(23, 70);
    let bits = |p: &Partial| p.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for (metric, _) in DEFINITIONS {
        let program = program(&format!("m{metric}"));
        let whole = bits(&total(&program, samples.iter().map(|s| partial_of(&program, s))));
        for (threads, batch) in [(1, 4), (2, 1), (3, 5), (4, 23)] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut tree = Tree::new();
            for batch in samples.chunks(batch) {
                let partials: Vec<Partial> =
                    pool.install(|| batch.par_iter().map(|s| partial_of(&program, s)).collect());
                partials.into_iter().for_each(|p| tree.push(p, |l, r| program.merge(l, &r)));
                tree = serde_json::from_str(&serde_json::to_string(&tree).unwrap()).unwrap();
            }
            let total = tree.finish(|l, r| program.merge(l, &r)).unwrap();
            assert_eq!(bits(&total), whole, "{metric}, {threads} threads, batches of {batch}");
        }
    }
}

/// A large mean beside a small spread: what sums of squares would lose, merged variances keep.
#[test]
fn variances_keep_their_digits() {
    let program = program("m(x) = variance(x, over = tokens)");
    let steps = |i: usize| Sample {
        values: (0..64).map(|t| 4096.0 + ((i + t) % 2) as f32 / 2048.0).collect(),
        elements: 1,
    };
    let total = total(&program, (0..9).map(|i| partial_of(&program, &steps(i))));
    let expected = (1.0f64 / 4096.0).powi(2);
    assert!((program.finish(1, Some(&total), &[])[0] - expected).abs() < 1e-9 * expected);
}

#[test]
fn a_broken_activation_gives_a_broken_score() {
    for (metric, _) in DEFINITIONS.iter().filter(|(metric, _)| metric.starts_with("(x)")) {
        let program = program(&format!("m{metric}"));
        let mut samples = samples(3, 66);
        samples[1].values[65] = f32::NAN;
        let total = total(&program, samples.iter().map(|s| partial_of(&program, s)));
        let scores = program.finish(66, Some(&total), &[]);
        assert!(scores[65].is_nan() && scores[..65].iter().all(|s| s.is_finite()), "{metric}");
    }
}

#[test]
fn random_scores_differ_by_seed_layer_and_axis_and_by_nothing_else() {
    let draw = |seed, axis, layer| random(seed, axis, layer, 4);
    let first = draw(1, "ffn_hidden_size", Some(1));
    assert_eq!(first, random(1, "ffn_hidden_size", Some(1), 9)[..4]);
    for other in [
        draw(2, "ffn_hidden_size", Some(1)),
        draw(1, "mamba_num_heads", Some(1)),
        draw(1, "ffn_hidden_size", Some(0)),
        draw(1, "ffn_hidden_size", None),
    ] {
        assert!(first.iter().zip(&other).all(|(a, b)| a != b));
    }
    let many = random(5, "hidden_size", None, 4000);
    assert!(many.iter().all(|s| (0.0..1.0).contains(s)));
    assert!((many.iter().sum::<f64>() / 4000.0 - 0.5).abs() < 0.02);
    // Part of the language: a seed means the same ranking in every version.
    insta::assert_snapshot!(format!("{first:?}"));
}

#[test]
fn reversed_turns_a_ranking_upside_down() {
    assert_eq!(reversed(&[1.0, -2.0, f64::INFINITY]), [-1.0, 2.0, f64::NEG_INFINITY]);
}
