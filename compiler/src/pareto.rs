//! Candidates that no other one beats in both of two objectives.

use std::cmp::Ordering;

/// An objective that is not a number: which point has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("point {0} cannot be compared: one of its objectives is not a number")]
pub struct NotANumber(pub usize);

/// The points of the front, ascending by their index: those for which there is no other that is as small in both
/// objectives and smaller in one. Equal points are all of the front, or none is. In O(n log n).
pub fn front(points: &[(f64, f64)]) -> Result<Vec<usize>, NotANumber> {
    if let Some(at) = points.iter().position(|(a, b)| a.is_nan() || b.is_nan()) {
        return Err(NotANumber(at));
    }
    let by = |a: &usize, b: &usize| points[*a].partial_cmp(&points[*b]).unwrap_or(Ordering::Equal);
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(by);
    let mut front: Vec<usize> = Vec::new();
    for at in order {
        let (first, second) = points[at];
        // The last one has the least second objective of all that came before.
        let kept =
            front.last().is_none_or(|last| second < points[*last].1 || points[*last] == (first, second));
        if kept {
            front.push(at);
        }
    }
    front.sort_unstable();
    Ok(front)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the definition says.
    fn by_definition(points: &[(f64, f64)]) -> Vec<usize> {
        let beats = |a: &(f64, f64), b: &(f64, f64)| a.0 <= b.0 && a.1 <= b.1 && a != b;
        let beaten = |at: &usize| points.iter().any(|other| beats(other, &points[*at]));
        (0..points.len()).filter(|at| !beaten(at)).collect()
    }

    /// xorshift: the same numbers everywhere.
    fn drawn(seed: &mut u64, below: u64) -> f64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed % below) as f64
    }

    #[test]
    fn the_front_is_that_of_the_definition() {
        let mut seed = 0x9E37_79B9_7F4A_7C15;
        for round in 0..2000 {
            let (count, below) = (drawn(&mut seed, 40) as usize, [3, 10, 1000][round % 3]);
            let mut points: Vec<(f64, f64)> =
                (0..count).map(|_| (drawn(&mut seed, below), -drawn(&mut seed, below))).collect();
            if round % 7 == 0 && count > 3 {
                (points[0].0, points[1].1, points[2]) = (f64::INFINITY, f64::NEG_INFINITY, (0.0, -0.0));
            }
            assert_eq!(front(&points).unwrap(), by_definition(&points), "{points:?}");
        }
    }

    #[test]
    fn equal_points_stand_together_and_what_is_no_number_is_refused() {
        assert_eq!(front(&[]), Ok(vec![]));
        assert_eq!(
            front(&[(1.0, 2.0), (1.0, 2.0), (1.0, 3.0), (2.0, 1.0), (-0.0, 9.0), (0.0, 9.0)]),
            Ok(vec![0, 1, 3, 4, 5])
        );
        assert_eq!(front(&[(1.0, 2.0), (1.0, f64::NAN)]), Err(NotANumber(1)));
    }
}
