//! The learning rate over the updates of a phase: linear growth to the peak, then the schedule's shape.

use minic_compiler::hir;
use std::f64::consts::PI;

/// The rate of update `update`, the first being 0, of a phase of `updates`.
///
/// The first `warmup` updates have peak/warmup, 2 peak/warmup, .. peak; without any the first update has the
/// peak. From there the rate declines so that the last update has the floor exactly. A phase that ends within
/// the warm-up never declines, and one of a single update has the peak.
pub fn rate(rate: &hir::Rate, update: u64, updates: u64) -> f64 {
    let hir::Rate { peak, floor, warmup, .. } = *rate;
    if update < warmup {
        return peak * ((update + 1) as f64 / warmup as f64);
    }
    // The update that has the peak, and the last one.
    let (top, last) = (warmup.saturating_sub(1), updates.saturating_sub(1));
    let left = match rate.shape {
        "cosine" => (1.0 + (PI * progress(top, last, update)).cos()) / 2.0,
        "linear" => 1.0 - progress(top, last, update),
        "wsd" => 1.0 - progress(last.saturating_sub(rate.decay.unwrap_or(0)).max(top), last, update),
        _ => 1.0,
    };
    // So written, it is the peak or the floor to the last bit where nothing or all of the way is gone.
    peak * left + floor * (1.0 - left)
}

/// How much of the way from update `first` to update `last` is gone, from 0 to 1.
fn progress(first: u64, last: u64, update: u64) -> f64 {
    let (gone, way) = (update.saturating_sub(first), last.saturating_sub(first));
    if way == 0 { 0.0 } else { (gone as f64 / way as f64).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(shape: &'static str, warmup: u64, decay: Option<u64>) -> hir::Rate {
        hir::Rate { shape, peak: 8.0, floor: 2.0, warmup, decay }
    }

    fn all(schedule: &hir::Rate, updates: u64) -> Vec<f64> {
        (0..updates).map(|update| rate(schedule, update, updates)).collect()
    }

    #[track_caller]
    fn near(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14), "{got:?}, not {expected:?}");
    }

    #[test]
    fn rates_are_those_worked_out_by_hand() {
        let half = 3.0 * 0.5f64.sqrt();
        near(&all(&schedule("cosine", 0, None), 5), &[8.0, 5.0 + half, 5.0, 5.0 - half, 2.0]);
        near(&all(&schedule("cosine", 4, None), 8), &[2.0, 4.0, 6.0, 8.0, 5.0 + half, 5.0, 5.0 - half, 2.0]);
        near(&all(&schedule("linear", 0, None), 4), &[8.0, 6.0, 4.0, 2.0]);
        near(&all(&schedule("linear", 2, None), 5), &[4.0, 8.0, 6.0, 4.0, 2.0]);
        near(&all(&schedule("constant", 2, None), 4), &[4.0, 8.0, 8.0, 8.0]);
        near(&all(&schedule("wsd", 2, Some(3)), 7), &[4.0, 8.0, 8.0, 8.0, 6.0, 4.0, 2.0]);
        near(&all(&schedule("wsd", 0, Some(1)), 3), &[8.0, 8.0, 2.0]);
    }

    #[test]
    fn peak_and_floor_are_met_exactly() {
        for shape in ["cosine", "linear", "wsd"] {
            let decay = (shape == "wsd").then_some(91);
            let schedule = hir::Rate { shape, peak: 1.6e-4, floor: 8e-6, warmup: 60, decay };
            assert_eq!(rate(&schedule, 59, 1013), 1.6e-4, "{shape}");
            assert_eq!(rate(&schedule, 1012, 1013), 8e-6, "{shape}");
            let rates = all(&schedule, 1013);
            assert!(rates[59..].is_sorted_by(|a, b| a >= b), "{shape}");
        }
    }

    #[test]
    fn phases_shorter_than_their_schedule_keep_its_beginning() {
        for shape in ["cosine", "linear", "constant", "wsd"] {
            near(&all(&schedule(shape, 0, Some(1)), 1), &[8.0]);
            near(&all(&schedule(shape, 4, Some(2)), 3), &[2.0, 4.0, 6.0]);
            near(&all(&schedule(shape, 2, Some(2)), 2), &[4.0, 8.0]);
        }
        // The decline has what the warm-up leaves.
        near(&all(&schedule("wsd", 2, Some(9)), 5), &[4.0, 8.0, 6.0, 4.0, 2.0]);
        near(&all(&schedule("wsd", 0, None), 3), &[8.0, 8.0, 8.0]);
    }
}
