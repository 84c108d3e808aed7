//! A metric as one shader over the activation and one behind it. The first takes every column of every chunk of
//! positions by itself; what it leaves is merged in the order of chunks, and put into the expressions over samples.
//!
//! Values are f32, sums of them pairs. A variance is that of Chan, Golub and LeVeque: a chunk takes its distances from
//! its own mean as it was rounded, and knows by how far they drift from it; chunks add the distances of their means.

use super::super::Shaders;
use crate::shader::common::{LANES, PAIRS};
use crate::shader::expr::{calling, texts};
use crate::shader::{Call, Elem, PAGE, Plan, Source, Unfit, cuts};
use minic_compiler::graph::Op;
use minic_compiler::metrics::{Expr, Leaf, Program, Reducer, Reduction};
use std::ops::Range;

pub const KERNEL: Shaders = Shaders { version: 1, plan, tolerance: 1e-6 };

/// Most chunks, and fewest positions of one.
const CHUNKS: usize = 64;
const POSITIONS: usize = 32;

fn plan(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let Op::Metric { program } = call.op else { panic!("bug: `{}` is not a metric", call.op.name()) };
    let (x, out) = (&call.args[0], call.out);
    let reductions = reductions(program);
    let slots: usize = reductions.iter().map(|r| r.reducer.width()).sum();
    let positions = POSITIONS.max(x.rows.div_ceil(CHUNKS));
    let pieces = cuts(&[x], x.rows, positions, plan.caps)?;
    let chunks: usize = pieces.iter().map(|rows| rows.len().div_ceil(positions)).sum();
    // As many columns at a time as have their states in one binding.
    let width = (plan.caps.reach().min(PAGE) / (2 * chunks * slots).max(1)).clamp(1, x.cols.max(1));
    let states = plan.scratch(Elem::Pair, chunks * slots, width);
    let counts = plan.scratch(Elem::F32, chunks, 1);
    let scan = scan(&reductions);
    for first in (0..x.cols).step_by(width) {
        let cols = width.min(x.cols - first);
        let states = states.columns(0, cols);
        let mut chunk = 0;
        for rows in &pieces {
            let here = chunk..chunk + rows.len().div_ceil(positions);
            let source = Source::new("metric", LANES)
                .read("sample", &x.rows(rows.clone()).columns(first, cols))
                .write("states", &states.rows(here.start * slots..here.end * slots))
                .write("counts", &counts.rows(here.clone()))
                .u32("rows", rows.len())
                .u32("cols", cols)
                .u32("positions", positions)
                .u32("slots", slots);
            plan.run(calling(source, PAIRS, &scan), here.len() * cols.div_ceil(LANES));
            chunk = here.end;
        }
        for slots_out in cuts(&[out], out.rows, 1, plan.caps)? {
            let source = Source::new("metric_merge", LANES)
                .read("states", &states)
                .read("counts", &counts)
                .write("out", &out.rows(slots_out.clone()).columns(first, cols))
                .u32("cols", cols)
                .u32("chunks", chunks)
                .u32("slots", slots)
                .f32("n", x.rows as f64);
            let (functions, body) = (format!("{PAIRS}{MERGE}"), merge(program, &reductions, slots_out));
            plan.run(calling(source, &functions, &body), cols.div_ceil(LANES));
        }
    }
    Ok(())
}

/// A reduction over positions.
struct Named<'a> {
    /// As [`Program::formula`] calls it.
    name: String,
    /// Of the first number of its state, of a chunk's.
    slot: usize,
    reducer: Reducer,
    of: &'a Expr,
    formula: String,
}

/// Those over the sequence, and then those over tokens.
fn reductions(program: &Program) -> Vec<Named<'_>> {
    let sequence = program.sequence.iter().enumerate().map(|(i, r)| (format!("s{i}"), "sequence", r));
    let tokens = program.tokens.iter().enumerate().map(|(i, r)| (format!("t{i}"), "tokens", r));
    let mut slots = 0;
    let mut named = Vec::new();
    for (name, over, reduction) in sequence.chain(tokens) {
        let Reduction { reducer, of } = reduction;
        let formula = format!("{reduction} over {over}");
        named.push(Named { name, slot: slots, reducer: *reducer, of, formula });
        slots += reducer.width();
    }
    named
}

/// The states of one chunk of one column.
fn scan(reductions: &[Named]) -> String {
    let variances: Vec<&Named> = reductions.iter().filter(|r| r.reducer == Reducer::Variance).collect();
    let mut text = "
    let across = (p.cols + 63u) / 64u;
    let c = group % across * 64u + lane;
    let chunk = group / across;
    if (c >= p.cols) { return; }
    let first = chunk * p.positions;
    let end = min(first + p.positions, p.rows);
    let count = f32(end - first);
    if (c == 0u) { set_counts(chunk, 0u, count); }\n"
        .to_string();
    for Named { name, reducer, formula, .. } in reductions {
        let empty = if *reducer == Reducer::Max { "-p.infinity" } else { "vec2(0.0, 0.0)" };
        text += &format!("    // {name} = {formula}\n    var {name} = {empty};\n");
    }
    text +=
        &pass(&reductions.iter().collect::<Vec<_>>(), |Named { name, reducer, .. }, value| match reducer {
            Reducer::Sum | Reducer::Mean | Reducer::Variance => {
                format!("{name} = pair_add({name}, {value});")
            }
            Reducer::L1 => format!("{name} = pair_add({name}, abs({value}));"),
            Reducer::L2 => format!("{name} = pair_add({name}, square({value}));"),
            Reducer::Max => format!("{name} = larger({name}, {value});"),
        });
    if !variances.is_empty() {
        for Named { name, .. } in &variances {
            text += &format!(
                "    let {name}_mean = {name}.x / count;
    var {name}_squares = vec2(0.0, 0.0);
    var {name}_drift = vec2(0.0, 0.0);\n"
            );
        }
        text += &pass(&variances, |Named { name, .. }, value| {
            format!(
                "let {name}_apart = {value} - {name}_mean;
        {name}_squares = pair_add({name}_squares, {name}_apart * {name}_apart);
        {name}_drift = pair_add({name}_drift, {name}_apart);"
            )
        });
    }
    for Named { name, slot, reducer, .. } in reductions {
        let state = match reducer {
            Reducer::Max => vec![format!("vec2({name}, 0.0)")],
            Reducer::Variance => vec![
                format!("vec2({name}_mean, {name}_drift.x / count)"),
                format!("pair_add({name}_squares, -{name}_drift.x * {name}_drift.x / count)"),
            ],
            _ => vec![name.clone()],
        };
        for (i, number) in state.iter().enumerate() {
            text += &format!("    set_states(chunk * p.slots + {}u, c, {number});\n", slot + i);
        }
    }
    text
}

/// A loop over positions: `take` is what is done with the value of a reduction there.
fn pass(reductions: &[&Named], take: impl Fn(&Named, &str) -> String) -> String {
    let exprs: Vec<&Expr> = reductions.iter().map(|r| r.of).collect();
    let (lines, values) = texts(&exprs, "        ", &|_| "x".to_string());
    let taken = reductions.iter().zip(values).map(|(r, value)| format!("        {}\n", take(r, &value)));
    let taken: String = taken.collect();
    format!("    for (var r = first; r < end; r++) {{\n        let x = sample(r, c);\n{lines}{taken}    }}\n")
}

/// `summed`, `largest` and `spread`: the states of all chunks as one.
const MERGE: &str = "
fn summed(slot: u32, c: u32) -> vec2<f32> {
    var sum = vec2(0.0, 0.0);
    for (var i = 0u; i < p.chunks; i++) { sum = pair_sum(sum, states(i * p.slots + slot, c)); }
    return sum;
}
fn largest(slot: u32, c: u32) -> f32 {
    var most = -p.infinity;
    for (var i = 0u; i < p.chunks; i++) { most = larger(most, states(i * p.slots + slot, c).x); }
    return most;
}
struct Spread {
    mean: vec2<f32>,
    squares: vec2<f32>,
}
fn spread(slot: u32, c: u32) -> Spread {
    let about = states(slot, c).x;
    var shift = 0.0;
    for (var i = 0u; i < p.chunks; i++) {
        let mean = states(i * p.slots + slot, c);
        shift += counts(i, 0u) * ((mean.x - about) + mean.y);
    }
    shift /= p.n;
    var squares = vec2(0.0, 0.0);
    for (var i = 0u; i < p.chunks; i++) {
        let mean = states(i * p.slots + slot, c);
        let apart = (mean.x - about) + (mean.y - shift);
        squares = pair_sum(squares, states(i * p.slots + slot + 1u, c));
        squares = pair_add(squares, counts(i, 0u) * apart * apart);
    }
    return Spread(pair_add(vec2(about, 0.0), shift), squares);
}";

/// The partial of one column, of which the slots `shown` are bound.
fn merge(program: &Program, reductions: &[Named], shown: Range<usize>) -> String {
    let mut text = "    let c = group * 64u + lane;\n    if (c >= p.cols) { return; }\n".to_string();
    let (sequence, tokens) = reductions.split_at(program.sequence.len());
    for Named { name, slot, reducer, formula, .. } in sequence {
        let value = match reducer {
            Reducer::Sum | Reducer::L1 => format!("summed({slot}u, c).x"),
            Reducer::Mean => format!("summed({slot}u, c).x / p.n"),
            Reducer::L2 => format!("sqrt(summed({slot}u, c).x)"),
            Reducer::Max => format!("largest({slot}u, c)"),
            Reducer::Variance => format!("spread({slot}u, c).squares.x / p.n"),
        };
        text += &format!("    // {name} = {formula}\n    let {name} = {value};\n");
    }
    let of_samples: Vec<&Expr> = program.batch.iter().map(|r| &r.of).collect();
    let (lines, values) = texts(&of_samples, "    ", &|leaf| match leaf {
        Leaf::Sequence(i) => format!("s{i}"),
        _ => "p.nan".to_string(),
    });
    text += &lines;
    let mut numbers = Vec::new();
    for (i, (reduction, value)) in program.batch.iter().zip(values).enumerate() {
        text += &format!("    // b{i} = {reduction} over batch\n    let b{i} = {value};\n");
        numbers.push(match reduction.reducer {
            Reducer::Sum | Reducer::Mean | Reducer::Max | Reducer::Variance => format!("vec2(b{i}, 0.0)"),
            Reducer::L1 => format!("vec2(abs(b{i}), 0.0)"),
            Reducer::L2 => format!("vec2(square(b{i}), 0.0)"),
        });
        numbers.extend((reduction.reducer == Reducer::Variance).then(|| "vec2(0.0, 0.0)".to_string()));
    }
    for Named { name, slot, reducer, formula, .. } in tokens {
        let (value, state) = match reducer {
            Reducer::Max => (format!("largest({slot}u, c)"), vec![format!("vec2({name}, 0.0)")]),
            Reducer::Variance => {
                (format!("spread({slot}u, c)"), vec![format!("{name}.mean"), format!("{name}.squares")])
            }
            _ => (format!("summed({slot}u, c)"), vec![name.clone()]),
        };
        text += &format!("    // {name} = {formula}\n    let {name} = {value};\n");
        numbers.extend(state);
    }
    for (i, slot) in shown.enumerate() {
        text += &format!("    set_out({i}u, c, {});\n", numbers[slot]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::vulkan::once;
    use crate::shader::{Caps, Mat, Memory, Precision};
    use crate::testing;
    use minic_compiler::metrics::{Binary, FUNCTIONS, Unary};
    use std::sync::Arc;

    const X: Expr = Expr::Leaf(Leaf::X);

    fn program(sequence: Vec<Reduction>, batch: Vec<Reduction>, tokens: Vec<Reduction>) -> Arc<Program> {
        let (weight, score) = (Vec::new(), Expr::Number(0.0));
        Arc::new(Program { name: "m".into(), sequence, batch, tokens, weight, score })
    }

    #[test]
    fn texts_read_like_the_metric() {
        let of = |reducer, of| Reduction { reducer, of };
        let clamped = Expr::binary(Binary::Min, Expr::unary(Unary::Silu, X), Expr::Number(1e9));
        let scaled = Expr::binary(Binary::Multiply, Expr::Number(0.1), clamped.clone());
        let mean = Expr::unary(Unary::Log, Expr::Leaf(Leaf::Sequence(0)));
        let program = program(
            vec![of(Reducer::Mean, Expr::unary(Unary::Abs, X))],
            vec![of(Reducer::L2, mean)],
            vec![of(Reducer::Variance, clamped), of(Reducer::Max, scaled)],
        );
        let caps = Caps::least();
        let mut plan = Plan::new(&caps);
        let arg = Mat::new(Memory::Arena, Elem::F32, 0, 100, 70, 70);
        let out = Mat::new(Memory::Result(0), Elem::Pair, 0, program.slots(), 70, 70);
        (KERNEL.plan)(&mut plan, Call { op: &Op::Metric { program }, args: &[arg], out: &out }).unwrap();
        let texts: Vec<&str> = plan.dispatches.iter().map(|d| d.text.as_str()).collect();
        insta::assert_snapshot!(texts.join("\n"));
    }

    /// 2^24 + 1 + 1 + .. is 2^24 in f32.
    #[test]
    fn sums_keep_what_f32_loses() {
        let Some(gpu) = testing::vulkan(None) else { return };
        let mut x = [1.0f32; 101];
        x[0] = (1 << 24) as f32;
        let op =
            Op::Metric { program: program(vec![], vec![], vec![Reduction { reducer: Reducer::Sum, of: X }]) };
        let given = once::Given::F32 { data: &x, rows: x.len(), cols: 1, stride: 1 };
        let sum = once::once(gpu, Precision::F32, KERNEL, &op, &[given], (1, 1)).unwrap();
        assert_eq!(sum, [f64::from(1 << 24) + 100.0]);
    }

    /// One position a column, so that the largest value is the value.
    #[test]
    fn functions_are_those_of_the_language() {
        let Some(gpu) = testing::vulkan(None) else { return };
        let numbers = [1.0, 2.0, -3.0, 0.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(Expr::Number);
        let mut exprs = vec![Expr::unary(Unary::Negate, X)];
        exprs.extend(FUNCTIONS.iter().filter(|f| f.arity() == 1).filter_map(|f| f.build(vec![X])));
        for number in &numbers {
            let operators = [Binary::Add, Binary::Subtract, Binary::Multiply, Binary::Divide];
            for (a, b) in [(&X, number), (number, &X)] {
                exprs.extend(operators.map(|op| Expr::binary(op, a.clone(), b.clone())));
                let arguments = |n| [a, b, &numbers[1]].into_iter().take(n).cloned().collect();
                let functions = FUNCTIONS.iter().filter(|f| f.arity() > 1);
                exprs.extend(functions.filter_map(|f| f.build(arguments(f.arity()))));
            }
        }
        let x = [0.0, 1.0, -1.0, 2.0, -3.0, 0.3, -0.3, 40.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let largest = |of: &Expr| Reduction { reducer: Reducer::Max, of: of.clone() };
        let op = Op::Metric { program: program(vec![], vec![], exprs.iter().map(largest).collect()) };
        let given = once::Given::F32 { data: &x, rows: 1, cols: x.len(), stride: x.len() };
        let values = once::once(gpu, Precision::F32, KERNEL, &op, &[given], (exprs.len(), x.len())).unwrap();
        for (expr, values) in exprs.iter().zip(values.chunks(x.len())) {
            for (x, value) in x.iter().zip(values) {
                let mut expected = [0.0; minic_compiler::metrics::LANES];
                expr.evaluate(&|_, out| out.fill(f64::from(*x)), &mut expected);
                let [expected, ..] = expected;
                let near = (value - expected).abs() <= 1e-5 * expected.abs().max(1.0);
                let same = *value == expected || value.is_nan() && expected.is_nan();
                assert!(near || same, "{expr} of {x} is {value}, not {expected}");
            }
        }
    }
}
