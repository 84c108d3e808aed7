//! y = x weight^T (+ bias), or y += x weight^T (+ bias) onto a residual that is in y already; and in reverse,
//! dx = dy weight and dweight += dy^T x.

mod shader;
mod thin;

use super::product::{Factor, products, products_scratch};
use super::{Call, Exact, Kernel, ViewMut};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel =
    Kernel { name: "linear", version: 2, cpu, reference, scratch, tolerance: 2e-5, shaders: shader::KERNEL };

pub const GRAD: Kernel = Kernel {
    name: "linear_grad",
    version: 1,
    cpu: grad,
    reference: grad_reference,
    scratch: grad_scratch,
    tolerance: 2e-5,
    shaders: shader::GRAD,
};

pub const WEIGHT_GRAD: Kernel = Kernel {
    name: "linear_weight_grad",
    version: 1,
    cpu: weight_grad,
    reference: weight_grad_reference,
    scratch: weight_grad_scratch,
    tolerance: 2e-5,
    shaders: shader::WEIGHT_GRAD,
};

fn constants(op: &Op) -> (bool, bool) {
    match op {
        Op::Linear { bias, residual } => (*bias, *residual),
        _ => panic!("bug: `{}` is no linear", op.name()),
    }
}

fn scratch(_: &Op, operands: &[(usize, usize)]) -> usize {
    operands.get(1).map_or(0, |&(cols, depth)| products_scratch(depth, cols))
}

fn cpu(call: Call) {
    let (has_bias, residual) = constants(call.op);
    let (x, weight) = (call.f32(0), call.f32(1));
    let bias = has_bias.then(|| call.f32(2).row(0));
    let (out, accumulate) = (call.out_f32(), residual || has_bias);
    let start = |c: usize, out: &mut ViewMut| {
        let Some(bias) = bias else { return };
        for i in 0..out.rows() {
            let start = out.row(i).iter_mut().zip(&bias[c..]);
            start.for_each(|(y, b)| *y = if residual { *y + b } else { *b });
        }
    };
    if x.rows() <= thin::ROWS {
        return thin::thin(x, weight, out, accumulate, start);
    }
    let weight = Factor::transposed(weight);
    products(Factor::of(x), weight, out, accumulate, |_, c, out| start(c, out));
}

fn reference(op: &Op, operands: &[Exact]) -> Vec<f64> {
    let (has_bias, residual) = constants(op);
    let (x, weight) = (&operands[0], &operands[1]);
    let mut out = Vec::new();
    for r in 0..x.rows() {
        for c in 0..weight.rows() {
            let dot: f64 = x.row(r).iter().zip(weight.row(c)).map(|(x, w)| x * w).sum();
            let bias = if has_bias { operands[2].data()[c] } else { 0.0 };
            let residual = if residual { operands[2 + usize::from(has_bias)].row(r)[c] } else { 0.0 };
            out.push(dot + bias + residual);
        }
    }
    out
}

fn grad_scratch(_: &Op, operands: &[(usize, usize)]) -> usize {
    operands.get(1).map_or(0, |&(depth, cols)| products_scratch(depth, cols))
}

fn grad(call: Call) {
    let (dy, weight) = (call.f32(0), call.f32(1));
    products(Factor::of(dy), Factor::of(weight), call.out_f32(), false, |_, _, _| {});
}

fn grad_reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let (dy, weight) = (&operands[0], &operands[1]);
    let dx = |r: usize, i: usize| (0..weight.rows()).map(|o| dy.row(r)[o] * weight.row(o)[i]).sum();
    (0..dy.rows()).flat_map(|r| (0..weight.cols()).map(move |i| dx(r, i))).collect()
}

fn weight_grad_scratch(_: &Op, operands: &[(usize, usize)]) -> usize {
    operands.get(1).map_or(0, |&(depth, cols)| products_scratch(depth, cols))
}

fn weight_grad(mut call: Call) {
    let (dy, x) = (call.f32(0), call.f32(1));
    products(Factor::transposed(dy), Factor::of(x), call.changed(), true, |_, _, _| {});
}

fn weight_grad_reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let (dy, x, gradient) = (&operands[0], &operands[1], &operands[2]);
    let sum = |o: usize, i: usize| (0..x.rows()).map(|t| dy.row(t)[o] * x.row(t)[i]).sum::<f64>();
    (0..dy.cols()).flat_map(|o| (0..x.cols()).map(move |i| gradient.row(o)[i] + sum(o, i))).collect()
}
