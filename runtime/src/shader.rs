//! Kernels of devices that run shaders: WGSL text, what it is bound to, and how often it is run. Pure data, made
//! and checked without any such device.
//!
//! A kernel fills a [`Plan`] with dispatches, in order. Each is a [`Source`], which writes down declarations,
//! parameters and accessors of what it reads and writes, so that the text of a kernel is its formula. Sizes are
//! parameters and not part of the text: one pipeline serves every shape.

mod bf16;
pub mod common;
pub mod expr;
mod gate;
pub mod half;
mod mat;
mod product;
mod source;

pub use gate::{Checked, Refused, check};
pub use half::Precision;
pub use mat::{Elem, Mat, Memory, PAGE, Packing, cuts, page_of};
pub use product::{Factor, Onto, product};
pub use source::{Dispatch, Source};

use minic_compiler::graph::Op;
use minic_compiler::schedule::within_page;

/// What a device can do; kernels choose their variants by it.
#[derive(Clone, Debug, PartialEq)]
pub struct Caps {
    /// Fewest and most invocations of a subgroup.
    pub subgroup: (u32, u32),
    pub f16: bool,
    /// Shapes of cooperative matrices, f16 x f16 + f32.
    pub cooperative: Vec<[u32; 3]>,
    /// The same of bf16 x bf16 + f32.
    pub cooperative_bf16: Vec<[u32; 3]>,
    /// Cooperative matrices are written out as plain arithmetic, so that what is around them can be tested without.
    pub emulated: bool,
    /// Bytes of memory that a workgroup shares.
    pub workgroup_memory: usize,
    /// Invocations of a workgroup.
    pub invocations: usize,
    /// Bytes that one binding reaches.
    pub binding: usize,
    /// Bytes of one buffer.
    pub buffer: usize,
    /// Bytes that the offset of a binding is a multiple of.
    pub alignment: usize,
    /// Workgroups in each dimension of a dispatch.
    pub groups: usize,
    /// Rounds of all loops of one invocation, after which the device silently ends them: Mesa's software does so after
    /// 65535. What runs there counts its rounds, so that more of them is an error.
    pub rounds: Option<usize>,
    /// Shaders run on the processor: workgroup memory and barriers cost more than they save.
    pub software: bool,
    /// Timestamps between the dispatches of a pass.
    pub timestamps: bool,
}

impl Caps {
    /// The least that a device has to have; what kernels are checked against where there is none.
    pub const fn least() -> Caps {
        Caps {
            subgroup: (1, 128),
            f16: false,
            cooperative: Vec::new(),
            cooperative_bf16: Vec::new(),
            emulated: false,
            workgroup_memory: 32 << 10,
            invocations: 256,
            binding: 128 << 20,
            buffer: 4 * PAGE,
            alignment: 256,
            groups: 65535,
            rounds: None,
            software: false,
            timestamps: false,
        }
    }

    /// f32 elements that one binding reaches from wherever it begins.
    pub fn reach(&self) -> usize {
        (self.binding.saturating_sub(self.alignment)) / 4
    }
}

/// An operand that kernels cannot cut to what a device holds.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unfit {
    #[error("a row of {bytes} bytes is longer than the {limit} that one binding of the device holds")]
    Row { bytes: usize, limit: usize },
    #[error("a value of {} MiB is longer than the 1 GiB that one has at most: take shorter sequences", bytes >> 20)]
    Long { bytes: usize },
    #[error("rows of {bytes} bytes are too long to be packed in pieces of whole tiles")]
    Tile { bytes: usize },
}

/// One invocation of a kernel: the operation, all of its operands in order, and its value. An operand that the
/// operation works on in place lies where the value does, or elsewhere.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub op: &'a Op,
    pub args: &'a [Mat],
    pub out: &'a Mat,
}

/// The dispatches of a kernel, in order; each sees what the ones before it wrote.
pub struct Plan<'a> {
    pub caps: &'a Caps,
    /// Of the factors of products.
    pub precision: Precision,
    /// What has to be made of weights before.
    pub prepared: Vec<half::Preparation>,
    pub dispatches: Vec<Dispatch>,
    /// Words of [`Memory::Scratch`] that are taken, and the most that were at once.
    taken: usize,
    pub scratch: usize,
}

impl<'a> Plan<'a> {
    pub fn new(caps: &'a Caps) -> Plan<'a> {
        let precision = Precision::F32;
        Plan { caps, precision, prepared: Vec::new(), dispatches: Vec::new(), taken: 0, scratch: 0 }
    }

    /// Rounds the factors of products.
    pub fn rounding(self, precision: Precision) -> Plan<'a> {
        Plan { precision, ..self }
    }

    /// A matrix of 4-byte elements, of no defined content, for as long as the kernel runs.
    pub fn scratch(&mut self, elem: Elem, rows: usize, cols: usize) -> Mat {
        let words = elem.words();
        let unit = (self.caps.alignment / 4).max(2);
        let len = rows * cols * words;
        self.taken = within_page(self.taken, len);
        let at = self.taken / words;
        let mat = Mat::new(Memory::Scratch, elem, at, rows, cols, cols).paged(PAGE / words);
        self.taken = (self.taken + len).next_multiple_of(unit);
        self.scratch = self.scratch.max(self.taken);
        mat
    }

    /// What `part` takes of scratch is free again behind it.
    pub fn for_a_while<T>(&mut self, part: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.taken;
        let done = part(self);
        self.taken = before;
        done
    }

    /// Runs `groups` workgroups.
    pub fn run(&mut self, source: Source, groups: usize) {
        if groups > 0 {
            self.dispatches.push(source.dispatch(groups, self.caps));
        }
    }
}
