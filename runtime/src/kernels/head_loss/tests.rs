//! The gradients by their own size, losses by finite differences, and what only a chunk or a token can break.

use super::super::{Arg, Out};
use super::*;

/// What a call is given.
#[derive(Clone)]
struct Sample {
    terms: Vec<HeadTerm>,
    vocab: usize,
    tokens: Vec<u32>,
    hidden: Vec<f32>,
    head: Vec<f32>,
    teacher: [Vec<f32>; 2],
}

fn draw(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn term(weight: f64, positions: usize, loss: HeadLoss) -> HeadTerm {
    HeadTerm { weight, scale: 1.0 / (3 * positions) as f64, loss }
}

fn kinds() -> [HeadLoss; 5] {
    [
        HeadLoss::ForwardKl { temperature: 2.0 },
        HeadLoss::ReverseKl { temperature: 0.8 },
        HeadLoss::Js { beta: 0.3, temperature: 1.5 },
        HeadLoss::Js { beta: 0.5, temperature: 1.0 },
        HeadLoss::CrossEntropy,
    ]
}

impl Sample {
    fn new(losses: &[HeadLoss], positions: usize, [width, of_teacher]: [usize; 2], vocab: usize) -> Sample {
        Sample {
            terms: losses.iter().map(|loss| term(0.9, positions, *loss)).collect(),
            vocab,
            tokens: (0..positions).map(|i| (i * 7919 % vocab) as u32).collect(),
            hidden: draw(positions * width, 1),
            head: draw(vocab * width, 2),
            teacher: [draw(positions * of_teacher, 3), draw(vocab * of_teacher, 4)],
        }
    }

    fn op(&self) -> Op {
        Op::HeadLoss { terms: self.terms.clone() }
    }

    fn positions(&self) -> usize {
        self.tokens.len()
    }

    fn width(&self) -> usize {
        self.hidden.len() / self.positions()
    }

    /// The value, and a gradient that was zero before.
    fn compute(&self) -> (Vec<f32>, Vec<f32>) {
        self.compute_by(chunk(self.positions(), self.vocab))
    }

    fn compute_by(&self, chunk: usize) -> (Vec<f32>, Vec<f32>) {
        let matrix = |data, rows: usize| {
            let cols = <[f32]>::len(data) / rows;
            Arg::F32(View::new(data, rows, cols, cols))
        };
        let (view, head) = (|data| matrix(data, self.positions()), |data| matrix(data, self.vocab));
        let mut args = vec![view(&self.hidden), head(&self.head), Arg::U32(&self.tokens)];
        if reads_teacher(&self.terms) {
            args.extend([view(&self.teacher[0]), head(&self.teacher[1])]);
        }
        let columns = self.width() + self.terms.len();
        let (mut out, mut gradient) =
            (vec![f32::NAN; self.positions() * columns], vec![0.0; self.head.len()]);
        let call = Call {
            op: &self.op(),
            args: &args,
            out: Out::F32(ViewMut::new(&mut out, self.positions(), columns, columns)),
            gradient: Some(ViewMut::new(&mut gradient, self.vocab, self.width(), self.width())),
        };
        let mut space = vec![f32::NAN; logits_len(terms(call.op), chunk, self.vocab) + LANES];
        by_chunks(call, chunk, &mut space);
        (out, gradient)
    }

    fn exact(&self, shift: impl Fn(&mut [f64], &mut [f64])) -> Vec<f64> {
        let wide = |data: &[f32]| data.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let (mut hidden, mut head) = (wide(&self.hidden), wide(&self.head));
        shift(&mut hidden, &mut head);
        let matrix = |data: Vec<f64>, rows: usize| Exact::F64 { cols: data.len() / rows, data, rows };
        let mut operands =
            vec![matrix(hidden, self.positions()), matrix(head, self.vocab), Exact::U32(self.tokens.clone())];
        if reads_teacher(&self.terms) {
            operands.push(matrix(wide(&self.teacher[0]), self.positions()));
            operands.push(matrix(wide(&self.teacher[1]), self.vocab));
        }
        operands.push(matrix(vec![0.0; self.head.len()], self.vocab));
        reference(&self.op(), &operands)
    }

    /// The part of a value that is the gradient by hidden, and the part that holds the losses.
    fn parts<T: Copy>(&self, value: &[T]) -> [Vec<T>; 2] {
        let rows = || value.chunks(self.width() + self.terms.len()).take(self.positions());
        [
            rows().flat_map(|row| &row[..self.width()]).copied().collect(),
            rows().flat_map(|row| &row[self.width()..]).copied().collect(),
        ]
    }
}

/// |got - exact| / |exact|, of the vectors as a whole.
fn off(got: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(got.len(), exact.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(exact).map(|(g, e)| f64::from(*g) - e)) / norm(&mut exact.iter().copied())
}

#[test]
fn gradients_are_exact_beside_their_own_size() {
    let mut cases: Vec<Vec<HeadLoss>> = kinds().map(|loss| vec![loss]).to_vec();
    cases.push(kinds().to_vec());
    for losses in cases {
        for (positions, widths, vocab) in [(33, [24, 17], 1031), (70, [160, 96], 260), (5, [6, 3], 3)] {
            let sample = Sample::new(&losses, positions, widths, vocab);
            let ((value, gradient), exact) = (sample.compute(), sample.exact(|_, _| {}));
            let [by_hidden, values] = sample.parts(&value);
            let [exact_by_hidden, exact_values] = sample.parts(&exact);
            let by_head = off(&gradient, &exact[value.len()..]);
            let by_hidden = off(&by_hidden, &exact_by_hidden);
            assert!(by_hidden < 3e-6 && by_head < 3e-6, "{losses:?} {vocab}: {by_hidden:e} {by_head:e}");
            for (got, exact) in values.iter().zip(exact_values) {
                assert!((f64::from(*got) - exact).abs() <= 2e-6 * exact, "{losses:?}: {got} for {exact}");
            }
        }
    }
}

/// Central differences of what the reference says of the losses, against what it says of their gradient.
#[test]
fn gradients_are_the_slopes_of_the_losses() {
    const H: f64 = 1e-5;
    for loss in kinds() {
        let sample = Sample::new(&[loss], 4, [3, 2], 7);
        let HeadTerm { weight, scale, .. } = sample.terms[0];
        let total = |shift: &dyn Fn(&mut [f64], &mut [f64])| {
            weight * scale * sample.parts(&sample.exact(shift))[1].iter().sum::<f64>()
        };
        let exact = sample.exact(|_, _| {});
        let by_hidden = &sample.parts(&exact)[0];
        let by_head = &exact[exact.len() - sample.head.len()..];
        let close = |exact: f64, up: f64, down: f64| {
            let slope = (up - down) / (2.0 * H);
            assert!((slope - exact).abs() < 1e-6 * exact.abs() + 1e-10, "{loss:?}: {slope} for {exact}");
        };
        for (i, exact) in by_hidden.iter().enumerate() {
            close(*exact, total(&|hidden, _| hidden[i] += H), total(&|hidden, _| hidden[i] -= H));
        }
        for (i, exact) in by_head.iter().enumerate() {
            close(*exact, total(&|_, head| head[i] += H), total(&|_, head| head[i] -= H));
        }
    }
}

#[test]
fn a_student_near_its_teacher_keeps_its_digits() {
    for loss in kinds().into_iter().filter(|loss| loss.needs_teacher()) {
        let mut sample = Sample::new(&[loss], 20, [40, 40], 1031);
        sample.teacher = [sample.hidden.clone(), sample.head.clone()];
        let (value, gradient) = sample.compute();
        assert!(
            sample.parts(&value)[1].iter().all(|loss| (0.0..1e-12).contains(loss)),
            "{loss:?}: {value:?}"
        );
        assert!(gradient.iter().all(|slope| slope.abs() < 1e-7));

        let noise = draw(sample.head.len(), 9);
        sample.teacher[1].iter_mut().zip(noise).for_each(|(x, noise)| *x += 1e-3 * noise);
        let ((value, gradient), exact) = (sample.compute(), sample.exact(|_, _| {}));
        let [by_hidden, values] = sample.parts(&value);
        let [exact_by_hidden, exact_values] = sample.parts(&exact);
        let found = [
            off(&values, &exact_values),
            off(&by_hidden, &exact_by_hidden),
            off(&gradient, &exact[value.len()..]),
        ];
        assert!(found.iter().all(|off| *off < 1e-3), "{loss:?}: {found:?}");
    }
}

#[test]
fn a_target_outside_the_vocabulary_gives_nan() {
    let mut sample = Sample::new(&[HeadLoss::CrossEntropy], 3, [2, 2], 5);
    for outside in [5, 15, u32::MAX] {
        sample.tokens[1] = outside;
        let losses = &sample.parts(&sample.compute().0)[1];
        assert!(losses[0].is_nan() && losses[1] > 0.0 && losses[2] == 0.0);
    }
}

#[test]
fn chunks_are_even_and_keep_to_their_limit() {
    let chunks = [(512, 260), (0, 3), (300, 20480), (8192, 131072)].map(|(l, vocab)| chunk(l, vocab));
    assert_eq!(chunks, [512, 0, 150, 256]);
    assert!(stride(131072) / LANES % 2 == 1 && stride(261) == stride(whole(261)));
}

#[test]
fn chunks_go_on_where_the_last_one_ended() {
    let sample = Sample::new(&kinds(), 23, [9, 5], 31);
    let exact = sample.exact(|_, _| {});
    for chunk in [1, 7, 22, 23, 40] {
        let (value, gradient) = sample.compute_by(chunk);
        let found = [off(&value, &exact[..value.len()]), off(&gradient, &exact[value.len()..])];
        assert!(found.iter().all(|off| *off < 1e-6), "{chunk}: {found:?}");
    }
}
