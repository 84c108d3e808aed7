//! Untrained checkpoints of any supported config, drawn piece by piece.
//!
//! The value of an element follows from the seed, the tensor's name and the element's index alone.

mod draw;

use crate::checkpoint::CONFIG_FILE;
use crate::device::Weights;
use crate::error::Kind;
use crate::events::Watch;
use crate::publish::{self, Piece, PublishError, StagedFolder};
use crate::safetensors::Entry;
use draw::Draw;
use minic_compiler::config;
use minic_compiler::families::ConfigError;
use minic_compiler::model::{DType, ModelDesc, Weight};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What is wanted.
pub struct Synth<'a> {
    pub desc: &'a ModelDesc,
    /// The text that `desc` was read from.
    pub config: &'a str,
    /// Absent: the config's own, or bf16.
    pub dtype: Option<DType>,
    pub seed: u64,
    /// Largest file, in bytes of tensors.
    pub shard: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Synthesized {
    pub folder: PathBuf,
    pub family: &'static str,
    pub params: u64,
    pub dtype: DType,
    pub seed: u64,
    /// Of all tensors.
    pub bytes: u64,
    /// Names of the files of weights.
    pub files: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl SynthError {
    pub fn kind(&self) -> Kind {
        match self {
            SynthError::Config(_) => Kind::Input,
            SynthError::Publish(e) => e.kind(),
        }
    }
}

/// All weights of an untrained model, in f32: those that [`Synth::write`] writes of the same seed.
pub fn weights(desc: &ModelDesc, seed: u64) -> Result<Weights, ConfigError> {
    let of = |weight: Weight| {
        let draw = Draw::new(desc.family().init(desc, &weight)?, seed, &weight.name);
        let mut values = Vec::with_capacity(weight.len());
        let Ok(()) = draw.each(0..weight.len(), |part| {
            values.extend_from_slice(part);
            Ok::<(), Infallible>(())
        });
        Ok((weight.name, values))
    };
    let drawn: Vec<Result<(String, Vec<f32>), ConfigError>> =
        desc.weights().into_par_iter().map(of).collect();
    let mut weights = Weights::default();
    for drawn in drawn {
        let (name, values) = drawn?;
        weights.insert(name, values);
    }
    Ok(weights)
}

impl Synth<'_> {
    /// Writes the folder `target`, whole or not at all. Holds some hundred MiB at most, whatever the model.
    pub fn write(&self, target: &Path, overwrite: bool, watch: &Watch) -> Result<Synthesized, SynthError> {
        let dtype = self.dtype.or(self.desc.dtype).unwrap_or(DType::BF16);
        let (mut entries, mut draws) = (Vec::new(), BTreeMap::new());
        for weight in self.desc.weights() {
            let draw = Draw::new(self.desc.family().init(self.desc, &weight)?, self.seed, &weight.name);
            entries.push(Entry { shape: weight.sizes(), dtype, name: weight.name.clone() });
            draws.insert(weight.name, draw);
        }
        let (done, total) = (AtomicU64::new(0), entries.iter().map(Entry::bytes).sum());
        let staged = StagedFolder::new(target, overwrite)?;
        staged.write(CONFIG_FILE, self.config_in(dtype).as_bytes())?;
        let written = publish::write_weights(
            staged.path(),
            &entries,
            Some(self.shard),
            |entry| Ok(draws.get(&entry.name)),
            |draw, _, piece: &mut Piece| -> Result<(), SynthError> {
                let elements = piece.elements();
                if let Some(draw) = draw {
                    draw.each(elements.clone(), |values| piece.write_f32(values))?;
                }
                let bytes = (elements.len() * dtype.bytes()) as u64;
                tell(watch, done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
                Ok(())
            },
        )?;
        let folder = staged.publish()?;
        Ok(Synthesized {
            folder,
            family: self.desc.family,
            params: written.params,
            dtype,
            seed: self.seed,
            bytes: written.bytes,
            files: written.files.into_iter().map(|file| file.name).collect(),
        })
    }

    /// The config as it was given, but for its dtype if that is another.
    fn config_in(&self, dtype: DType) -> String {
        if self.desc.dtype == Some(dtype) {
            return self.config.to_string();
        }
        let mut map = self.desc.config.clone();
        config::set_dtype(&mut map, dtype);
        config::to_text(&map)
    }
}

/// The initial values of one weight of `desc`, row-major: what [`Synth`] writes of this seed, before rounding.
/// All threads draw.
pub fn drawn(desc: &ModelDesc, weight: &Weight, seed: u64) -> Result<Vec<f32>, ConfigError> {
    const PIECE: usize = 1 << 20;
    let draw = Draw::new(desc.family().init(desc, weight)?, seed, &weight.name);
    let mut values = vec![0.0; weight.sizes().iter().product()];
    values.par_chunks_mut(PIECE).enumerate().for_each(|(i, out)| {
        let begin = i * PIECE;
        let mut filled = 0;
        let done: Result<(), Infallible> = draw.each(begin..begin + out.len(), |part| {
            out[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
            Ok(())
        });
        let Ok(()) = done;
    });
    Ok(values)
}

/// Progress in MiB.
fn tell(watch: &Watch, done: u64, total: u64) {
    watch.progress((done >> 20) as usize, (total >> 20) as usize);
}

#[cfg(test)]
mod tests;
