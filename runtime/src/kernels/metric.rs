//! One sample's partial of a metric, in f64: [L, C] -> [slots, C].
//!
//! Columns are independent, so blocks of columns run side by side and every column is summed row after row:
//! the same bits for any number of threads. One pass over the sample; a second one only for `variance`,
//! whose squared distances are taken from the sample's own mean (with the correction of Chan, Golub and
//! LeVeque for the rounding of that mean).

mod shader;

use super::{Call, Exact, Kernel, View, no_scratch};
use minic_compiler::graph::Op;
use minic_compiler::metrics::{Block, Expr, LANES, Leaf, Program, Reducer, Reduction, State};
use rayon::prelude::*;

pub const KERNEL: Kernel = Kernel {
    name: "metric",
    version: 1,
    cpu,
    reference,
    scratch: no_scratch,
    tolerance: 1e-12,
    shaders: shader::KERNEL,
};

fn cpu(call: Call) {
    let (op, x) = (call.op, call.f32(0));
    let Op::Metric { program } = op else { panic!("bug: `{}` is not a metric", op.name()) };
    partial(program, x, call.out_f64());
}

/// Writes the partial of the sample `x` [positions, elements] to `out` [slots, elements].
pub fn partial(program: &Program, x: View, out: &mut [f64]) {
    if x.cols() == 0 {
        return;
    }
    let mut blocks: Vec<Vec<&mut [f64]>> = Vec::new();
    blocks.resize_with(x.cols().div_ceil(LANES), Vec::new);
    for slot in out.chunks_mut(x.cols()) {
        blocks.iter_mut().zip(slot.chunks_mut(LANES)).for_each(|(block, columns)| block.push(columns));
    }
    blocks.into_par_iter().with_max_len(1).enumerate().for_each(|(i, mut slots)| {
        let first = i * LANES;
        let columns = x.block(0, x.rows(), first, LANES.min(x.cols() - first));
        block_partial(program, columns, &mut slots);
    });
}

/// The states of one reduction for a block of columns.
struct States {
    a: Block,
    b: Block,
    /// Of variances: the sum of distances from the mean as it was rounded.
    drift: Block,
}

impl States {
    fn all(a: f64) -> States {
        States { a: [a; LANES], b: [0.0; LANES], drift: [0.0; LANES] }
    }
}

fn block_partial(program: &Program, x: View, slots: &mut [&mut [f64]]) {
    let (n, width) = (x.rows() as f64, x.cols());
    let reductions: Vec<&Reduction> = program.sequence.iter().chain(&program.tokens).collect();
    let states = scan(&reductions, x);
    let (sequence, tokens) = states.split_at(program.sequence.len());
    let read = |leaf: Leaf, out: &mut Block| {
        let Leaf::Sequence(i) = leaf else { return out.fill(f64::NAN) };
        let reducer = program.sequence[i].reducer;
        for (lane, out) in out.iter_mut().enumerate() {
            *out = reducer.value(State { a: sequence[i].a[lane], b: sequence[i].b[lane] }, n);
        }
    };
    let mut slot = slots.iter_mut();
    let mut write = |reducer: Reducer, states: &States| {
        for values in [&states.a, &states.b].into_iter().take(reducer.width()) {
            if let Some(slot) = slot.next() {
                slot.copy_from_slice(&values[..width]);
            }
        }
    };
    for Reduction { reducer, of } in &program.batch {
        let mut states = States::all(0.0);
        of.evaluate(&read, &mut states.a);
        for (a, b) in states.a.iter_mut().zip(&mut states.b) {
            State { a: *a, b: *b } = reducer.absorb(reducer.empty(), *a, 1.0);
        }
        write(*reducer, &states);
    }
    for (Reduction { reducer, .. }, states) in program.tokens.iter().zip(tokens) {
        write(*reducer, states);
    }
}

/// Every reduction over the rows of x.
fn scan(reductions: &[&Reduction], x: View) -> Vec<States> {
    let mut states: Vec<States> = reductions.iter().map(|r| States::all(r.reducer.empty().a)).collect();
    pass(reductions, x, |i, v| add(reductions[i].reducer, &mut states[i].a, v));
    if reductions.iter().any(|r| r.reducer == Reducer::Variance) {
        spread(reductions, x, &mut states);
    }
    states
}

/// The second pass of variances: from sums to means and squared distances.
fn spread(reductions: &[&Reduction], x: View, states: &mut [States]) {
    let n = x.rows() as f64;
    let is_variance = |i: usize| reductions[i].reducer == Reducer::Variance;
    for (_, states) in states.iter_mut().enumerate().filter(|(i, _)| is_variance(*i)) {
        states.a.iter_mut().for_each(|a| *a /= n);
    }
    pass(reductions, x, |i, v| {
        if is_variance(i) {
            add_distances(&mut states[i], v);
        }
    });
    for (_, states) in states.iter_mut().enumerate().filter(|(i, _)| is_variance(*i)) {
        for ((mean, sum), drift) in states.a.iter_mut().zip(&mut states.b).zip(&states.drift) {
            *sum -= drift * drift / n;
            *mean += drift / n;
        }
    }
}

/// Calls `take(i, values of reduction i)` for every row, in order.
fn pass(reductions: &[&Reduction], x: View, mut take: impl FnMut(usize, &Block)) {
    let (mut lanes, mut values) = ([0.0; LANES], [0.0; LANES]);
    for r in 0..x.rows() {
        lanes.iter_mut().zip(x.row(r)).for_each(|(lane, &x)| *lane = f64::from(x));
        for (i, reduction) in reductions.iter().enumerate() {
            reduction.of.evaluate(&|_, out: &mut Block| *out = lanes, &mut values);
            take(i, &values);
        }
    }
}

/// The first pass; for the variance it sums, on the way to the mean.
fn add(reducer: Reducer, a: &mut Block, values: &Block) {
    let lanes = a.iter_mut().zip(values);
    match reducer {
        Reducer::Sum | Reducer::Mean | Reducer::Variance => lanes.for_each(|(a, v)| *a += v),
        Reducer::L1 => lanes.for_each(|(a, v)| *a += v.abs()),
        Reducer::L2 => lanes.for_each(|(a, v)| *a += v * v),
        Reducer::Max => lanes.for_each(|(a, v)| *a = Reducer::Max.absorb(State { a: *a, b: 0.0 }, *v, 1.0).a),
    }
}

fn add_distances(states: &mut States, values: &Block) {
    let lanes = states.a.iter().zip(&mut states.b).zip(&mut states.drift).zip(values);
    for (((mean, sum), drift), v) in lanes {
        let distance = v - mean;
        *sum += distance * distance;
        *drift += distance;
    }
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (Op::Metric { program }, x) = (op, &operands[0]) else {
        panic!("bug: `{}` is not a metric", op.name())
    };
    let columns: Vec<Vec<f64>> =
        (0..x.cols()).map(|c| (0..x.rows()).map(|r| x.row(r)[c]).collect()).collect();
    let slots: Vec<Vec<f64>> = columns.iter().map(|column| naive_partial(program, column)).collect();
    (0..program.slots()).flat_map(|s| slots.iter().map(move |column| column[s])).collect()
}

fn naive_partial(program: &Program, column: &[f64]) -> Vec<f64> {
    let values = |of: &Expr| column.iter().map(|&x| naive(of, &|_| x)).collect::<Vec<f64>>();
    let sequence: Vec<f64> =
        program.sequence.iter().map(|r| naive_value(r.reducer, &values(&r.of))).collect();
    let batch = program.batch.iter().map(|r| {
        let value = naive(&r.of, &|leaf| if let Leaf::Sequence(i) = leaf { sequence[i] } else { f64::NAN });
        (r.reducer, vec![value])
    });
    let tokens = program.tokens.iter().map(|r| (r.reducer, values(&r.of)));
    batch.chain(tokens).flat_map(|(reducer, values)| naive_state(reducer, &values)).collect()
}

fn naive_value(reducer: Reducer, values: &[f64]) -> f64 {
    let (state, n) = (naive_state(reducer, values), values.len() as f64);
    match reducer {
        Reducer::Sum | Reducer::L1 | Reducer::Max => state[0],
        Reducer::Mean => state[0] / n,
        Reducer::L2 => state[0].sqrt(),
        Reducer::Variance => state[1] / n,
    }
}

fn naive_state(reducer: Reducer, values: &[f64]) -> Vec<f64> {
    let sum = |f: &dyn Fn(f64) -> f64| values.iter().map(|&v| f(v)).sum::<f64>();
    match reducer {
        Reducer::Sum | Reducer::Mean => vec![sum(&|v| v)],
        Reducer::L1 => vec![sum(&f64::abs)],
        Reducer::L2 => vec![sum(&|v| v * v)],
        Reducer::Max => vec![values.iter().copied().fold(f64::NEG_INFINITY, f64::max)],
        Reducer::Variance => {
            let mean = sum(&|v| v) / values.len() as f64;
            vec![mean, sum(&|v| (v - mean).powi(2))]
        }
    }
}

fn naive(expr: &Expr, leaf: &dyn Fn(Leaf) -> f64) -> f64 {
    match expr {
        Expr::Number(v) => *v,
        Expr::Leaf(l) => leaf(*l),
        Expr::Unary(op, a) => op.apply(naive(a, leaf)),
        Expr::Binary(op, a, b) => op.apply(naive(a, leaf), naive(b, leaf)),
    }
}
