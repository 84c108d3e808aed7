//! Merging what samples contribute in an order that only their number decides.

use serde::{Deserialize, Serialize};

/// Values of samples 0, 1, 2, .. merged in a fixed binary tree over the sample index: 0 with 1, 2 with 3,
/// then both pairs, as a binary counter carries. However samples are batched, spread over threads or
/// interrupted, the same pairs are merged in the same order, so the result has the same bits. At most one
/// value per binary digit of the count is held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tree<T> {
    /// Subtrees from left to right, with the number of samples in each: falling powers of two.
    subtrees: Vec<(u64, T)>,
    count: u64,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Tree { subtrees: Vec::new(), count: 0 }
    }
}

impl<T> Tree<T> {
    pub fn new() -> Tree<T> {
        Tree::default()
    }

    /// Samples pushed so far, which is the index of the one that comes next.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes in the next sample's value. `merge` puts its second value, of later samples, into the first.
    pub fn push(&mut self, value: T, merge: impl Fn(&mut T, T)) {
        self.count += 1;
        let (mut size, mut value) = (1, value);
        while let Some((_, mut left)) = self.subtrees.pop_if(|(left, _)| *left == size) {
            merge(&mut left, value);
            (size, value) = (2 * size, left);
        }
        self.subtrees.push((size, value));
    }

    /// All samples' value, the subtrees merged from the right; `None` where there was no sample.
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

    fn bracket(left: &mut String, right: String) {
        *left = format!("({left} {right})");
    }

    fn of(samples: std::ops::Range<u64>, mut tree: Tree<String>) -> Tree<String> {
        samples.for_each(|i| tree.push(i.to_string(), bracket));
        tree
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
    fn an_interrupted_tree_goes_on_where_it_stood() {
        let whole = of(0..13, Tree::new());
        for cut in 0..13 {
            let text = serde_json::to_string(&of(0..cut, Tree::new())).unwrap();
            let resumed: Tree<String> = serde_json::from_str(&text).unwrap();
            assert_eq!(resumed.count(), cut);
            assert_eq!(of(cut..13, resumed), whole);
        }
    }
}
