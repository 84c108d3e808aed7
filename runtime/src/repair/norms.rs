//! Norms whose width changed. A root of the mean square over fewer channels is another number: where those that
//! are left hold most of the energy it is larger by sqrt(old / new), and the weight takes that back. That is so
//! for the stream. In a gated norm as many channels of equal weight are left in every group, and the root hardly
//! changes: its power is nothing unless it is fitted.

use minic_compiler::model::{ModelDesc, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Powers of (old width / new width) that the weights of norms are scaled by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Powers {
    /// Of the norms that read the stream.
    pub stream: f64,
    /// Of the gated norms of Mamba2 mixers.
    pub gated: f64,
}

impl Powers {
    fn of(&self, role: Role) -> Option<f64> {
        match role {
            Role::Norm => Some(self.stream),
            Role::GatedNorm => Some(self.gated),
            _ => None,
        }
    }
}

/// The factor of the weight of every norm whose width changed, by its name in `after`.
pub fn factors(before: &ModelDesc, after: &ModelDesc, powers: Powers) -> BTreeMap<String, f64> {
    let table = before.weights();
    let mut factors = BTreeMap::new();
    for weight in after.weights() {
        let Some(power) = powers.of(weight.role) else { continue };
        // All norms of one role are of one width.
        let old = table.iter().find(|w| w.role == weight.role).map(|w| w.len());
        if let Some(old) = old.filter(|old| *old != weight.len() && power != 0.0) {
            factors.insert(weight.name.clone(), (old as f64 / weight.len() as f64).powf(power));
        }
    }
    factors
}

/// What a line search found, and every power that it tried with its loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    pub power: f64,
    pub tried: Vec<(f64, f64)>,
}

/// Powers that are tried first.
const GRID: [f64; 7] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5];
/// The best one is known to this.
const WIDTH: f64 = 0.02;

/// The power of least loss: a grid, then the golden section around its best. No power (0) is among those that
/// are tried, so the loss is never worse than without.
pub fn fit<E>(mut loss: impl FnMut(f64) -> Result<f64, E>) -> Result<Fitted, E> {
    let mut tried = Vec::new();
    let mut measure = |power: f64, tried: &mut Vec<(f64, f64)>| {
        let value = loss(power)?;
        tried.push((power, value));
        Ok(value)
    };
    for power in GRID {
        measure(power, &mut tried)?;
    }
    let step = GRID[1] - GRID[0];
    let centre = best(&tried);
    let (mut low, mut high) = (f64::max(centre - step, GRID[0]), f64::min(centre + step, GRID[6]));
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_left, mut at_right) = (measure(left, &mut tried)?, measure(right, &mut tried)?);
    while high - low > WIDTH {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - ratio * (high - low);
            at_left = measure(left, &mut tried)?;
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + ratio * (high - low);
            at_right = measure(right, &mut tried)?;
        }
    }
    Ok(Fitted { power: best(&tried), tried })
}

/// Of equal losses the first.
fn best(tried: &[(f64, f64)]) -> f64 {
    let least = |best: (f64, f64), now: &(f64, f64)| if now.1 < best.1 { *now } else { best };
    tried.iter().fold((0.0, f64::INFINITY), least).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use minic_compiler::dim::Dim;
    use minic_compiler::plan::FITTED;
    use minic_compiler::{config, families};

    fn tiny() -> ModelDesc {
        let text = include_str!("../../../compiler/tests/configs/tiny.json");
        families::describe(&config::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn norms_of_another_width_are_scaled_and_no_others() {
        let before = tiny();
        let cut =
            |dim, size| before.resized(&[(dim, size)].into(), &(0..before.layers.len()).collect::<Vec<_>>());
        let hidden = before.size(Dim::HiddenSize);
        let narrow = cut(Dim::HiddenSize, hidden / 2);
        let both = Powers { stream: 0.5, gated: 1.0 };
        let scaled = factors(&before, &narrow, both);
        assert_eq!(scaled.len(), before.layers.len() + 1, "one a block, and the last");
        assert!(scaled.values().all(|f| (f - 2f64.sqrt()).abs() < 1e-15));
        let heads = cut(Dim::MambaNumHeads, before.size(Dim::MambaNumHeads) / 2);
        let fewer = factors(&before, &heads, both);
        assert!(fewer.iter().all(|(name, f)| name.ends_with("mixer.norm.weight") && *f == 2.0));
        assert!(!fewer.is_empty() && factors(&before, &before, both).is_empty());
        assert!(factors(&before, &heads, Powers { gated: 0.0, ..both }).is_empty());
    }

    #[test]
    fn the_power_of_least_loss_is_found() {
        for least in [0.0, 0.13, 0.5, 0.77, 1.5, 3.0] {
            let fitted = fit(|p: f64| Ok::<_, ()>((p - least).powi(2))).unwrap();
            assert!((fitted.power - f64::min(least, 1.5)).abs() < WIDTH, "{least}: {fitted:?}");
            let inside = least > GRID[0] && least < GRID[6];
            assert!(!inside || fitted.tried.len() as u64 == FITTED, "as planned: {}", fitted.tried.len());
        }
        assert_eq!(fit(|_| Err::<f64, _>("no samples")), Err("no samples"));
    }
}
