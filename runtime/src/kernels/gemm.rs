//! Matrix products, c (+)= a b, where b was laid out in panels of [`PANEL`] columns.
//!
//! A product with a deep inner dimension is the caller's to cut into pieces of [`DEPTH`], the first of which
//! overwrites and the others accumulate. Within a piece every element of c is one sum in the order of k, so how
//! c is cut into blocks changes no bit.

use super::math::Level;
use super::{View, ViewMut};

/// Columns of a panel.
pub const PANEL: usize = 32;

/// Rows of b to a piece: a panel of 24 KiB stays in the first-level cache.
pub const DEPTH: usize = 192;

/// Rows of the left operand that [`multiply_grouped`] finds side by side; a multiple of every tile's rows.
pub const GROUP: usize = 12;

/// Elements of the panels of a `depth` x `cols` matrix.
pub fn panels_len(depth: usize, cols: usize) -> usize {
    depth * cols.next_multiple_of(PANEL)
}

/// b [depth, cols] in panels: b[k, 32 p + j] lies at data[(p * pitch + k) * 32 + j], zero past the last column.
/// The pitch is the depth, unless the rows are some of a deeper matrix.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    data: &'a [f32],
    pitch: usize,
    depth: usize,
    cols: usize,
}

impl<'a> Panels<'a> {
    /// Panels that lie in `data` already.
    pub fn new(data: &'a [f32], depth: usize, cols: usize) -> Panels<'a> {
        Panels { data: &data[..panels_len(depth, cols)], pitch: depth, depth, cols }
    }

    /// Lays out b = w^T, from w [cols, depth].
    pub fn transpose(w: View, space: &'a mut [f32]) -> Panels<'a> {
        let (depth, cols) = (w.cols(), w.rows());
        let space = &mut space[..panels_len(depth, cols)];
        for (p, panel) in space.chunks_exact_mut((depth * PANEL).max(1)).enumerate() {
            let first = p * PANEL;
            transpose_panel(w.block(first, PANEL.min(cols - first), 0, depth), panel);
        }
        Panels { data: space, pitch: depth, depth, cols }
    }

    /// Lays out b, row by row.
    pub fn copy(b: View, space: &'a mut [f32]) -> Panels<'a> {
        let (depth, cols) = (b.rows(), b.cols());
        let space = &mut space[..panels_len(depth, cols)];
        for k in 0..depth {
            set_line(space, depth, k, b.row(k));
        }
        Panels { data: space, pitch: depth, depth, cols }
    }

    /// `depth` rows from row `first` on.
    pub fn rows(self, first: usize, depth: usize) -> Panels<'a> {
        assert!(first + depth <= self.depth, "bug: rows outside their panels");
        Panels { data: &self.data[(first * PANEL).min(self.data.len())..], depth, ..self }
    }

    /// The product with a matrix whose columns are fewer than this one's rows reads the first of them.
    fn panel(&self, p: usize) -> &'a [f32] {
        &self.data[p * self.pitch * PANEL..][..self.depth * PANEL]
    }
}

/// Writes row k of a matrix of `depth` rows into its panels.
#[inline(always)]
pub fn set_line(panels: &mut [f32], depth: usize, k: usize, row: &[f32]) {
    let (whole, rest) = row.as_chunks::<PANEL>();
    for (p, x) in whole.iter().enumerate() {
        let at = (p * depth + k) * PANEL;
        panels[at..at + PANEL].copy_from_slice(x);
    }
    if !rest.is_empty() {
        let at = (whole.len() * depth + k) * PANEL;
        let (kept, padding) = panels[at..at + PANEL].split_at_mut(rest.len());
        kept.copy_from_slice(rest);
        padding.fill(0.0);
    }
}

/// Rows of w that are transposed at a time.
const LINES: usize = 8;

/// panel[k, j] = w[j, k] for the at most 32 rows of w, zero for the others.
pub fn transpose_panel(w: View, panel: &mut [f32]) {
    let mut j = 0;
    while j + LINES <= w.rows() {
        transpose_rows(std::array::from_fn(|i| w.row(j + i)), panel, j);
        j += LINES;
    }
    for j in j..PANEL {
        let row = if j < w.rows() { w.row(j) } else { &[] };
        for (k, line) in panel.chunks_exact_mut(PANEL).enumerate() {
            line[j] = row.get(k).copied().unwrap_or(0.0);
        }
    }
}

/// panel[k, j + i] = rows[i][k]
fn transpose_rows(rows: [&[f32]; LINES], panel: &mut [f32], j: usize) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if Level::of_machine() != Level::Base {
        // SAFETY: the machine has AVX.
        done = unsafe { x86::transpose_rows(rows, panel, j) };
    }
    for (k, line) in panel.chunks_exact_mut(PANEL).enumerate().skip(done) {
        (0..LINES).for_each(|i| line[j + i] = rows[i][k]);
    }
}

/// c = a b, or c += a b. Where a has fewer columns than b has rows, the further rows are left out.
pub fn multiply(a: View, b: Panels, c: ViewMut, accumulate: bool) {
    let (group_step, row_step) = (GROUP * a.stride(), a.stride());
    strips(
        Left { data: a.as_ptr(), rows: a.rows(), depth: a.cols(), group_step, row_step, step: 1 },
        b,
        c,
        accumulate,
    );
}

/// c = a^T b, or c += a^T b.
pub fn multiply_transposed(a: View, b: Panels, c: ViewMut, accumulate: bool) {
    let (group_step, step) = (GROUP, a.stride());
    strips(
        Left { data: a.as_ptr(), rows: a.cols(), depth: a.rows(), group_step, row_step: 1, step },
        b,
        c,
        accumulate,
    );
}

/// c = a b, or c += a b, for as many rows as c has and as deep as b is; a lies in groups of [`GROUP`] rows:
/// a[r, k] at a[(r / GROUP * depth + k) * GROUP + r % GROUP].
pub fn multiply_grouped(a: &[f32], b: Panels, c: ViewMut, accumulate: bool) {
    let (rows, depth) = (c.rows(), b.depth);
    assert!(a.len() >= rows.div_ceil(GROUP) * depth * GROUP, "bug: a group is cut off");
    strips(
        Left { data: a.as_ptr(), rows, depth, group_step: depth * GROUP, row_step: 1, step: GROUP },
        b,
        c,
        accumulate,
    );
}

/// The left operand: element [r, k] lies at data[r / GROUP * group_step + r % GROUP * row_step + k * step].
#[derive(Clone, Copy)]
struct Left {
    data: *const f32,
    rows: usize,
    depth: usize,
    group_step: usize,
    row_step: usize,
    step: usize,
}

fn strips(a: Left, b: Panels, mut c: ViewMut, accumulate: bool) {
    assert!(a.rows == c.rows() && a.depth <= b.depth && c.cols() <= b.cols, "bug: a product does not fit");
    for start in (0..c.cols()).step_by(PANEL) {
        let (rows, cols) = (c.rows(), PANEL.min(c.cols() - start));
        let mut c = c.block(0, rows, start, cols);
        let (c_stride, panel) = (c.stride(), b.panel(start / PANEL).as_ptr());
        let strip = Strip { a, panel, cols, c: c.as_mut_ptr(), c_stride, accumulate };
        // SAFETY: the strip's pointers and sizes are those of `a`, a whole panel of `b`, and `c`.
        unsafe { strip.run() }
    }
}

/// One panel's product: c [a.rows, cols] (+)= a panel [a.depth, PANEL].
#[derive(Clone, Copy)]
struct Strip {
    a: Left,
    panel: *const f32,
    cols: usize,
    c: *mut f32,
    c_stride: usize,
    accumulate: bool,
}

impl Strip {
    /// # Safety
    /// `a`, `panel` and `c` are valid for the sizes and strides given, and nothing else touches `c`.
    unsafe fn run(self) {
        // SAFETY: the caller's promise, and each variant runs only where its instructions exist.
        unsafe {
            match Level::of_machine() {
                #[cfg(target_arch = "x86_64")]
                Level::V4 => x86::run_v4(self),
                #[cfg(target_arch = "x86_64")]
                Level::V3 => x86::run_v3(self),
                _ => self.sweep::<Plain>(),
            }
        }
    }

    #[inline(always)]
    unsafe fn sweep<V: Lanes>(self) {
        for column in (0..self.cols).step_by(2 * V::N) {
            // SAFETY: the columns are within the strip.
            unsafe {
                if self.cols - column > V::N {
                    self.column::<V, 2>(column);
                } else {
                    self.column::<V, 1>(column);
                }
            }
        }
    }

    /// All rows of W vectors of columns, from `column` on.
    #[inline(always)]
    unsafe fn column<V: Lanes, const W: usize>(self, column: usize) {
        let mut row = 0;
        // SAFETY: the tiles are blocks of the strip.
        unsafe {
            if V::ROWS >= 12 {
                row = self.tiles::<V, 12, W>(row, column);
            }
            if V::ROWS >= 6 {
                row = self.tiles::<V, 6, W>(row, column);
            }
            row = self.tiles::<V, 4, W>(row, column);
            row = self.tiles::<V, 2, W>(row, column);
            self.tiles::<V, 1, W>(row, column);
        }
    }

    /// As many tiles of `R` rows as fit from `row` on; the first row that is left.
    #[inline(always)]
    unsafe fn tiles<V: Lanes, const R: usize, const W: usize>(self, mut row: usize, column: usize) -> usize {
        while self.a.rows - row >= R {
            // SAFETY: rows row..row+R and the columns from `column` on are within the strip.
            unsafe { self.tile::<V, R, W>(row, column) };
            row += R;
        }
        row
    }

    /// R rows by W vectors of c, held in registers over the whole depth.
    #[inline(always)]
    unsafe fn tile<V: Lanes, const R: usize, const W: usize>(self, row: usize, column: usize) {
        // SAFETY: the caller's promise keeps every address within its matrix; a panel is padded to PANEL.
        unsafe {
            let a = self.a.data.add(row / GROUP * self.a.group_step + row % GROUP * self.a.row_step);
            let b = self.panel.add(column);
            let mut sums = [[V::zero(); W]; R];
            for k in 0..self.a.depth {
                let b = b.add(k * PANEL);
                let b: [V; W] = std::array::from_fn(|v| V::load(b.add(v * V::N)));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = V::splat(*a.add(r * self.a.row_step + k * self.a.step));
                    for v in 0..W {
                        sum[v] = V::mul_add(x, b[v], sum[v]);
                    }
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                let c = self.c.add((row + r) * self.c_stride + column);
                for (v, sum) in sum.iter().enumerate() {
                    let (c, width) = (c.add(v * V::N), (self.cols - column - v * V::N).min(V::N));
                    if width == V::N {
                        let sum = if self.accumulate { V::add(V::load(c), *sum) } else { *sum };
                        V::store(sum, c);
                    } else {
                        let sum = if self.accumulate { V::add(V::load_first(c, width), *sum) } else { *sum };
                        V::store_first(sum, c, width);
                    }
                }
            }
        }
    }
}

/// A vector register.
trait Lanes: Copy {
    const N: usize;
    /// Rows of the largest tile that leaves registers for two vectors of b.
    const ROWS: usize;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// The first `n` lanes, and zeros.
    unsafe fn load_first(from: *const f32, n: usize) -> Self;
    unsafe fn store_first(self, to: *mut f32, n: usize);
    unsafe fn splat(x: f32) -> Self;
    unsafe fn add(a: Self, b: Self) -> Self;
    /// a * b + c
    unsafe fn mul_add(a: Self, b: Self, c: Self) -> Self;
}

/// Four lanes for the compiler to vectorise, with rounding between product and sum.
#[derive(Clone, Copy)]
struct Plain([f32; 4]);

impl Lanes for Plain {
    const N: usize = 4;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Plain {
        Plain([0.0; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Plain {
        // SAFETY: four elements are readable by the caller's promise; an array of f32 has f32's alignment.
        Plain(unsafe { from.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: four elements are writable by the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Plain {
        // SAFETY: `n` elements are readable by the caller's promise.
        Plain(std::array::from_fn(|i| if i < n { unsafe { *from.add(i) } } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        for (i, x) in self.0.iter().enumerate().take(n) {
            // SAFETY: `n` elements are writable by the caller's promise.
            unsafe { *to.add(i) = *x }
        }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Plain {
        Plain([x; 4])
    }

    #[inline(always)]
    unsafe fn add(a: Plain, b: Plain) -> Plain {
        Plain(std::array::from_fn(|i| a.0[i] + b.0[i]))
    }

    #[inline(always)]
    unsafe fn mul_add(a: Plain, b: Plain, c: Plain) -> Plain {
        Plain(std::array::from_fn(|i| a.0[i] * b.0[i] + c.0[i]))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LINES, Lanes, PANEL, Strip};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn run_v4(strip: Strip) {
        // SAFETY: the caller's promise.
        unsafe { strip.sweep::<__m512>() }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn run_v3(strip: Strip) {
        // SAFETY: the caller's promise.
        unsafe { strip.sweep::<__m256>() }
    }

    /// As many whole squares as there are, of eight rows by eight; the first k that is left. The compiler alone
    /// goes through memory here element by element, and waits for it.
    #[target_feature(enable = "avx")]
    pub(super) fn transpose_rows(rows: [&[f32]; LINES], panel: &mut [f32], j: usize) -> usize {
        let squares = rows.map(|row| row.as_chunks::<LINES>().0);
        let count = squares[0].len();
        for (s, lines) in panel.chunks_exact_mut(LINES * PANEL).take(count).enumerate() {
            // SAFETY: each load is of the eight elements of an array.
            let r: [__m256; LINES] =
                std::array::from_fn(|i| unsafe { _mm256_loadu_ps(squares[i][s].as_ptr()) });
            // Pairs of elements, then fours, then halves of the register.
            let low = [0, 2, 4, 6].map(|i| _mm256_unpacklo_ps(r[i], r[i + 1]));
            let high = [0, 2, 4, 6].map(|i| _mm256_unpackhi_ps(r[i], r[i + 1]));
            let fours = |x: [__m256; 4]| {
                [
                    [_mm256_shuffle_ps::<0x44>(x[0], x[1]), _mm256_shuffle_ps::<0x44>(x[2], x[3])],
                    [_mm256_shuffle_ps::<0xee>(x[0], x[1]), _mm256_shuffle_ps::<0xee>(x[2], x[3])],
                ]
            };
            let ([a, b], [c, d]) = (fours(low), fours(high));
            for (k, x) in [a, b, c, d].into_iter().enumerate() {
                let halves =
                    [_mm256_permute2f128_ps::<0x20>(x[0], x[1]), _mm256_permute2f128_ps::<0x31>(x[0], x[1])];
                for (half, value) in halves.into_iter().enumerate() {
                    let at = (half * 4 + k) * PANEL + j;
                    // SAFETY: the slice has eight elements.
                    unsafe { _mm256_storeu_ps(lines[at..at + LINES].as_mut_ptr(), value) };
                }
            }
        }
        count * LINES
    }

    /// All bits of the first `n` of eight lanes.
    #[inline(always)]
    unsafe fn first_lanes(n: usize) -> __m256i {
        // SAFETY: AVX2 is there where this is called.
        unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
    }

    #[inline(always)]
    unsafe fn load_lanes(lanes: __m256i, from: *const f32) -> __m256 {
        // SAFETY: as above; only the chosen lanes are read.
        unsafe { _mm256_maskload_ps(from, lanes) }
    }

    macro_rules! lanes {
        ($vector:ty, $n:literal, $rows:literal, $zero:ident, $load:ident, $store:ident, $splat:ident, $add:ident, $fma:ident,
         $mask:expr, $load_first:ident, $store_first:ident) => {
            // SAFETY (all): the instructions exist where `sweep` of this vector is called, and addresses are
            // valid by the caller's promise.
            impl Lanes for $vector {
                const N: usize = $n;
                const ROWS: usize = $rows;
                #[inline(always)]
                unsafe fn zero() -> Self {
                    unsafe { $zero() }
                }
                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn load_first(from: *const f32, n: usize) -> Self {
                    unsafe { $load_first($mask(n), from) }
                }
                #[inline(always)]
                unsafe fn store_first(self, to: *mut f32, n: usize) {
                    unsafe { $store_first(to, $mask(n), self) }
                }
                #[inline(always)]
                unsafe fn splat(x: f32) -> Self {
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn add(a: Self, b: Self) -> Self {
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                unsafe fn mul_add(a: Self, b: Self, c: Self) -> Self {
                    unsafe { $fma(a, b, c) }
                }
            }
        };
    }

    lanes!(
        __m512,
        16,
        12,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_add_ps,
        _mm512_fmadd_ps,
        |n: usize| (1u16 << n) - 1,
        _mm512_maskz_loadu_ps,
        _mm512_mask_storeu_ps
    );
    lanes!(
        __m256,
        8,
        6,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_add_ps,
        _mm256_fmadd_ps,
        first_lanes,
        load_lanes,
        _mm256_maskstore_ps
    );
}
