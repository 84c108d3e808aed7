//! One call of one kernel, for its test.

use super::super::DeviceError;
use super::gpu::Gpu;
use super::program::run_once;
use crate::kernels::Shaders;
use crate::shader::{Call, Caps, Elem, Mat, Memory, Plan, Precision};
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

/// The value, as f64, and behind it the last operand, where the operation changes it.
pub fn once(
    gpu: &Gpu,
    precision: Precision,
    shaders: Shaders,
    op: &Op,
    operands: &[Given],
    shape: (usize, usize),
) -> Result<Vec<f64>, DeviceError> {
    once_as(gpu, &gpu.caps, precision, shaders, op, operands, shape)
}

/// The same as a device of other capabilities would do it.
pub fn once_as(
    gpu: &Gpu,
    caps: &Caps,
    precision: Precision,
    shaders: Shaders,
    op: &Op,
    operands: &[Given],
    (rows, cols): (usize, usize),
) -> Result<Vec<f64>, DeviceError> {
    let Laid { arena, tokens, result, args, out } = lay_out(op, operands, (rows, cols));
    let mut plan = Plan::new(caps).rounding(precision);
    (shaders.plan)(&mut plan, Call { op, args: &args, out: &out })?;
    let bits = |data: &[f32]| data.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    let given = [(Memory::Arena, bits(&arena)), (Memory::Tokens, tokens), (Memory::Result(0), bits(&result))];
    let after = run_once(gpu, &plan, &given)?;
    let real = |memory: usize, i: usize| f32::from_bits(after[memory][i]);
    let of = |mat: &Mat| -> Vec<f64> {
        let at = |r: usize, c: usize| {
            let i = mat.at + r * mat.stride + c;
            match mat.elem {
                Elem::Pair => f64::from(real(2, 2 * i)) + f64::from(real(2, 2 * i + 1)),
                _ => f64::from(real(0, i)),
            }
        };
        (0..mat.rows).flat_map(|r| (0..mat.cols).map(move |c| at(r, c))).collect()
    };
    if out.elem != Elem::Pair {
        let gaps = (0..rows).flat_map(|r| (cols..cols + GAP).map(move |c| out.at + r * out.stride + c));
        for i in gaps {
            assert!(real(0, i).is_nan(), "{op:?} wrote between rows");
        }
    }
    let mut values = of(&out);
    if op.changes() {
        values.extend(args.last().map(of).unwrap_or_default());
    }
    Ok(values)
}
