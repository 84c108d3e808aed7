//! First-fit places in one growing arena, in f32 elements.

/// 64 bytes: a cache line, and the widest vector.
const ALIGN: usize = 16;

/// 1 GiB: no value lies across a multiple of it unless it is longer, so that a device whose buffers are bounded
/// makes the arena of several.
pub const PAGE: usize = 1 << 28;

/// The first place from `at` on where `len` elements lie in one page.
pub fn within_page(at: usize, len: usize) -> usize {
    let crosses = at / PAGE != (at + len.max(1) - 1) / PAGE;
    if crosses { at.next_multiple_of(PAGE) } else { at }
}

#[derive(Default)]
pub struct Arena {
    /// Taken ranges `start..end`, sorted.
    taken: Vec<(usize, usize)>,
    size: usize,
}

impl Arena {
    /// The start of a free range of `len` elements.
    pub fn take(&mut self, len: usize) -> usize {
        let len = len.max(1).next_multiple_of(ALIGN);
        let mut start = 0;
        let mut index = self.taken.len();
        for (i, &(from, to)) in self.taken.iter().enumerate() {
            if from >= start + len {
                index = i;
                break;
            }
            start = within_page(to, len);
        }
        self.taken.insert(index, (start, start + len));
        self.size = self.size.max(start + len);
        start
    }

    pub fn give_back(&mut self, start: usize) {
        self.taken.retain(|&(from, _)| from != start);
    }

    /// The most that was ever taken at once, gaps included.
    pub fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_across_two_pages() {
        let mut arena = Arena::default();
        assert_eq!((arena.take(PAGE - 16), arena.take(32), arena.take(16)), (0, PAGE, PAGE - 16));
        assert_eq!(arena.take(2 * PAGE), 2 * PAGE);
    }

    #[test]
    fn freed_ranges_are_used_again_and_never_overlap() {
        let mut arena = Arena::default();
        let (a, b, c) = (arena.take(10), arena.take(20), arena.take(16));
        assert_eq!((a, b, c), (0, 16, 48));
        arena.give_back(b);
        assert_eq!(arena.take(32), 16);
        assert_eq!(arena.take(1), 64);
        assert_eq!(arena.size(), 80);
    }
}
