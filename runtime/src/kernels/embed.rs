//! Rows of the embedding table, y[t] = table[tokens[t]]; and in reverse, dtable[tokens[t]] += dx[t], in the order
//! of t. An id outside the table gives a row of NaN, and has no row to add to.

mod shader;

use super::parallel::{by_blocks, by_rows, row_block};
use super::{Call, Exact, Kernel, no_scratch};
use minic_compiler::graph::Op;

pub const KERNEL: Kernel = Kernel {
    name: "embed",
    version: 1,
    cpu,
    reference,
    scratch: no_scratch,
    tolerance: 0.0,
    shaders: shader::KERNEL,
};

pub const GRAD: Kernel = Kernel {
    name: "embed_grad",
    version: 1,
    cpu: grad,
    reference: grad_reference,
    scratch: no_scratch,
    tolerance: 1e-6,
    shaders: shader::GRAD,
};

/// Columns to a task of the gradient, which passes over all positions: a few cache lines of every row.
const COLS: usize = 64;

fn cpu(call: Call) {
    let (tokens, table) = (call.tokens(0), call.f32(1));
    let out = call.out_f32();
    let block = row_block(out.cols());
    by_rows(out, block, |first, mut out| {
        for i in 0..out.rows() {
            let id = tokens[first + i] as usize;
            if id < table.rows() {
                out.row(i).copy_from_slice(table.row(id));
            } else {
                out.row(i).fill(f32::NAN);
            }
        }
    });
}

fn reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let row = |&id: &u32| operands[1].row(id as usize).to_vec();
    operands[0].tokens().iter().flat_map(row).collect()
}

fn grad(mut call: Call) {
    let (tokens, dx) = (call.tokens(0), call.f32(1));
    let gradient = call.changed();
    let vocab = gradient.rows();
    by_blocks(gradient, vocab, COLS, |_, c, mut gradient| {
        for (t, &id) in tokens.iter().enumerate() {
            if (id as usize) < vocab {
                let row = gradient.row(id as usize).iter_mut();
                row.zip(&dx.row(t)[c..]).for_each(|(gradient, dx)| *gradient += dx);
            }
        }
    });
}

fn grad_reference(_: &Op, operands: &[Exact]) -> Vec<f64> {
    let (tokens, dx, gradient) = (operands[0].tokens(), &operands[1], &operands[2]);
    let mut out = gradient.data().to_vec();
    for (t, &id) in tokens.iter().enumerate() {
        for (c, dx) in dx.row(t).iter().enumerate() {
            out[id as usize * gradient.cols() + c] += dx;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::differences::{assert_near, differences, drawn, zeros};
    use super::super::{Arg, Out, View, ViewMut};
    use super::*;

    #[test]
    fn gradients_are_slopes() {
        let (tokens, table, dy) = (Exact::U32(vec![2, 0, 2, 1]), drawn(1, 4, 3), drawn(2, 4, 3));
        let slopes = differences(&KERNEL, &Op::Embed, &[tokens.clone(), table], 1, &dy);
        assert_near(&grad_reference(&Op::EmbedGrad, &[tokens, dy, zeros(4, 3)]), &slopes);
    }

    #[test]
    fn tokens_outside_the_table_add_nothing() {
        let (ids, dx, mut sum) = ([7u32, 1, u32::MAX, 1], [1.0f32, 2.0, 4.0, 8.0], [0.5f32; 2]);
        grad(Call {
            op: &Op::EmbedGrad,
            args: &[Arg::U32(&ids), Arg::F32(View::new(&dx, 4, 1, 1))],
            out: Out::F32(ViewMut::new(&mut [], 0, 0, 0)),
            changed: Some(ViewMut::new(&mut sum, 2, 1, 1)),
        });
        assert_eq!(sum, [0.5, 10.5]);
    }
}
