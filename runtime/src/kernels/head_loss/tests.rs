//! The gradients by their own size, losses by finite differences, and what only a chunk or a token can break.

use super::super::{Arg, Out, top_k};
use super::*;
use crate::device::vulkan::once;
use crate::testing;

/// What a call is given.
#[derive(Clone)]
struct Sample {
    terms: Vec<HeadTerm>,
    vocab: usize,
    tokens: Vec<u32>,
    hidden: Vec<f32>,
    head: Vec<f32>,
    teacher: [Vec<f32>; 2],
    /// Of the terms that have them, [`TopK::columns`] of the teacher.
    targets: Vec<Vec<f64>>,
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

/// Every kind that fits a vocabulary of seven.
fn kinds() -> [HeadLoss; 7] {
    [
        HeadLoss::TopK(TopK { k: 3, temperature: 1.5 }),
        HeadLoss::TopK(TopK { k: 1, temperature: 0.7 }),
        HeadLoss::ForwardKl { temperature: 2.0 },
        HeadLoss::ReverseKl { temperature: 0.8 },
        HeadLoss::Js { beta: 0.3, temperature: 1.5 },
        HeadLoss::Js { beta: 0.5, temperature: 1.0 },
        HeadLoss::CrossEntropy,
    ]
}

impl Sample {
    fn new(losses: &[HeadLoss], positions: usize, [width, of_teacher]: [usize; 2], vocab: usize) -> Sample {
        let mut sample = Sample {
            terms: losses.iter().map(|loss| term(0.9, positions, *loss)).collect(),
            vocab,
            tokens: (0..positions).map(|i| (i * 7919 % vocab) as u32).collect(),
            hidden: draw(positions * width, 1),
            head: draw(vocab * width, 2),
            teacher: [draw(positions * of_teacher, 3), draw(vocab * of_teacher, 4)],
            targets: Vec::new(),
        };
        sample.take_targets();
        sample
    }

    /// Makes the targets anew, of the teacher as it is.
    fn take_targets(&mut self) {
        let [hidden, head] =
            [0, 1].map(|i| self.teacher[i].iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        let (positions, vocab) = (self.positions(), self.vocab);
        let matrix =
            |data: &Vec<f64>, rows: usize| Exact::F64 { data: data.clone(), rows, cols: data.len() / rows };
        let operands = [matrix(&hidden, positions), matrix(&head, vocab)];
        let made = |targets| (top_k::KERNEL.reference)(&Op::TopK(targets), &operands);
        self.targets = targets_of(&self.terms).map(made).collect();
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
        let targets = self.rounded_targets();
        args.extend(targets.iter().map(|targets| view(targets)));
        let columns = self.width() + self.terms.len();
        let (mut out, mut gradient) =
            (vec![f32::NAN; self.positions() * columns], vec![0.0; self.head.len()]);
        let call = Call {
            op: &self.op(),
            args: &args,
            out: Out::F32(ViewMut::new(&mut out, self.positions(), columns, columns)),
            changed: Some(ViewMut::new(&mut gradient, self.vocab, self.width(), self.width())),
        };
        let mut space = vec![f32::NAN; logits_len(terms(call.op), chunk, self.vocab) + LANES];
        by_chunks(call, chunk, &mut space);
        (out, gradient)
    }

    /// The same, and that of shaders where there is a device for them.
    fn compute_on_all(&self) -> Vec<(Vec<f32>, Vec<f32>)> {
        let mut all = vec![self.compute()];
        if let Some(gpu) = testing::vulkan(None) {
            let matrix = |data, rows: usize| {
                let cols = <[f32]>::len(data) / rows;
                once::Given::F32 { data, rows, cols, stride: cols }
            };
            let (view, head) = (|data| matrix(data, self.positions()), |data| matrix(data, self.vocab));
            let mut given = vec![view(&self.hidden), head(&self.head), once::Given::U32(&self.tokens)];
            if reads_teacher(&self.terms) {
                given.extend([view(&self.teacher[0]), head(&self.teacher[1])]);
            }
            let targets = self.rounded_targets();
            let zeros = vec![0.0; self.head.len()];
            given.extend(targets.iter().map(|targets| view(targets)));
            given.push(head(&zeros));
            let shape = (self.positions(), self.width() + self.terms.len());
            let value =
                once::once(gpu, crate::shader::Precision::F32, shader::KERNEL, &self.op(), &given, shape)
                    .unwrap();
            let value: Vec<f32> = value.iter().map(|x| *x as f32).collect();
            let (value, gradient) = value.split_at(shape.0 * shape.1);
            all.push((value.to_vec(), gradient.to_vec()));
        }
        all
    }

    fn rounded_targets(&self) -> Vec<Vec<f32>> {
        self.targets.iter().map(|targets| targets.iter().map(|x| *x as f32).collect()).collect()
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
        operands.extend(self.targets.iter().map(|targets| matrix(targets.clone(), self.positions())));
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
            let exact = sample.exact(|_, _| {});
            let [exact_by_hidden, exact_values] = sample.parts(&exact);
            for (value, gradient) in sample.compute_on_all() {
                let [by_hidden, values] = sample.parts(&value);
                let by_head = off(&gradient, &exact[value.len()..]);
                let by_hidden = off(&by_hidden, &exact_by_hidden);
                assert!(by_hidden < 3e-6 && by_head < 3e-6, "{losses:?} {vocab}: {by_hidden:e} {by_head:e}");
                for (got, exact) in values.iter().zip(&exact_values) {
                    // Targets themselves are rounded to f32.
                    let given = if sample.targets.is_empty() { 0.0 } else { 1e-8 };
                    assert!(
                        (f64::from(*got) - exact).abs() <= 2e-6 * exact + given,
                        "{losses:?}: {got} for {exact}"
                    );
                }
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
    for loss in kinds().into_iter().filter(|loss| *loss != HeadLoss::CrossEntropy) {
        let mut sample = Sample::new(&[loss], 20, [40, 40], 1031);
        sample.teacher = [sample.hidden.clone(), sample.head.clone()];
        sample.take_targets();
        for (value, gradient) in sample.compute_on_all() {
            assert!(
                sample.parts(&value)[1].iter().all(|loss| (0.0..1e-12).contains(loss)),
                "{loss:?}: {value:?}"
            );
            assert!(gradient.iter().all(|slope| slope.abs() < 1e-7));
        }

        let noise = draw(sample.head.len(), 9);
        sample.teacher[1].iter_mut().zip(noise).for_each(|(x, noise)| *x += 1e-3 * noise);
        sample.take_targets();
        let exact = sample.exact(|_, _| {});
        let [exact_by_hidden, exact_values] = sample.parts(&exact);
        for (value, gradient) in sample.compute_on_all() {
            let [by_hidden, values] = sample.parts(&value);
            let found = [
                off(&values, &exact_values),
                off(&by_hidden, &exact_by_hidden),
                off(&gradient, &exact[value.len()..]),
            ];
            assert!(found.iter().all(|off| *off < 1e-3), "{loss:?}: {found:?}");
        }
    }
}

#[test]
fn a_target_outside_the_vocabulary_gives_nan() {
    let mut sample = Sample::new(&[HeadLoss::CrossEntropy], 3, [2, 2], 5);
    for outside in [5, 15, u32::MAX] {
        sample.tokens[1] = outside;
        for (value, _) in sample.compute_on_all() {
            let losses = &sample.parts(&value)[1];
            assert!(losses[0].is_nan() && losses[1] > 0.0 && losses[2] == 0.0);
        }
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

#[test]
fn targets_of_the_whole_vocabulary_are_the_teacher() {
    for temperature in [1.0, 2.5] {
        let dense = Sample::new(&[HeadLoss::ForwardKl { temperature }], 20, [24, 17], 131);
        let all = Sample::new(&[HeadLoss::TopK(TopK { k: 131, temperature })], 20, [24, 17], 131);
        let (dense, all) = (dense.compute(), all.compute());
        let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let found = [off(&all.0, &wide(&dense.0)), off(&all.1, &wide(&dense.1))];
        assert!(found.iter().all(|off| *off < 3e-6), "{found:?}");
    }
}

/// More targets see more of the difference, and no more than there is.
#[test]
fn targets_bound_the_divergence_from_below() {
    let sum = |loss| {
        let sample = Sample::new(&[loss], 20, [24, 17], 131);
        sample.parts(&sample.exact(|_, _| {}))[1].iter().sum::<f64>()
    };
    let losses = [1, 4, 16, 64, 131].map(|k| sum(HeadLoss::TopK(TopK { k, temperature: 1.0 })));
    let dense = sum(HeadLoss::ForwardKl { temperature: 1.0 });
    assert!(losses.is_sorted() && losses[0] > 0.0 && losses[3] < dense, "{losses:?} {dense}");
    assert!((losses[4] / dense - 1.0).abs() < 1e-9);
}

/// One position, one channel: the logits of the student are the head. By every kind of kernel.
fn one(logits: &[f32], targets: &[f64]) -> Vec<(Vec<f32>, Vec<f32>)> {
    let k = targets.len() / 2;
    let mut sample = Sample::new(&[HeadLoss::TopK(TopK { k, temperature: 1.0 })], 1, [1, 1], logits.len());
    (sample.hidden, sample.head, sample.targets) = (vec![1.0], logits.to_vec(), vec![targets.to_vec()]);
    let weight = (sample.terms[0].weight * sample.terms[0].scale) as f32;
    let over_weight = |slopes: Vec<f32>| slopes.iter().map(|slope| slope / weight).collect();
    sample.compute_on_all().into_iter().map(|(value, slopes)| (value, over_weight(slopes))).collect()
}

#[test]
fn a_rest_without_weight_is_finite_and_pulls() {
    // The student gives the rest e^-150 and e^-151, the teacher a tenth.
    for (value, slopes) in one(&[150.0, 0.0, -1.0], &[0.0, 0.9f64.ln(), 0.1]) {
        let of_rest = 0.1 / (1.0 + (-1.0f32).exp());
        // ln(1 + e^-1) = 0.31326
        let loss = 0.9 * 0.9f32.ln() + 0.1 * (0.1f32.ln() + 150.0 - 0.313_261_7);
        assert!((value[1] - loss).abs() < 1e-4, "{value:?}");
        let sum = slopes.iter().sum::<f32>();
        assert!((slopes[1] + of_rest).abs() < 1e-6 && sum.abs() < 1e-6, "{slopes:?}");
    }
    // The teacher gives it nothing at all.
    for (value, slopes) in one(&[1.0, 1.0, 0.0], &[0.0, 0.0, 0.0]) {
        let loss = (2.0 + (-1.0f32).exp()).ln();
        assert!(value[1].is_finite() && (value[1] - loss).abs() < 1e-6, "{value:?}");
        assert!(slopes[0] < 0.0 && slopes[1] > slopes[2] && slopes[2] > 0.0, "{slopes:?}");
    }
    // Nor does the student.
    for (value, slopes) in one(&[200.0, 0.0, 0.0], &[0.0, 0.0, 0.0]) {
        assert!(value[1] == 0.0 && slopes.iter().all(|slope| slope.abs() < 1e-30), "{value:?} {slopes:?}");
    }
}

#[test]
fn a_target_outside_of_the_vocabulary_gives_nan() {
    let all = one(&[1.0, 1.0, 0.0], &[3.0, 0.5f64.ln(), 0.5]);
    assert!(all.iter().all(|(value, _)| value[1].is_nan()), "{all:?}");
}
