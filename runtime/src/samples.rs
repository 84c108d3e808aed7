//! Running a schedule over samples, several side by side, with results handed on in the samples' order.

use crate::device::{Bindings, Device, DeviceError, Memory, Outputs, Session, Weights};
use crate::events::Watch;
use crate::run::RunError;
use crate::store::{Key, Store, StoreError};
use minic_compiler::schedule::Schedule;
use rayon::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where a pass keeps how far it has come, and how often.
#[derive(Clone, Copy)]
pub struct Saves<'a> {
    pub store: &'a Store,
    pub key: &'a Key,
    pub every: Duration,
}

impl Saves<'_> {
    fn resume<S: DeserializeOwned>(&self) -> Result<Option<(usize, S)>, StoreError> {
        self.store.partial(self.key)
    }

    fn save<S: Serialize>(&self, samples: usize, state: &S) -> Result<(), StoreError> {
        self.store.put_partial(self.key, &(samples, state))
    }
}

/// A pass over neighbouring samples.
#[derive(Clone)]
pub struct Pass<'a> {
    /// All that there are, of equal length.
    pub samples: &'a [&'a [u32]],
    /// Of questions, the tokens that count, one range a sample.
    pub answers: Option<&'a [Range<usize>]>,
    /// Those that are run.
    pub range: Range<usize>,
    pub watch: &'a Watch<'a>,
    pub saves: Option<Saves<'a>>,
}

impl<'a> Pass<'a> {
    /// Over all samples, without saves.
    pub fn over(samples: &'a [&'a [u32]], watch: &'a Watch<'a>) -> Pass<'a> {
        Pass { samples, answers: None, range: 0..samples.len(), watch, saves: None }
    }

    /// Positions of a sample.
    pub fn sequence(&self) -> Result<usize, RunError> {
        self.samples.first().map(|tokens| tokens.len()).ok_or(RunError::NoSamples)
    }
}

/// Samples that are run on one device with one schedule.
pub struct Runner {
    sessions: Vec<Box<dyn Session>>,
    /// Constant inputs, such as masks.
    inputs: BTreeMap<String, Vec<f32>>,
    /// What the run is planned to hold.
    pub memory: Memory,
}

impl Runner {
    /// As many lanes as the device likes, but no more than there are samples.
    pub fn new(
        device: &dyn Device,
        schedule: Schedule,
        weights: Weights,
        samples: usize,
    ) -> Result<Runner, DeviceError> {
        let lanes = device.lanes().clamp(1, samples.max(1));
        let memory = device.memory(&schedule, lanes);
        let schedule = Arc::new(schedule);
        let sessions = (0..lanes).map(|_| device.prepare(schedule.clone(), weights.clone()));
        Ok(Runner { sessions: sessions.collect::<Result<_, _>>()?, inputs: BTreeMap::new(), memory })
    }

    pub fn with_inputs(mut self, inputs: BTreeMap<String, Vec<f32>>) -> Runner {
        self.inputs = inputs;
        self
    }

    pub fn set_input(&mut self, name: &str, data: Vec<f32>) {
        self.inputs.insert(name.into(), data);
    }

    /// One sample.
    pub fn once(&mut self, tokens: &[u32]) -> Result<Outputs, DeviceError> {
        let inputs = self.inputs.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
        self.sessions[0].run(&Bindings { tokens, inputs })
    }

    /// Every sample; `each` sees the results in the samples' order, whatever ran first.
    pub fn all(
        &mut self,
        samples: &[&[u32]],
        watch: &Watch,
        mut each: impl FnMut(Outputs),
    ) -> Result<(), RunError> {
        self.gather(&Pass::over(samples, watch), (), |_, outputs| each(outputs))
    }

    /// Every sample of a pass that a saved `state` has not seen, pushed into it in the samples' order. Between
    /// any two samples it can be saved, and goes on from there with the same bits.
    pub fn gather<S: Serialize + DeserializeOwned>(
        &mut self,
        pass: &Pass,
        state: S,
        mut push: impl FnMut(&mut S, Outputs),
    ) -> Result<S, RunError> {
        let Pass { watch, saves, .. } = pass;
        let samples = &pass.samples[pass.range.clone()];
        watch.planned(self.memory);
        let inputs: BTreeMap<&str, &[f32]> =
            self.inputs.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
        let total = samples.len();
        let saved = saves.as_ref().map_or(Ok(None), Saves::resume)?.filter(|(done, _)| *done <= total);
        let (mut done, mut state) = saved.unwrap_or((0, state));
        if done > 0 {
            watch.note(&format!("goes on after {done} of {total} samples"));
        }
        let mut last = Instant::now();
        for chunk in samples[done..].chunks(self.sessions.len()) {
            let run = |(session, tokens): (&mut Box<dyn Session>, &&[u32])| {
                session.run(&Bindings { tokens, inputs: inputs.clone() })
            };
            let results: Vec<Result<Outputs, DeviceError>> =
                self.sessions.par_iter_mut().zip(chunk.par_iter()).map(run).collect();
            for result in results {
                push(&mut state, result?);
                done += 1;
                watch.progress(done, total);
            }
            let stop = watch.stop.is_set() && done < total;
            let due = |saves: &&Saves| done < total && (stop || last.elapsed() >= saves.every);
            if let Some(saves) = saves.as_ref().filter(due) {
                saves.save(done, &state)?;
                watch.saved(done);
                last = Instant::now();
            }
            if stop {
                return Err(RunError::Stopped);
            }
        }
        Ok(state)
    }
}
