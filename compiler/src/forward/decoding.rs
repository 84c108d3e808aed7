//! The graphs of decoding: the first tokens of a sequence, and then one token of every sequence at a time. What they
//! leave for one another are states, of the same names and shapes in both.

use super::{output, run};
use crate::graph::{Builder, Decoding, Graph, Op, Phase, ShapeError};
use crate::model::ModelDesc;

/// What is told of the next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Output `logits` [rows, V].
    Logits,
    /// Output `token` [rows, 1], the likeliest one.
    Token,
}

/// Some first tokens of one sequence, of which its states are left, and what comes after the last of them: one row.
pub fn prefill(
    desc: &ModelDesc,
    tokens: usize,
    sequences: usize,
    capacity: usize,
    answer: Answer,
) -> Result<Graph, ShapeError> {
    decode(desc, tokens, Decoding { phase: Phase::Prefill, sequences, capacity }, answer)
}

/// The next token of every sequence, and what comes after it: one row a sequence. The position is an input, so that
/// one schedule serves all steps.
pub fn step(
    desc: &ModelDesc,
    sequences: usize,
    capacity: usize,
    answer: Answer,
) -> Result<Graph, ShapeError> {
    decode(desc, sequences, Decoding { phase: Phase::Step, sequences, capacity }, answer)
}

fn decode(desc: &ModelDesc, rows: usize, decoding: Decoding, answer: Answer) -> Result<Graph, ShapeError> {
    let mut b = Builder::decoding(decoding);
    let (tokens, layers) = (b.tokens(rows), (0..desc.layers.len()).collect::<Vec<_>>());
    let stream = desc.family().embed(&mut b, desc, tokens);
    let mut stream = run(&mut b, desc, stream, &layers)[layers.len()];
    if decoding.phase == Phase::Prefill {
        stream = b.add_op(Op::Last, &[stream]);
    }
    let hidden = desc.family().last_norm(&mut b, desc, stream);
    let head = desc.family().head(&mut b, desc);
    let logits = b.linear(hidden, head, None);
    match answer {
        Answer::Logits => b.output(output::LOGITS, logits),
        Answer::Token => {
            let token = b.add_op(Op::Argmax, &[logits]);
            b.output(output::TOKEN, token);
        }
    }
    b.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LayerKind;
    use crate::schedule::schedule;
    use crate::{config, families};
    use std::collections::BTreeMap;

    fn one_of_each() -> ModelDesc {
        let config = config::parse(include_str!("../../tests/configs/tiny.json")).unwrap();
        let desc = families::describe(&config).unwrap();
        let first = |kind: &LayerKind| desc.layers.iter().position(|k| k == kind).unwrap();
        let layers: Vec<usize> = LayerKind::ALL.iter().map(first).collect();
        desc.resized(&BTreeMap::new(), &layers)
    }

    #[test]
    fn blocks_remember_and_go_on() {
        let desc = one_of_each();
        let graphs = [
            ("prefill", prefill(&desc, 8, 2, 32, Answer::Logits)),
            ("step", step(&desc, 2, 32, Answer::Token)),
        ];
        for (name, graph) in graphs {
            let graph = graph.unwrap();
            let text = format!("{graph}\n{}", schedule(&graph).unwrap());
            insta::assert_snapshot!(name, text);
        }
    }

    #[test]
    fn what_the_first_tokens_leave_is_what_steps_take_up() {
        let desc = one_of_each();
        let states = |graph: Result<Graph, ShapeError>| schedule(&graph.unwrap()).unwrap().states;
        let left = states(prefill(&desc, 5, 3, 40, Answer::Token));
        assert_eq!(left, states(step(&desc, 3, 40, Answer::Logits)));
        assert_eq!(left.keys().collect::<Vec<_>>(), ["keys.2", "state.0", "values.2", "window.0"]);
        let longer = states(step(&desc, 3, 80, Answer::Logits));
        assert_eq!(longer["keys.2"], 2 * left["keys.2"], "attention alone remembers all");
        assert_eq!([longer["state.0"], longer["window.0"]], [left["state.0"], left["window.0"]]);
    }

    #[test]
    fn what_is_moved_on_is_a_state() {
        let mut b = Builder::new();
        let x = b.tokens(4);
        let table = b.weight("table", vec![crate::dim::Extent::of(crate::dim::Dim::One, 8); 2]);
        let x = b.embed(x, table);
        let at = b.input("at", vec![crate::dim::Extent::of(crate::dim::Dim::One, 2)]);
        b.add_op(Op::Keep { positions: 4, window: 4 }, &[x, at, table]);
        assert_eq!(b.finish().unwrap_err().message, "what it moves on is no state");
    }

    #[test]
    fn positions_that_f32_has_not_are_refused() {
        let error = step(&one_of_each(), 1, (1 << 24) + 1, Answer::Token).unwrap_err();
        assert_eq!(error.message, "positions up to 16777217 are no whole numbers of f32");
    }
}
