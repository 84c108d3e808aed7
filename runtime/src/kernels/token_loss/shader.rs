//! The same as shaders, one workgroup a position.

use super::super::Shaders;
use super::super::logits::shader::{chunks, position, project, space};
use crate::shader::{Call, Elem, Plan, Unfit};

pub const KERNEL: Shaders = Shaders { version: 1, plan: forward, tolerance: 1e-6 };

/// The token is the most likely one where none is ahead of it.
const BODY: &str = "
    let token = tokens(0u, r);
    var x = p.nan;
    if (token < p.vocab) { x = logits(r, token); }
    var running = none(1.0);
    var ahead = 0.0;
    for (var c = lane; c < p.vocab; c += 256u) {
        let z = logits(r, c);
        running = seen(running, z);
        ahead += select(0.0, 1.0, z > x || (z == x && c < token));
    }
    let total = softmax(running, lane);
    ahead = whole(vec2(ahead, 0.0), lane).x;
    if (lane == 0u) {
        set_out(r, 0u, pair_add(pair_add(total.log_sum, total.top), -x));
        set_out(r, 1u, vec2(select(0.0, 1.0, ahead == 0.0 && token < p.vocab), 0.0));
    }";

fn forward(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ([hidden, head], tokens, out) = ([&call.args[0], &call.args[1]], call.args[2].flat(), call.out);
    let chunks = chunks(plan, out.rows, head.rows, &[out])?;
    let logits = space(plan, &chunks, Elem::F32, head.rows)?;
    for chunk in &chunks {
        let logits = project(plan, [hidden, head], chunk, &logits)?;
        let source = position("token_loss")
            .read("logits", &logits)
            .read("tokens", &tokens.columns(chunk.start + 1, chunk.len()))
            .write("out", &out.rows(chunk.clone()))
            .u32("vocab", head.rows)
            .f32("nan", f64::NAN)
            .body(BODY);
        plan.run(source, chunk.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::vulkan::once;
    use crate::testing;
    use minic_compiler::graph::Op;

    /// (nll, hit) of positions whose logits are those of the head.
    fn losses(head: &[f32], tokens: &[u32]) -> Option<Vec<f64>> {
        let hidden = vec![1.0; tokens.len()];
        let matrix = |data, rows| once::Given::F32 { data, rows, cols: 1, stride: 1 };
        let given = [matrix(&hidden, tokens.len()), matrix(head, head.len()), once::Given::U32(tokens)];
        let gpu = testing::vulkan(None)?;
        Some(
            once::once(
                gpu,
                crate::shader::Precision::F32,
                KERNEL,
                &Op::TokenLoss,
                &given,
                (tokens.len() - 1, 2),
            )
            .unwrap(),
        )
    }

    #[test]
    fn equal_maxima_are_decided_for_the_lowest_token() {
        let Some(found) = losses(&[0.0, 5.0, 5.0], &[0, 1, 2]) else { return };
        assert_eq!((found[1], found[3]), (1.0, 0.0));
    }

    #[test]
    fn tokens_outside_the_vocabulary_give_nan_and_no_hit() {
        let Some(found) = losses(&[1.0, 2.0], &[0, 2, u32::MAX, 1]) else { return };
        assert!(found[..4].iter().step_by(2).all(|nll| nll.is_nan()));
        assert!((found[1], found[3], found[5]) == (0.0, 0.0, 1.0) && found[4] > 0.0);
    }

    #[test]
    fn logits_that_are_not_numbers_show() {
        for wrong in [f32::NAN, f32::INFINITY] {
            let Some(found) = losses(&[1.0, wrong, 3.0], &[0, 2]) else { return };
            assert!(found[0].is_nan(), "{found:?}");
        }
    }
}
