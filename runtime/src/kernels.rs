//! The CPU kernels, one file an operation.
//!
//! What every kernel keeps to:
//! - Same bits for any number of threads: work is cut by shape alone, and every reduction has a fixed order.
//! - Operations that change a leaf ([`Op::changes`]) add to their gradient or move their state on, and leave an empty
//!   `out` alone.
//! - In-place operations ([`Op::in_place_operand`]) find that operand in `out` when they are called and update
//!   it there; it is left out of `args`. All other kernels write every element of `out` and read none.
//! - Beyond its operands, one worker thread holds at most [`Kernel::scratch`] bytes at a time.
//! - Shapes are those that [`Op::infer`] accepted. Token ids are data: an id outside the table gives NaN.

mod activation;
pub(crate) mod adamw;
mod add;
mod argmax;
mod attention;
mod attention_grad;
mod column_sum;
mod concat;
mod conv_silu;
mod cosine_distance;
mod covariance;
mod divergence;
mod embed;
mod gated_norm;
mod gemm;
mod head_loss;
mod keep;
mod linear;
mod logits;
mod mask;
mod math;
pub(crate) mod metric;
pub(crate) mod parallel;
pub(crate) mod product;
mod rms_norm;
mod ssd;
mod stream_loss;
mod sums;
#[cfg(test)]
mod tests;
mod token_loss;
mod top_k;
mod view;

pub use math::Level;
pub use view::{View, ViewMut};

use crate::shader;
use minic_compiler::graph::Op;

/// To add a kernel: its file, its `mod` line, and its line here.
pub const KERNELS: &[Kernel] = &[
    embed::KERNEL,
    rms_norm::KERNEL,
    linear::KERNEL,
    conv_silu::KERNEL,
    ssd::KERNEL,
    gated_norm::KERNEL,
    activation::RELU2,
    activation::SILU,
    attention::KERNEL,
    attention_grad::KERNEL,
    add::KERNEL,
    mask::KERNEL,
    token_loss::KERNEL,
    divergence::KERNEL,
    top_k::KERNEL,
    cosine_distance::KERNEL,
    covariance::KERNEL,
    metric::KERNEL,
    concat::KERNEL,
    column_sum::KERNEL,
    linear::GRAD,
    linear::WEIGHT_GRAD,
    rms_norm::GRAD,
    rms_norm::WEIGHT_GRAD,
    gated_norm::GRAD,
    gated_norm::WEIGHT_GRAD,
    conv_silu::SILU_GRAD,
    conv_silu::CONV_GRAD,
    conv_silu::WEIGHT_GRAD,
    activation::RELU2_GRAD,
    activation::SILU_GRAD,
    embed::GRAD,
    stream_loss::KERNEL,
    head_loss::KERNEL,
    ssd::GRAD,
    keep::KERNEL,
    conv_silu::STEP,
    ssd::PREFILL,
    ssd::STEP,
    attention::STEP,
    argmax::KERNEL,
];

/// One operation's implementations, side by side with the tolerance of their test.
pub struct Kernel {
    /// [`Op::name`] of the operation that it computes.
    pub name: &'static str,
    /// Raised when the values change: what was computed before is then computed again.
    pub version: u32,
    pub cpu: fn(Call),
    /// The same in f64, naive and plain: all operands in order -> the value, row-major, and behind it the
    /// gradient or state after the operation, where it changes one.
    pub reference: fn(&Op, &[Exact]) -> Vec<f64>,
    /// Bytes that one worker thread needs beyond the operands, from the operands' (rows, columns), in order.
    pub scratch: fn(&Op, &[(usize, usize)]) -> usize,
    /// Largest difference from `reference`, relative to the largest magnitude of the value (at least one).
    pub tolerance: f64,
    pub shaders: Shaders,
}

/// The same operation as shaders.
#[derive(Clone, Copy)]
pub struct Shaders {
    /// As [`Kernel::version`].
    pub version: u32,
    /// Makes the dispatches of one call. Operations that change a leaf change their last operand.
    pub plan: fn(&mut shader::Plan, shader::Call) -> Result<(), shader::Unfit>,
    /// As [`Kernel::tolerance`].
    pub tolerance: f64,
}

/// An operand of a kernel.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    F32(View<'a>),
    U32(&'a [u32]),
}

/// Where a kernel writes; f64 values are contiguous.
pub enum Out<'a> {
    F32(ViewMut<'a>),
    F64(&'a mut [f64]),
}

/// One invocation: the operation, its operands in order less the in-place one and the leaf that it changes, the place
/// of its value, and that leaf.
pub struct Call<'a> {
    pub op: &'a Op,
    pub args: &'a [Arg<'a>],
    pub out: Out<'a>,
    pub changed: Option<ViewMut<'a>>,
}

impl<'a> Call<'a> {
    /// Argument `i` as a matrix; a vector is one row.
    fn f32(&self, i: usize) -> View<'a> {
        match self.args.get(i) {
            Some(Arg::F32(view)) => *view,
            _ => panic!("bug: argument {i} of `{}` is not an f32 matrix", self.op.name()),
        }
    }

    fn tokens(&self, i: usize) -> &'a [u32] {
        match self.args.get(i) {
            Some(Arg::U32(ids)) => ids,
            _ => panic!("bug: argument {i} of `{}` is not a list of tokens", self.op.name()),
        }
    }

    /// The gradient or the state that the operation changes; a vector is one row.
    fn changed(&mut self) -> ViewMut<'a> {
        match self.changed.take() {
            Some(leaf) => leaf,
            None => panic!("bug: `{}` has nothing to change", self.op.name()),
        }
    }

    /// Argument `i` as the sequence and the position at which the rows of a run begin.
    fn at(&self, i: usize) -> [usize; 2] {
        let at = self.f32(i).row(0);
        [at[0] as usize, at[1] as usize]
    }

    fn out_f32(self) -> ViewMut<'a> {
        match self.out {
            Out::F32(view) => view,
            Out::F64(_) => panic!("bug: `{}` writes f32", self.op.name()),
        }
    }

    fn out_f64(self) -> &'a mut [f64] {
        match self.out {
            Out::F64(out) => out,
            Out::F32(_) => panic!("bug: `{}` writes f64", self.op.name()),
        }
    }
}

/// An operand of a reference implementation: a contiguous row-major matrix, or tokens.
#[derive(Clone)]
pub enum Exact {
    F64 { data: Vec<f64>, rows: usize, cols: usize },
    U32(Vec<u32>),
}

impl Exact {
    fn data(&self) -> &[f64] {
        match self {
            Exact::F64 { data, .. } => data,
            Exact::U32(_) => &[],
        }
    }

    fn rows(&self) -> usize {
        match self {
            Exact::F64 { rows, .. } => *rows,
            Exact::U32(ids) => ids.len(),
        }
    }

    fn cols(&self) -> usize {
        match self {
            Exact::F64 { cols, .. } => *cols,
            Exact::U32(_) => 1,
        }
    }

    fn row(&self, r: usize) -> &[f64] {
        let cols = self.cols();
        &self.data()[r * cols..(r + 1) * cols]
    }

    fn at(&self) -> [usize; 2] {
        [self.data()[0] as usize, self.data()[1] as usize]
    }

    fn tokens(&self) -> &[u32] {
        match self {
            Exact::U32(ids) => ids,
            Exact::F64 { .. } => &[],
        }
    }
}

/// The vector instructions that the kernels use on this machine. Others may round otherwise.
pub fn instructions() -> &'static str {
    math::Level::of_machine().name()
}

/// The kernel of an operation; leaves and views have none.
pub fn find(op: &Op) -> Option<&'static Kernel> {
    KERNELS.iter().find(|k| k.name == op.name())
}

/// Bytes that one worker thread needs beyond the operands; zero for leaves and views.
pub fn scratch_bytes(op: &Op, operands: &[(usize, usize)]) -> usize {
    find(op).map_or(0, |kernel| (kernel.scratch)(op, operands))
}

/// The scratch of kernels that need none.
fn no_scratch(_: &Op, _: &[(usize, usize)]) -> usize {
    0
}
