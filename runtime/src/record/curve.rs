//! A training's loss over its tokens in a bounded number of points, however long it goes on.

use super::Update;
use serde::{Deserialize, Serialize};

/// Points at most; where there would be more, two neighbours become one.
const POINTS: usize = 480;

/// What updates leave one after the other. It is saved with the training, so that an interrupted one has the
/// curve of an uninterrupted one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Updates that a point stands for; the last one may stand for fewer.
    pub each: u64,
    pub points: Vec<CurvePoint>,
    /// Phases by name, and the tokens before each.
    pub phases: Vec<(String, u64)>,
    /// Terms of the loss.
    pub terms: Vec<String>,
}

/// Some updates on end: their mean loss, the least and the greatest of them, and the last learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Numbers", into = "Numbers")]
pub struct CurvePoint {
    pub updates: u64,
    /// Of all updates until the last one here.
    pub tokens: u64,
    pub loss: f64,
    pub least: f64,
    pub greatest: f64,
    pub rate: f64,
}

/// A point on a line of JSON.
type Numbers = (u64, u64, f64, f64, f64, f64);

impl From<Numbers> for CurvePoint {
    fn from((updates, tokens, loss, least, greatest, rate): Numbers) -> CurvePoint {
        CurvePoint { updates, tokens, loss, least, greatest, rate }
    }
}

impl From<CurvePoint> for Numbers {
    fn from(p: CurvePoint) -> Numbers {
        (p.updates, p.tokens, p.loss, p.least, p.greatest, p.rate)
    }
}

impl CurvePoint {
    /// Both, one after the other.
    fn with(self, next: CurvePoint) -> CurvePoint {
        let updates = self.updates + next.updates;
        let share = next.updates as f64 / updates as f64;
        CurvePoint {
            updates,
            loss: self.loss + share * (next.loss - self.loss),
            least: self.least.min(next.least),
            greatest: self.greatest.max(next.greatest),
            ..next
        }
    }
}

impl Curve {
    pub fn of<'a>(updates: impl IntoIterator<Item = &'a Update>) -> Curve {
        let mut curve = Curve::default();
        updates.into_iter().for_each(|update| curve.push(update));
        curve
    }

    /// The next update; one whose loss is no number is passed over.
    pub fn push(&mut self, update: &Update) {
        if self.phases.last().is_none_or(|(name, _)| *name != update.phase) {
            let before = self.points.last().map_or(0, |point| point.tokens);
            self.phases.push((update.phase.clone(), before));
        }
        for term in update.losses.keys().filter(|term| !self.terms.contains(*term)).collect::<Vec<_>>() {
            self.terms.push(term.clone());
        }
        let Update { tokens, loss, rate, .. } = *update;
        if !loss.is_finite() {
            return;
        }
        self.each = self.each.max(1);
        let point = CurvePoint { updates: 1, tokens, loss, least: loss, greatest: loss, rate };
        if let Some(last) = self.points.last_mut().filter(|last| last.updates < self.each) {
            *last = last.with(point);
            return;
        }
        if self.points.len() == POINTS {
            self.points = self.points.chunks(2).map(|pair| pair[0].with(pair[1])).collect();
            self.each *= 2;
        }
        self.points.push(point);
    }
}
