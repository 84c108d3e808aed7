//! The same as shaders: chunk by chunk the logits, then losses with slopes in place of the student's logits, in one
//! shader that is [written](text) for the terms, then the products of the slopes.

mod text;

use super::super::Shaders;
use super::super::logits::shader::{chunks, position, project, space};
use super::position::temperature;
use super::{first_targets, terms};
use crate::shader::common::elementwise;
use crate::shader::{Call, Elem, Factor, Mat, Onto, Plan, Unfit, product};
use minic_compiler::graph::{HeadLoss, reads_teacher};
use std::ops::Range;

pub const KERNEL: Shaders = Shaders { version: 1, plan: forward, tolerance: 1.5e-6 };

fn forward(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let (terms, args, out) = (terms(call.op), call.args, call.out);
    let ([hidden, head], tokens, gradient) = ([&args[0], &args[1]], args[2].flat(), &args[args.len() - 1]);
    let targets = &args[first_targets(terms)..args.len() - 1];
    let (vocab, width) = (head.rows, hidden.cols);
    let columns = targets.iter().map(|mat| mat.cols).sum::<usize>();

    let chunks = chunks(plan, hidden.rows, vocab.max(columns), &[out])?;
    let student = space(plan, &chunks, Elem::F32, vocab)?;
    let teacher = match reads_teacher(terms) {
        true => Some(([&args[3], &args[4]], space(plan, &chunks, Elem::F32, vocab)?)),
        false => None,
    };
    let given = space(plan, &chunks, Elem::F32, columns)?;
    for chunk in &chunks {
        let (hidden_rows, out) = (hidden.rows(chunk.clone()), out.rows(chunk.clone()));
        let slopes = project(plan, [hidden, head], chunk, &student)?;
        let mut source = position("head_loss")
            .write("student", &slopes)
            .write("losses", &out.columns(width, terms.len()))
            .u32("vocab", vocab)
            .f32("nan", f64::NAN);
        if let Some((model, logits)) = &teacher {
            source = source.read("teacher", &project(plan, *model, chunk, logits)?);
        }
        if terms.iter().any(|term| term.loss == HeadLoss::CrossEntropy) {
            let tokens = tokens.columns(chunk.start, (chunk.len() + 1).min(tokens.cols - chunk.start));
            source = source.read("tokens", &tokens).u32("tokens", tokens.cols);
        }
        if !targets.is_empty() {
            source = source.write("given", &gather(plan, targets, chunk, &given)?);
        }
        for (j, term) in terms.iter().enumerate() {
            source = source.f32(format!("weight{j}"), term.weight * term.scale * temperature(term.loss));
        }
        plan.run(text::write(source, terms), chunk.len());

        product(plan, &Factor::of(&slopes), &Factor::of(head), &out.columns(0, width), Onto::default())?;
        let onto = Onto { sum: Some(gradient), ..Onto::default() };
        product(plan, &Factor::transposed(&slopes), &Factor::of(&hidden_rows), gradient, onto)?;
    }
    Ok(())
}

/// The targets of all terms side by side, so that there may be any number of them, and their slopes take their place.
fn gather(plan: &mut Plan, targets: &[Mat], chunk: &Range<usize>, given: &Mat) -> Result<Mat, Unfit> {
    let given = given.rows(0..chunk.len());
    let mut first = 0;
    for mat in targets {
        let (of_term, mat) = (given.columns(first, mat.cols), mat.rows(chunk.clone()));
        elementwise(plan, "targets", &of_term, &[("x", &mat)], &[], "", "x(r, c)")?;
        first += mat.cols;
    }
    Ok(given)
}
