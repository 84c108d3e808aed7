//! One call of one kernel, for its test.

use super::super::DeviceError;
use super::buffers::{Pages, Readback, bytes_of, bytes_of_u32};
use super::gpu::Gpu;
use super::program::Commands;
use crate::kernels::Shaders;
use crate::shader::{Call, Elem, Mat, Memory, PAGE, Plan, Precision};
use minic_compiler::graph::Op;

/// An operand: rows of f32 that lie `stride` elements apart, or tokens.
pub enum Given<'a> {
    F32 { data: &'a [f32], rows: usize, cols: usize, stride: usize },
    U32(&'a [u32]),
}

/// The operands of a call in memory, and where its value goes.
pub struct Laid {
    arena: Vec<f32>,
    tokens: Vec<u32>,
    result: Vec<f32>,
    pub args: Vec<Mat>,
    pub out: Mat,
}

const GAP: usize = 3;

/// What lies between the rows of the value has to stay as it is.
pub fn lay_out(op: &Op, operands: &[Given], (rows, cols): (usize, usize)) -> Laid {
    let f64s = op.elem() == minic_compiler::graph::Elem::F64;
    let (mut arena, mut tokens, mut args) = (Vec::new(), Vec::new(), Vec::new());
    let mut result: Vec<f32> = vec![f32::NAN; 2 * rows * cols];
    for (i, operand) in operands.iter().enumerate() {
        args.push(match operand {
            Given::U32(ids) => {
                tokens = ids.to_vec();
                Mat::new(Memory::Tokens, Elem::U32, 0, 1, ids.len(), ids.len())
            }
            Given::F32 { data, rows, cols, stride } if f64s && op.in_place_operand() == Some(i) => {
                let held = (0..*rows).flat_map(|r| &data[r * stride..r * stride + cols]);
                result = held.flat_map(|x| [*x, 0.0]).collect();
                Mat::new(Memory::Result(0), Elem::Pair, 0, *rows, *cols, *cols)
            }
            Given::F32 { data, rows, cols, stride } => {
                let at = arena.len();
                arena.extend_from_slice(data);
                arena.resize(arena.len().next_multiple_of(16), 0.0);
                Mat::new(Memory::Arena, Elem::F32, at, *rows, *cols, *stride)
            }
        });
    }
    let out = if f64s {
        Mat::new(Memory::Result(0), Elem::Pair, 0, rows, cols, cols)
    } else {
        let at = arena.len();
        arena.resize(at + rows * (cols + GAP), f32::NAN);
        Mat::new(Memory::Arena, Elem::F32, at, rows, cols, cols + GAP)
    };
    Laid { arena, tokens, result, args, out }
}

/// The value, as f64, and behind it the last operand, where the operation adds to it.
pub fn once(
    gpu: &Gpu,
    precision: Precision,
    shaders: Shaders,
    op: &Op,
    operands: &[Given],
    (rows, cols): (usize, usize),
) -> Result<Vec<f64>, DeviceError> {
    let Laid { arena, tokens, result, args, out } = lay_out(op, operands, (rows, cols));
    let mut plan = Plan::new(&gpu.caps).rounding(precision);
    (shaders.plan)(&mut plan, Call { op, args: &args, out: &out })?;
    let page = |words: usize| Pages::new(gpu, words.max(1), PAGE);
    let memory = [page(arena.len())?, page(tokens.len())?, page(result.len())?, page(plan.scratch)?];
    memory[0].write(gpu, 0, bytes_of(&arena));
    memory[1].write(gpu, 0, bytes_of_u32(&tokens));
    memory[2].write(gpu, 0, bytes_of(&result));
    // Kernels must not rely on scratch of any content.
    memory[3].write(gpu, 0, bytes_of(&vec![f32::NAN; plan.scratch]));
    let commands = Commands::new(gpu, &plan.dispatches, |wanted| match wanted {
        Memory::Arena => Some(&memory[0]),
        Memory::Tokens => Some(&memory[1]),
        Memory::Result(_) => Some(&memory[2]),
        _ => Some(&memory[3]),
    })?;
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    commands.encode(&mut encoder, 0..commands.list.len());
    let words = arena.len() + result.len();
    let readback = Readback::new(gpu, words)?;
    memory[0].copy(&mut encoder, 0, arena.len(), &readback.buffer, 0);
    memory[2].copy(&mut encoder, 0, result.len(), &readback.buffer, 4 * arena.len() as u64);
    let submitted = gpu.queue.submit([encoder.finish()]);
    readback.read(gpu, submitted, |words| {
        let real = |i: usize| f32::from_bits(words[i]);
        let of = |mat: &Mat| -> Vec<f64> {
            let at = |r: usize, c: usize| match mat.elem {
                Elem::Pair => {
                    let i = arena.len() + 2 * (mat.at + r * mat.stride + c);
                    f64::from(real(i)) + f64::from(real(i + 1))
                }
                _ => f64::from(real(mat.at + r * mat.stride + c)),
            };
            (0..mat.rows).flat_map(|r| (0..mat.cols).map(move |c| at(r, c))).collect()
        };
        if out.elem != Elem::Pair {
            let gaps = (0..rows).flat_map(|r| (cols..cols + GAP).map(move |c| (r, c)));
            for (r, c) in gaps {
                assert!(real(out.at + r * out.stride + c).is_nan(), "{op:?} wrote between rows");
            }
        }
        let mut values = of(&out);
        if op.accumulates() {
            values.extend(args.last().map(of).unwrap_or_default());
        }
        values
    })
}
