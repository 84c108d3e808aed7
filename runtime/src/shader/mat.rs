//! Matrices in a device's memory, and how they are cut to what a binding holds.

use super::{Caps, Unfit, half};
use std::ops::Range;

/// What one element is in a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Elem {
    F32,
    U32,
    /// A number of more than f32's digits: the sum of two f32, the second below the rounding of the first.
    Pair,
    /// Two numbers of 16 bits in a u32, the first in its low half.
    Half2,
    /// Four f16, or what is read as such.
    Half4,
}

impl Elem {
    /// 4-byte words of an element.
    pub fn words(self) -> usize {
        match self {
            Elem::F32 | Elem::U32 | Elem::Half2 => 1,
            Elem::Pair | Elem::Half4 => 2,
        }
    }

    pub fn wgsl(self) -> &'static str {
        match self {
            Elem::F32 => "f32",
            Elem::U32 | Elem::Half2 => "u32",
            Elem::Pair => "vec2<f32>",
            Elem::Half4 => "vec4<f16>",
        }
    }
}

/// Where a matrix lies. The device makes what is packed of weights before it runs what reads it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Memory {
    Tokens,
    Input(String),
    Weight(String),
    State(String),
    Gradient(String),
    /// A weight that an optimizer changes, and its averages of the gradient and of its square.
    Trained(String),
    Mean(String),
    Square(String),
    /// A weight as a factor of 16 bits, and what its products are multiplied by.
    Packed(Packing),
    Scale(Packing),
    Arena,
    Result(usize),
    Scratch,
}

/// What of a weight was packed, and which way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packing {
    pub weight: String,
    pub transposed: bool,
    /// First element, rows and columns.
    pub of: [usize; 3],
}

impl Memory {
    /// Whether shaders write it. What they do not write is bound as read-only.
    pub fn is_written(&self) -> bool {
        !matches!(
            self,
            Memory::Tokens | Memory::Input(_) | Memory::Weight(_) | Memory::Packed(_) | Memory::Scale(_)
        )
    }
}

/// f32 elements of one buffer of a memory that may be larger than a buffer: 1 GiB. No matrix of the arena or of scratch
/// crosses from one to the next; longer ones are refused.
pub use minic_compiler::schedule::PAGE;

/// Words of a page of a matrix: whole rows, and whole tiles of them where a page has as many.
pub fn page_of(cols: usize) -> usize {
    let (cols, rows) = (cols.max(1), PAGE / cols.max(1));
    cols * if rows >= half::ROWS { rows - rows % half::ROWS } else { rows.max(1) }
}

/// A row-major matrix: element (r, c) is `at + r * stride + c`, in elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Mat {
    pub memory: Memory,
    pub elem: Elem,
    pub at: usize,
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
    /// Elements of one buffer of its memory.
    pub page: usize,
}

impl Mat {
    pub fn new(memory: Memory, elem: Elem, at: usize, rows: usize, cols: usize, stride: usize) -> Mat {
        Mat { memory, elem, at, rows, cols, stride, page: usize::MAX }
    }

    pub fn paged(self, page: usize) -> Mat {
        Mat { page, ..self }
    }

    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements from the first to the last one.
    pub fn span(&self) -> usize {
        if self.is_empty() { 0 } else { (self.rows - 1) * self.stride + self.cols }
    }

    pub fn rows(&self, rows: Range<usize>) -> Mat {
        Mat { at: self.at + rows.start * self.stride, rows: rows.len(), ..self.clone() }
    }

    pub fn columns(&self, first: usize, cols: usize) -> Mat {
        Mat { at: self.at + first, cols, ..self.clone() }
    }

    /// A vector, or a matrix without gaps, as one row.
    pub fn flat(&self) -> Mat {
        debug_assert!(self.rows <= 1 || self.stride == self.cols, "a matrix with gaps is no vector");
        let cols = self.len();
        Mat { rows: 1, cols, stride: cols, ..self.clone() }
    }

    /// How many rows from `row` on one binding holds.
    pub fn reach(&self, row: usize, caps: &Caps) -> Result<usize, Unfit> {
        let most = caps.reach() / self.elem.words();
        let first = self.at + row * self.stride;
        let room = most.min(self.page.saturating_sub(first.checked_rem(self.page).unwrap_or(0)));
        if room < self.cols {
            let word = 4 * self.elem.words();
            return Err(match most < self.cols {
                true => Unfit::Row { bytes: self.cols * word, limit: caps.binding },
                false => Unfit::Long { bytes: self.span() * word },
            });
        }
        Ok((room - self.cols).checked_div(self.stride).map_or(usize::MAX, |more| more + 1))
    }
}

/// Cuts rows so that one binding holds those of every matrix. All of them have the rows; pieces but the last are
/// multiples of `unit`, unless they would be empty.
pub fn cuts(mats: &[&Mat], rows: usize, unit: usize, caps: &Caps) -> Result<Vec<Range<usize>>, Unfit> {
    let mut pieces = Vec::new();
    let mut first = 0;
    while first < rows {
        let mut reach = rows - first;
        for mat in mats {
            reach = reach.min(mat.reach(first, caps)?);
        }
        if first + reach < rows && reach > unit {
            reach -= reach % unit;
        }
        pieces.push(first..first + reach);
        first += reach;
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_rows_and_fit_a_binding() {
        let caps = Caps { binding: 1 << 12, alignment: 256, ..Caps::least() };
        let mat = Mat::new(Memory::Arena, Elem::F32, 3, 100, 30, 37).paged(1000);
        let pieces = cuts(&[&mat], 100, 4, &caps).unwrap();
        assert_eq!(
            pieces.iter().map(|p| p.start).collect::<Vec<_>>()[1..],
            pieces.iter().map(|p| p.end).collect::<Vec<_>>()[..pieces.len() - 1]
        );
        assert_eq!((pieces[0].start, pieces[pieces.len() - 1].end), (0, 100));
        for piece in pieces {
            let piece = mat.rows(piece);
            assert!(piece.span() <= caps.reach() && piece.at / 1000 == (piece.at + piece.span() - 1) / 1000);
        }
        let wide = Mat::new(Memory::Arena, Elem::F32, 0, 2, 2000, 2000);
        assert!(cuts(&[&wide], 2, 1, &caps).is_err());
    }
}
