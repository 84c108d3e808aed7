//! Which inputs of a matrix can go, one member after the other, where the others are refitted.
//!
//! For W [E, K] that reads z, with G = z^T z and H = (G + damping mean(diag G) I)^-1: where the inputs S go and the
//! others are refitted by least squares, what W writes loses tr(W_S (H_SS)^-1 W_S^T). The member of least loss goes,
//! W <- W - W_S (H_SS)^-1 H_S: and H <- H - H_:S (H_SS)^-1 H_S: are those of what is left, and so on: the optimal
//! brain surgeon, in blocks (Hassibi and Stork, 1993). Scores of a single round would not see that of two equal
//! inputs only one can go.

use crate::linalg;
use rayon::prelude::*;
use std::cmp::Ordering;

/// Above so many inputs several members go between two updates, so that these take K^3 / 3 multiplications in
/// products of matrices rather than in passes over H.
const WIDE: usize = 2048;
/// The share of what is left that goes then: one in fifty.
const SHARE: usize = 50;

pub struct Elimination {
    /// Inputs that H and W hold: those that are left, and some that are gone.
    inputs: usize,
    outputs: usize,
    /// H [inputs, inputs]; zero where an input is gone.
    inverse: Vec<f64>,
    /// W^T [inputs, outputs], likewise.
    weight: Vec<f64>,
    /// Members that are left, ascending.
    members: Vec<Member>,
    /// Members that are left in each group.
    groups: Vec<usize>,
    wide: usize,
}

struct Member {
    index: usize,
    group: usize,
    /// Places of its inputs in H and W.
    inputs: Vec<usize>,
}

impl Elimination {
    /// Of `gram` [K, K] the lower triangle is read; `weight` is [E, K]. Inputs belong to members, of which equally
    /// many neighbours make a group. `None` where G, damped, is not positive definite.
    pub fn new(
        mut gram: Vec<f64>,
        weight: &[f32],
        damping: f64,
        members: usize,
        groups: usize,
        member: impl Fn(usize) -> usize,
    ) -> Option<Elimination> {
        let inputs = gram.len().isqrt();
        let outputs = weight.len() / inputs.max(1);
        let ridge = damping * linalg::mean_diagonal(&gram, inputs);
        linalg::mirror(&mut gram, inputs);
        (0..inputs).for_each(|i| gram[i * inputs + i] += ridge);
        let inverse = linalg::inverse(gram, inputs)?;
        let transposed = (0..inputs * outputs).map(|at| weight[(at % outputs) * inputs + at / outputs]);
        let size = members / groups.max(1);
        let mut all: Vec<Member> = (0..members)
            .map(|index| Member { index, group: index / size.max(1), inputs: Vec::new() })
            .collect();
        (0..inputs).for_each(|input| all[member(input)].inputs.push(input));
        Some(Elimination {
            inputs,
            outputs,
            inverse,
            weight: transposed.map(f64::from).collect(),
            members: all,
            groups: vec![size; groups],
            wide: WIDE,
        })
    }

    /// Members that are left.
    pub fn left(&self) -> usize {
        self.members.len()
    }

    /// The members that go next, the cheapest first. They come from the groups that have the most left, so that as
    /// many go from each. `None` where H is no longer positive definite.
    pub fn step(&mut self) -> Option<Vec<usize>> {
        let most = self.groups.iter().copied().max()?;
        let candidates: Vec<usize> =
            (0..self.members.len()).filter(|&i| self.groups[self.members[i].group] == most).collect();
        let costs: Option<Vec<(f64, usize)>> =
            candidates.into_par_iter().map(|i| Some((self.cost(&self.members[i].inputs)?, i))).collect();
        let mut costs = costs?;
        // Of equal ones the last goes: wherever members are ranked, the lower index is kept.
        costs.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal).then(b.1.cmp(&a.1)));
        let several = self.groups.len() == 1 && self.inputs > self.wide;
        costs.truncate(if several { (self.left() / SHARE).max(1) } else { 1 });
        let inputs: Vec<usize> =
            costs.iter().flat_map(|(_, i)| self.members[*i].inputs.iter().copied()).collect();
        self.remove(&inputs)?;
        let gone: Vec<usize> = costs.iter().map(|(_, i)| self.members[*i].index).collect();
        costs.iter().for_each(|(_, i)| self.groups[self.members[*i].group] -= 1);
        self.members.retain(|member| !gone.contains(&member.index));
        self.sweep();
        Some(gone)
    }

    /// tr(W_S (H_SS)^-1 W_S^T)
    fn cost(&self, inputs: &[usize]) -> Option<f64> {
        if let [one] = inputs {
            let (w, h) =
                (&self.weight[one * self.outputs..][..self.outputs], self.inverse[one * (self.inputs + 1)]);
            return (h > 0.0).then(|| w.iter().map(|w| w * w).sum::<f64>() / h);
        }
        let read = rows(&self.weight, self.outputs, inputs);
        let mut solved = read.clone();
        linalg::solve(&mut self.square(inputs), inputs.len(), &mut solved, self.outputs)?;
        Some(read.iter().zip(&solved).map(|(w, solved)| w * solved).sum())
    }

    /// W and H without some inputs.
    fn remove(&mut self, inputs: &[usize]) -> Option<()> {
        let (n, m) = (self.inputs, self.outputs);
        let across = rows(&self.inverse, n, inputs);
        let mut change = across.clone();
        linalg::solve(&mut self.square(inputs), inputs.len(), &mut change, n)?;
        change.iter_mut().for_each(|v| *v = -*v);
        let read = rows(&self.weight, m, inputs);
        linalg::add_cross(&change, n, &read, m, &mut self.weight);
        linalg::add_cross(&across, n, &change, n, &mut self.inverse);
        Some(())
    }

    /// H_SS
    fn square(&self, inputs: &[usize]) -> Vec<f64> {
        inputs.iter().flat_map(|i| inputs.iter().map(move |j| self.inverse[i * self.inputs + j])).collect()
    }

    /// Drops what is gone from H and W where it is an eighth of them: they are copied each time.
    fn sweep(&mut self) {
        let left: usize = self.members.iter().map(|member| member.inputs.len()).sum();
        if (self.inputs - left) * 8 < self.inputs {
            return;
        }
        let mut places: Vec<usize> = self.members.iter().flat_map(|m| m.inputs.iter().copied()).collect();
        places.sort_unstable();
        self.weight = rows(&self.weight, self.outputs, &places);
        self.inverse = self.square(&places);
        self.inputs = left;
        for place in self.members.iter_mut().flat_map(|member| &mut member.inputs) {
            *place = places.binary_search(place).unwrap_or_default();
        }
    }
}

fn rows(matrix: &[f64], width: usize, which: &[usize]) -> Vec<f64> {
    which.iter().flat_map(|row| matrix[row * width..(row + 1) * width].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    fn draw(n: usize, seed: u64) -> Vec<f64> {
        let mut random = SplitMix64::new(seed);
        (0..n).map(|_| (random.next_u64() >> 11) as f64 / (1u64 << 52) as f64 - 1.0).collect()
    }

    /// What a matrix reads, and the matrix.
    struct Case {
        inputs: usize,
        z: Vec<f64>,
        weight: Vec<f32>,
        damping: f64,
    }

    const OUTPUTS: usize = 5;

    impl Case {
        /// Inputs that depend on each other, of different sizes.
        fn drawn(inputs: usize, rows: usize, seed: u64, damping: f64) -> Case {
            let (own, mix, size) =
                (draw(rows * inputs, seed), draw(inputs * inputs, seed + 1), draw(inputs, seed + 2));
            let z = (0..rows * inputs)
                .map(|at| {
                    let (row, i) = (at / inputs, at % inputs);
                    let mixed: f64 = (0..inputs).map(|k| own[row * inputs + k] * mix[k * inputs + i]).sum();
                    (own[at] + 0.7 * mixed) * (0.3 + size[i].abs())
                })
                .collect();
            let weight = draw(OUTPUTS * inputs, seed + 3).into_iter().map(|w| w as f32).collect();
            Case { inputs, z, weight, damping }
        }

        fn gram(&self) -> Vec<f64> {
            let mut gram = vec![0.0; self.inputs * self.inputs];
            linalg::add_gram(&self.z, self.inputs, &mut gram);
            gram
        }

        fn elimination(&self, members: usize, groups: usize, member: impl Fn(usize) -> usize) -> Elimination {
            Elimination::new(self.gram(), &self.weight, self.damping, members, groups, member).unwrap()
        }

        /// The squared change of what is written, and of the matrix in the measure of the ridge, where inputs are
        /// gone and the others refitted: normal equations by Gaussian elimination, anew for each choice.
        fn refitted(&self, gone: &[usize]) -> f64 {
            let n = self.inputs;
            let mut gram = self.gram();
            linalg::mirror(&mut gram, n);
            let ridge = self.damping * (0..n).map(|i| gram[i * n + i]).sum::<f64>() / n as f64;
            (0..n).for_each(|i| gram[i * n + i] += ridge);
            let left: Vec<usize> = (0..n).filter(|i| !gone.contains(i)).collect();
            let of_output = |e: usize| {
                let w: Vec<f64> = (0..n).map(|i| f64::from(self.weight[e * n + i])).collect();
                let right: Vec<f64> =
                    left.iter().map(|&i| (0..n).map(|j| gram[i * n + j] * w[j]).sum()).collect();
                let left_gram =
                    left.iter().map(|&i| left.iter().map(|&j| gram[i * n + j]).collect()).collect();
                let fitted = gauss(left_gram, right);
                let mut change = w;
                left.iter().zip(fitted).for_each(|(&i, value)| change[i] -= value);
                (0..n * n).map(|at| change[at / n] * gram[at] * change[at % n]).sum::<f64>()
            };
            (0..OUTPUTS).map(of_output).sum()
        }
    }

    fn gauss(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
        let n = b.len();
        for i in 0..n {
            let pivot = (i..n).max_by(|&p, &q| a[p][i].abs().total_cmp(&a[q][i].abs())).unwrap();
            a.swap(i, pivot);
            b.swap(i, pivot);
            for row in i + 1..n {
                let factor = a[row][i] / a[i][i];
                (i..n).for_each(|k| a[row][k] -= factor * a[i][k]);
                b[row] -= factor * b[i];
            }
        }
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|k| a[i][k] * b[k]).sum();
            b[i] = (b[i] - known) / a[i][i];
        }
        b
    }

    fn order(mut elimination: Elimination) -> Vec<usize> {
        let mut order = Vec::new();
        while elimination.left() > 0 {
            order.extend(elimination.step().unwrap());
        }
        order
    }

    /// Always the member, of the groups that have the most left, without which a refit loses least.
    fn refitting(case: &Case, members: usize, groups: usize, member: impl Fn(usize) -> usize) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::new();
        let group = |m: usize| m * groups / members;
        while order.len() < members {
            let left = |g: usize| (0..members).filter(|m| group(*m) == g && !order.contains(m)).count();
            let most = (0..groups).map(left).max().unwrap();
            let candidates = (0..members).filter(|m| !order.contains(m) && left(group(*m)) == most);
            let loss = |m: usize| {
                let gone = |i: &usize| member(*i) == m || order.contains(&member(*i));
                case.refitted(&(0..case.inputs).filter(gone).collect::<Vec<_>>())
            };
            let best = candidates.min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap();
            order.push(best);
        }
        order
    }

    #[test]
    fn members_go_as_if_each_time_all_others_were_refitted() {
        for seed in [10, 20, 30] {
            let case = Case::drawn(24, 60, seed, 0.01);
            // Neurons; heads of four channels in two groups; channels of four heads.
            let single = order(case.elimination(24, 1, |i| i));
            assert_eq!(single, refitting(&case, 24, 1, |i| i));
            let heads = order(case.elimination(6, 2, |i| i / 4));
            assert_eq!(heads, refitting(&case, 6, 2, |i| i / 4));
            let channels = order(case.elimination(6, 1, |i| i % 6));
            assert_eq!(channels, refitting(&case, 6, 1, |i| i % 6));
            let mut sorted = single.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..24) && single != sorted, "{single:?}");
        }
    }

    #[test]
    fn as_many_go_from_each_group_however_weak_one_is() {
        let mut case = Case::drawn(32, 80, 40, 0.05);
        // Of four groups of four heads of two channels, the second hardly counts.
        for (at, z) in case.z.iter_mut().enumerate() {
            *z *= if (8..16).contains(&(at % 32)) { 0.01 } else { 1.0 };
        }
        let order = order(case.elimination(16, 4, |i| i / 2));
        for round in order.chunks(4) {
            let mut groups: Vec<usize> = round.iter().map(|head| head / 4).collect();
            assert_eq!(groups[0], 1, "the cheapest of a round goes first: {order:?}");
            groups.sort_unstable();
            assert_eq!(groups, [0, 1, 2, 3], "{order:?}");
        }
    }

    #[test]
    fn of_two_equal_inputs_one_goes_free_and_the_other_stays() {
        let mut case = Case::drawn(8, 40, 50, 1e-6);
        for row in case.z.chunks_mut(8) {
            row[5] = 3.0 * row[2];
            row[2] *= 3.0;
        }
        let energy = |i: usize| {
            let z: f64 = case.z.chunks(8).map(|row| row[i] * row[i]).sum();
            z * case.weight.chunks(8).map(|w| f64::from(w[i]) * f64::from(w[i])).sum::<f64>()
        };
        let least = (0..8).min_by(|a, b| energy(*a).total_cmp(&energy(*b))).unwrap();
        assert!(least != 2 && least != 5, "energy keeps both");
        let order = order(case.elimination(8, 1, |i| i));
        assert!([2, 5].contains(&order[0]), "{order:?}");
        assert!(case.refitted(&order[..1]) < 1e-4 * case.refitted(&[least]), "it costs nothing");
        let other = 7 - order[0];
        assert_ne!(order[1], other, "what stands for both does not go next");
    }

    #[test]
    fn equal_ones_go_from_the_last() {
        // Nothing depends on anything, and all cost the same.
        let case = Case {
            inputs: 4,
            z: (0..16).map(|at| f64::from(u8::from(at % 5 == 0))).collect(),
            weight: vec![1.0; 20],
            damping: 0.0,
        };
        assert_eq!(order(case.elimination(4, 1, |i| i)), [3, 2, 1, 0]);
    }

    #[test]
    fn of_a_wide_matrix_one_in_fifty_goes_at_once() {
        let case = Case::drawn(120, 200, 60, 0.05);
        let mut elimination = case.elimination(120, 1, |i| i);
        elimination.wide = 100;
        let costs: Vec<f64> = (0..120).map(|i| elimination.cost(&[i]).unwrap()).collect();
        let mut cheapest: Vec<usize> = (0..120).collect();
        cheapest.sort_by(|a, b| costs[*a].total_cmp(&costs[*b]));
        assert_eq!(elimination.step().unwrap(), cheapest[..2]);
        // What is left is that of a removal of both, and below the limit they go one by one.
        let mut both = case.elimination(120, 1, |i| i);
        both.remove(&cheapest[1..2]).unwrap();
        both.remove(&cheapest[..1]).unwrap();
        let distance =
            elimination.inverse.iter().zip(&both.inverse).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(distance < 1e-12 * both.inverse.iter().fold(0.0, |m: f64, v| m.max(v.abs())), "{distance}");
        let mut sizes = Vec::new();
        while elimination.left() > 0 {
            sizes.push(elimination.step().unwrap().len());
        }
        assert_eq!(sizes.iter().sum::<usize>(), 118);
        assert!(sizes[..6].iter().all(|n| *n == 2) && sizes[20..].iter().all(|n| *n == 1), "{sizes:?}");
    }

    #[test]
    fn what_is_left_has_the_same_bits_in_pools_of_any_size() {
        let case = Case::drawn(150, 300, 70, 0.05);
        let halves: Vec<_> = [1, 2, 5]
            .iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(*threads).build().unwrap();
                pool.install(|| {
                    let mut elimination = case.elimination(30, 2, |i| i / 5);
                    let gone: Vec<_> = (0..15).flat_map(|_| elimination.step().unwrap()).collect();
                    (gone, elimination.weight, elimination.inverse)
                })
            })
            .collect();
        assert!(halves.iter().all(|half| *half == halves[0]));
    }

    #[test]
    fn open_directions_need_damping() {
        let mut case = Case::drawn(6, 40, 80, 0.0);
        case.z.iter_mut().skip(3).step_by(6).for_each(|z| *z = 0.0);
        assert!(Elimination::new(case.gram(), &case.weight, 0.0, 6, 1, |i| i).is_none());
        case.damping = 0.01;
        assert_eq!(order(case.elimination(6, 1, |i| i)).len(), 6);
    }
}
