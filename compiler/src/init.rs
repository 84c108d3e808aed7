//! How an untrained model's weights are drawn, as the models' own code in transformers does it.

use crate::config::Reader;
use crate::families::ConfigError;
use crate::model::{ModelDesc, Role, Weight};

/// The distribution of one weight's values before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All elements are this.
    Constant(f64),
    Normal {
        deviation: f64,
    },
    /// Even in -bound..bound.
    Uniform {
        bound: f64,
    },
    /// ln 1, ln 2, .. of the heads (`A_log`).
    LogOfIndex,
    /// softplus^-1 of a time step whose logarithm is even in ln lo..ln hi (`dt_bias`).
    TimeStep {
        lo: f64,
        hi: f64,
    },
}

/// What the families draw alike. `deviation` is the family's default of `initializer_range`.
pub(crate) fn common(desc: &ModelDesc, weight: &Weight, deviation: f64) -> Result<Init, ConfigError> {
    let read = Reader { map: &desc.config };
    let last = weight.name.rsplit('.').next().unwrap_or_default();
    Ok(match (weight.role, last) {
        (Role::Norm | Role::GatedNorm, _) | (Role::PerHead, "D") => Init::Constant(1.0),
        (Role::PerHead, "A_log") => Init::LogOfIndex,
        (Role::PerHead, _) => time_step(&read)?,
        (Role::Bias, _) | (_, "bias") => Init::Constant(0.0),
        _ => Init::Normal { deviation: positive(&read, &["initializer_range"], deviation)? },
    })
}

/// PyTorch's own of a layer that reads `inputs` values: even within 1/sqrt(inputs).
pub(crate) fn kaiming(inputs: usize) -> Init {
    Init::Uniform { bound: (inputs.max(1) as f64).sqrt().recip() }
}

/// `out_proj` of a Mamba2 mixer where `rescale_prenorm_residual` asks that depth be made up for.
pub(crate) fn rescaled(init: Init, desc: &ModelDesc) -> Init {
    match init {
        Init::Uniform { bound } => Init::Uniform { bound: bound / (desc.layers.len().max(1) as f64).sqrt() },
        other => other,
    }
}

fn time_step(read: &Reader) -> Result<Init, ConfigError> {
    let floor = positive(read, &["time_step_floor", "mamba_dt_init_floor"], 1e-4)?;
    // A floor of zero stands for "not clamped" in time_step_min; a drawn time step is positive all the same.
    let lo = read.float(&["time_step_min", "mamba_dt_min"], 0.001)?;
    if !lo.is_finite() {
        return read.fail("time_step_min", format!("is {lo}, not a finite number"));
    }
    let lo = lo.max(floor);
    let hi = positive(read, &["time_step_max", "mamba_dt_max"], 0.1)?.max(lo);
    Ok(Init::TimeStep { lo, hi })
}

fn positive(read: &Reader, keys: &[&'static str], default: f64) -> Result<f64, ConfigError> {
    match read.float(keys, default)? {
        x if x > 0.0 && x.is_finite() => Ok(x),
        x => read.fail(keys[0], format!("is {x}, not a positive number")),
    }
}
