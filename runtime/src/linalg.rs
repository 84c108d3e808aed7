//! Dense linear algebra in f64: sums of products, eigenvectors, and normal equations.
//!
//! Matrices are row-major. The decompositions are faer's, each on one thread, and products are cut into bands of
//! a fixed number of rows, so that no bit depends on the number of threads.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::{self, factor::LltRegularization};
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::matmul::{self};
use faer::linalg::solvers::SelfAdjointEigen;
use faer::prelude::default;
use faer::{Accum, MatMut, MatRef, Par, Side};
use rayon::prelude::*;

/// Rows of a result that one task makes.
const BAND: usize = 128;

/// sum [n, n] += x^T x for x [rows, n]; of the sum the lower triangle alone.
pub fn add_gram(x: &[f64], n: usize, sum: &mut [f64]) {
    if n == 0 || x.is_empty() {
        return;
    }
    let x = MatRef::from_row_major_slice(x, x.len() / n, n);
    sum.par_chunks_mut(BAND * n).with_max_len(1).enumerate().for_each(|(band, rows)| {
        let (first, count) = (band * BAND, rows.len() / n);
        let own = x.subcols(first, count).transpose();
        let out = MatMut::from_row_major_slice_mut(rows, count, n);
        let (left, rest) = out.split_at_col_mut(first);
        matmul::matmul(left, Accum::Add, own, x.subcols(0, first), 1.0, Par::Seq);
        triangular::matmul(
            rest.subcols_mut(0, count),
            BlockStructure::TriangularLower,
            Accum::Add,
            own,
            BlockStructure::Rectangular,
            x.subcols(first, count),
            BlockStructure::Rectangular,
            1.0,
            Par::Seq,
        );
    });
}

/// sum [n, m] += x^T y for x [rows, n] and y [rows, m].
pub fn add_cross(x: &[f64], n: usize, y: &[f64], m: usize, sum: &mut [f64]) {
    if n == 0 || m == 0 || x.is_empty() {
        return;
    }
    let x = MatRef::from_row_major_slice(x, x.len() / n, n);
    let y = MatRef::from_row_major_slice(y, y.len() / m, m);
    sum.par_chunks_mut(BAND * m).with_max_len(1).enumerate().for_each(|(band, rows)| {
        let count = rows.len() / m;
        let own = x.subcols(band * BAND, count).transpose();
        let out = MatMut::from_row_major_slice_mut(rows, count, m);
        matmul::matmul(out, Accum::Add, own, y, 1.0, Par::Seq);
    });
}

/// Copies the lower triangle of a square matrix above its diagonal.
pub fn mirror(a: &mut [f64], n: usize) {
    for i in 0..n {
        for j in 0..i {
            a[j * n + i] = a[i * n + j];
        }
    }
}

/// The mean of the diagonal of a matrix [n, n].
pub fn mean_diagonal(a: &[f64], n: usize) -> f64 {
    (0..n).map(|i| a[i * n + i]).sum::<f64>() / n as f64
}

/// Eigenvalues of a symmetric matrix, the largest first, and its eigenvectors as the columns of a matrix [n, n].
/// Only the lower triangle is read. Each vector has a positive component of largest magnitude. `None` where the
/// iteration does not converge, which takes numbers that are not finite.
pub fn eigen(a: &[f64], n: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    if a.iter().any(|x| !x.is_finite()) {
        return None;
    }
    let matrix = MatRef::from_row_major_slice(a, n, n);
    let solved = SelfAdjointEigen::new(matrix, Side::Lower).ok()?;
    let (values, vectors) = (solved.S().column_vector(), solved.U());
    let mut basis = vec![0.0; n * n];
    for to in 0..n {
        let from = n - 1 - to;
        let largest = (0..n).fold(0.0f64, |largest, row| {
            let x = vectors[(row, from)];
            if x.abs() > largest.abs() { x } else { largest }
        });
        let sign = if largest < 0.0 { -1.0 } else { 1.0 };
        (0..n).for_each(|row| basis[row * n + to] = sign * vectors[(row, from)]);
    }
    Some(((0..n).rev().map(|i| values[i]).collect(), basis))
}

/// Columns of a right side that one task solves for.
const SOLVED: usize = 256;

/// b [n, m] becomes x of a x = b, for a symmetric positive definite a [n, n], both triangles given, which is
/// overwritten. `None` where it is not positive definite.
pub fn solve(a: &mut [f64], n: usize, b: &mut [f64], m: usize) -> Option<()> {
    // Symmetric: as well by columns, as faer likes it.
    let mut a = MatMut::from_column_major_slice_mut(a, n, n);
    let mut memory = MemBuffer::new(llt::factor::cholesky_in_place_scratch::<f64>(n, Par::Seq, default()));
    let stack = MemStack::new(&mut memory);
    let none = LltRegularization::default();
    llt::factor::cholesky_in_place(a.as_mut(), none, Par::Seq, stack, default()).ok()?;
    let factor = a.as_ref();
    let mut rest = MatMut::from_row_major_slice_mut(b, n, m);
    let mut blocks = Vec::new();
    while rest.ncols() > 0 {
        let count = SOLVED.min(rest.ncols());
        let (block, others) = rest.split_at_col_mut(count);
        blocks.push(block);
        rest = others;
    }
    blocks.into_par_iter().with_max_len(1).for_each(|block| {
        let mut memory = MemBuffer::new(llt::solve::solve_in_place_scratch::<f64>(n, SOLVED, Par::Seq));
        llt::solve::solve_in_place(factor, block, Par::Seq, MemStack::new(&mut memory));
    });
    Some(())
}

/// The inverse of a symmetric positive definite matrix [n, n], both triangles given. `None` where it is not positive
/// definite.
pub fn inverse(mut a: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    let mut inverse = vec![0.0; n * n];
    (0..n).for_each(|i| inverse[i * n + i] = 1.0);
    solve(&mut a, n, &mut inverse, n)?;
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    fn draw(n: usize, seed: u64) -> Vec<f64> {
        let mut random = SplitMix64::new(seed);
        (0..n).map(|_| (random.next_u64() >> 11) as f64 / (1u64 << 52) as f64 - 1.0).collect()
    }

    fn product(a: &[f64], b: &[f64], rows: usize, inner: usize, cols: usize) -> Vec<f64> {
        let at = |i: usize, j: usize| (0..inner).map(|k| a[i * inner + k] * b[k * cols + j]).sum();
        (0..rows * cols).map(|e| at(e / cols, e % cols)).collect()
    }

    fn transposed(a: &[f64], rows: usize, cols: usize) -> Vec<f64> {
        (0..rows * cols).map(|e| a[(e % rows) * cols + e / rows]).collect()
    }

    fn distance(a: &[f64], b: &[f64]) -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn sums_of_products_are_those_of_the_definition_in_pools_of_any_size() {
        for (rows, n, m) in [(1, 1, 1), (7, 130, 5), (300, 257, 131)] {
            let (x, y) = (draw(rows * n, 1), draw(rows * m, 2));
            let mut expected = product(&transposed(&x, rows, n), &x, n, rows, n);
            (0..n).for_each(|i| (i + 1..n).for_each(|j| expected[i * n + j] = 0.0));
            let cross = product(&transposed(&x, rows, n), &y, n, rows, m);
            let computed: Vec<_> = [1, 2, 5]
                .iter()
                .map(|threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(*threads).build().unwrap();
                    let (mut gram, mut sum) = (vec![0.0; n * n], vec![0.0; n * m]);
                    pool.install(|| add_gram(&x, n, &mut gram));
                    pool.install(|| add_cross(&x, n, &y, m, &mut sum));
                    (gram, sum)
                })
                .collect();
            assert!(distance(&computed[0].0, &expected) < 1e-12 && distance(&computed[0].1, &cross) < 1e-12);
            assert!(computed.iter().all(|c| *c == computed[0]));
        }
    }

    #[test]
    fn eigenvectors_are_orthonormal_and_make_the_matrix_again() {
        let (n, rows) = (60, 45);
        let x = draw(rows * n, 3);
        let mut a = vec![0.0; n * n];
        add_gram(&x, n, &mut a);
        let (values, vectors) = eigen(&a, n).unwrap();
        mirror(&mut a, n);
        assert!(values.windows(2).all(|w| w[0] >= w[1]));
        let turned = transposed(&vectors, n, n);
        let identity: Vec<f64> = (0..n * n).map(|e| f64::from(u8::from(e / n == e % n))).collect();
        assert!(distance(&product(&turned, &vectors, n, n, n), &identity) < 1e-12);
        let scaled: Vec<f64> = vectors.iter().enumerate().map(|(e, v)| v * values[e % n]).collect();
        assert!(distance(&product(&scaled, &turned, n, n, n), &a) < 1e-10);
        assert_eq!(eigen(&[f64::NAN], 1), None);
    }

    #[test]
    fn normal_equations_are_solved_and_singular_ones_refused() {
        let (n, m) = (40, 300);
        let x = draw(2 * n * n, 4);
        let (mut a, wanted) = (vec![0.0; n * n], draw(n * m, 5));
        add_gram(&x, n, &mut a);
        mirror(&mut a, n);
        let mut b = product(&a, &wanted, n, n, m);
        let identity: Vec<f64> = (0..n * n).map(|e| f64::from(u8::from(e / n == e % n))).collect();
        assert!(distance(&product(&a, &inverse(a.clone(), n).unwrap(), n, n, n), &identity) < 1e-9);
        solve(&mut a, n, &mut b, m).unwrap();
        assert!(distance(&b, &wanted) < 1e-9);
        assert_eq!(solve(&mut vec![0.0; n * n], n, &mut b, m), None);
        assert_eq!(inverse(vec![0.0; n * n], n), None);
    }
}
