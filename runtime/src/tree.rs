//! Merging what samples contribute in an order that only their places decide.

use serde::{Deserialize, Serialize};

/// Values of neighbouring samples merged in a fixed binary tree over the sample index: 0 with 1, 2 with 3,
/// then both pairs, as a binary counter carries. However samples are batched, spread over threads and
/// processes or interrupted, the same pairs are merged in the same order, so the result has the same bits.
///
/// A tree may begin at any sample. It holds the largest subtrees of the whole tree that lie in its range, at
/// most two for each binary digit of its end; what its neighbours must complete is merged by [`Tree::join`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tree<T> {
    /// The first sample, and the one after the last.
    begin: u64,
    end: u64,
    /// Neighbouring subtrees from left to right, with the number of samples in each: powers of two that
    /// divide the place where they begin.
    subtrees: Vec<(u64, T)>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Tree::at(0)
    }
}

impl<T> Tree<T> {
    pub fn new() -> Tree<T> {
        Tree::default()
    }

    /// An empty tree whose first sample will be this one.
    pub fn at(begin: u64) -> Tree<T> {
        Tree { begin, end: begin, subtrees: Vec::new() }
    }

    /// The index of the sample that comes next.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Takes in the next sample's value. `merge` puts its second value, of later samples, into the first.
    pub fn push(&mut self, value: T, merge: impl Fn(&mut T, T)) {
        self.append(1, value, &merge);
    }

    /// Takes in the samples after its own. `None` where those of `right` are others.
    pub fn join(mut self, right: Tree<T>, merge: impl Fn(&mut T, T)) -> Option<Tree<T>> {
        if right.begin != self.end {
            return None;
        }
        for (size, value) in right.subtrees {
            self.append(size, value, &merge);
        }
        Some(self)
    }

    /// Takes in a subtree of the whole tree that begins where this one ends. It is a right half if the
    /// subtree before it is as large and begins at a multiple of both.
    fn append(&mut self, mut size: u64, mut value: T, merge: &impl Fn(&mut T, T)) {
        let mut begin = self.end;
        self.end += size;
        let halves =
            |left: u64, begin: u64, size: u64| left == size && (begin - size).is_multiple_of(2 * size);
        while let Some((_, mut left)) = self.subtrees.pop_if(|(left, _)| halves(*left, begin, size)) {
            merge(&mut left, value);
            (begin, size, value) = (begin - size, 2 * size, left);
        }
        self.subtrees.push((size, value));
    }

    /// All samples' value, the subtrees merged from the right; `None` where there was no sample. It has the
    /// bits of one process where the tree begins at the first sample.
    pub fn finish(mut self, merge: impl Fn(&mut T, T)) -> Option<T> {
        let (_, mut total) = self.subtrees.pop()?;
        while let Some((_, mut left)) = self.subtrees.pop() {
            merge(&mut left, total);
            total = left;
        }
        Some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::Tree;
    use std::ops::Range;

    fn bracket(left: &mut String, right: String) {
        *left = format!("({left} {right})");
    }

    fn of(samples: Range<u64>, mut tree: Tree<String>) -> Tree<String> {
        samples.for_each(|i| tree.push(i.to_string(), bracket));
        tree
    }

    /// The tree of a range by itself.
    fn part(samples: Range<u64>) -> Tree<String> {
        of(samples.clone(), Tree::at(samples.start))
    }

    #[test]
    fn the_number_of_samples_alone_decides_the_tree() {
        let shapes: Vec<String> = (1..=7).map(|n| of(0..n, Tree::new()).finish(bracket).unwrap()).collect();
        insta::assert_snapshot!(shapes.join("\n"), @r"
        0
        (0 1)
        ((0 1) 2)
        ((0 1) (2 3))
        (((0 1) (2 3)) 4)
        (((0 1) (2 3)) (4 5))
        (((0 1) (2 3)) ((4 5) 6))
        ");
        assert_eq!(Tree::<String>::new().finish(bracket), None);
    }

    #[test]
    fn a_part_holds_the_largest_subtrees_of_the_whole_that_lie_in_it() {
        let held = |samples: Range<u64>| {
            let subtrees = part(samples).subtrees;
            subtrees.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" | ")
        };
        let all = [3..13, 4..8, 5..6, 6..11].map(held).join("\n");
        insta::assert_snapshot!(all, @r"
        3 | ((4 5) (6 7)) | ((8 9) (10 11)) | 12
        ((4 5) (6 7))
        5
        (6 7) | (8 9) | 10
        ");
    }

    /// Every tree that joining neighbours leads to, whichever are joined first; all must be one.
    fn joined(parts: &[Tree<String>]) -> Tree<String> {
        if let [one] = parts {
            return one.clone();
        }
        let mut found: Option<Tree<String>> = None;
        for cut in 1..parts.len() {
            let tree = joined(&parts[..cut]).join(joined(&parts[cut..]), bracket).expect("neighbours");
            assert!(found.as_ref().is_none_or(|found| *found == tree), "joined at {cut}: {parts:?}");
            found = Some(tree);
        }
        found.expect("at least two parts")
    }

    /// Where `of` parts of `total` samples can end, less the last: some may be empty.
    fn splits(total: u64, of: usize) -> Vec<Vec<u64>> {
        let mut all = vec![Vec::new()];
        for _ in 1..of {
            let longer = |ends: Vec<u64>| {
                let from = ends.last().copied().unwrap_or(0);
                (from..=total).map(move |end| [ends.clone(), vec![end]].concat())
            };
            all = all.into_iter().flat_map(longer).collect();
        }
        all
    }

    fn parts(total: u64, ends: &[u64]) -> Vec<Tree<String>> {
        let begins = std::iter::once(0).chain(ends.iter().copied());
        begins.zip(ends.iter().copied().chain([total])).map(|(a, b)| part(a..b)).collect()
    }

    #[test]
    fn parts_joined_in_any_order_are_the_tree_of_one_process() {
        // All splits, of fewer samples into more parts.
        let mut tried = 0;
        for (of, most) in [(1, 40), (2, 40), (3, 40), (4, 18), (5, 11)] {
            for total in 0..=most {
                let whole = part(0..total);
                for ends in splits(total, of) {
                    assert_eq!(joined(&parts(total, &ends)), whole, "{total} samples, cut at {ends:?}");
                    tried += 1;
                }
            }
        }
        // And of 40 samples into five, those that a coarser net of cuts gives.
        for ends in
            splits(10, 5).into_iter().map(|ends| ends.iter().map(|e| 4 * e - e % 3).collect::<Vec<_>>())
        {
            assert_eq!(joined(&parts(40, &ends)), part(0..40), "cut at {ends:?}");
            tried += 1;
        }
        assert!(tried > 10_000, "{tried}");
    }

    #[test]
    fn parts_that_are_no_neighbours_do_not_join() {
        assert_eq!(part(0..3).join(part(4..6), bracket), None);
        assert_eq!(part(0..3).join(part(2..6), bracket), None);
        assert_eq!(part(3..6).join(part(0..3), bracket), None);
        assert_eq!(part(0..3).join(part(3..3), bracket), Some(part(0..3)));
    }

    #[test]
    fn an_interrupted_tree_goes_on_where_it_stood() {
        for begin in [0, 3] {
            let whole = part(begin..13);
            for cut in begin..13 {
                let text = serde_json::to_string(&part(begin..cut)).unwrap();
                let resumed: Tree<String> = serde_json::from_str(&text).unwrap();
                assert_eq!(resumed.end(), cut);
                assert_eq!(of(cut..13, resumed), whole);
            }
        }
    }
}
