//! Devices run schedules. What a device is asked is the same for all of them; kernels meet devices in the
//! device's own dispatch.

pub mod cpu;
pub mod profile;
pub mod vulkan;
mod weights;

pub use profile::Profile;
pub use weights::Weights;

use crate::error::Kind;
use crate::shader::Unfit;
use crate::train::optimizer::Update;
use minic_compiler::graph::Op;
use minic_compiler::schedule::Schedule;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("{what} `{name}` is not bound")]
    Unbound { what: &'static str, name: String },
    #[error("{what} `{name}` has {found} elements, the schedule reads {expected}")]
    Length { what: &'static str, name: String, found: usize, expected: usize },
    #[error("operation `{0}` has no kernel on this device")]
    NoKernel(&'static str),
    #[error("there is no Vulkan adapter {number}: {found} found; `minic doctor` lists them")]
    NoAdapter { number: usize, found: usize },
    #[error("the Vulkan device cannot be opened: {0}")]
    NotOpened(String),
    #[error("the device {name} was lost ({why}): the same command goes on from what was saved")]
    Lost { name: String, why: String },
    #[error(
        "the device has {} MiB free, {} MiB are needed: {}", has >> 20, bytes.div_ceil(1 << 20), would_fit(*fits)
    )]
    DeviceMemory {
        bytes: u64,
        has: u64,
        /// Positions of a sample that would fit; zero where the weights alone do not.
        fits: usize,
    },
    /// More was asked for than the device gave, whatever it says to have.
    #[error(
        "the device is out of memory; minic holds {} MiB of it: end what else uses it, or take shorter sequences",
        held >> 20
    )]
    DeviceFull { held: u64 },
    #[error(
        "{name} ends the loops of shaders after 65535 rounds, too few for samples of this length: take shorter \
         sequences, a GPU, or --device cpu"
    )]
    Rounds { name: String },
    /// A bug of a kernel, or of a driver.
    #[error("the device refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Arena and results of one lane.
    #[error("a sample needs {} MiB of memory, which are not free: take shorter sequences", bytes.div_ceil(1 << 20))]
    Memory { bytes: u64 },
    /// Weights, and what sequences that are decoded side by side remember.
    #[error(
        "decoding needs {} MiB of memory, {} of them for what the sequences remember, and {} MiB are free: take fewer \
         sequences, or shorter ones", bytes.div_ceil(1 << 20), states.div_ceil(1 << 20), has >> 20
    )]
    Decoding { bytes: u64, states: u64, has: u64 },
}

impl DeviceError {
    pub fn kind(&self) -> Kind {
        match self {
            DeviceError::Memory { .. }
            | DeviceError::Decoding { .. }
            | DeviceError::DeviceMemory { .. }
            | DeviceError::DeviceFull { .. }
            | DeviceError::NoAdapter { .. }
            | DeviceError::NotOpened(_)
            | DeviceError::Lost { .. }
            | DeviceError::Rounds { .. } => Kind::World,
            // No device of another day holds it.
            DeviceError::Unfit(_) => Kind::Input,
            DeviceError::Unbound { .. }
            | DeviceError::Length { .. }
            | DeviceError::NoKernel(_)
            | DeviceError::Refused(_) => Kind::Proof,
        }
    }
}

fn would_fit(positions: usize) -> String {
    match positions {
        0 => "the weights alone do not fit; `--device cpu` computes in the host's memory".into(),
        n => format!("sequences of about {n} tokens would fit"),
    }
}

/// What one run is given: one sample.
#[derive(Clone, Default)]
pub struct Bindings<'a> {
    pub tokens: &'a [u32],
    pub inputs: BTreeMap<&'a str, &'a [f32]>,
}

impl<'a> Bindings<'a> {
    /// A sample of tokens alone.
    pub fn of(tokens: &'a [u32]) -> Bindings<'a> {
        Bindings { tokens, inputs: BTreeMap::new() }
    }
}

/// A result of a run, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Output {
    /// f64 results; empty for an f32 one.
    pub fn f64(&self) -> &[f64] {
        match self {
            Output::F64(data) => data,
            Output::F32(_) => &[],
        }
    }

    /// f32 results; empty for an f64 one.
    pub fn f32(&self) -> &[f32] {
        match self {
            Output::F32(data) => data,
            Output::F64(_) => &[],
        }
    }
}

pub type Outputs = BTreeMap<String, Output>;

/// Bytes that a run is planned to hold at its peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub weights: u64,
    /// Arena, results and inputs of all lanes, and what is remembered between runs.
    pub lanes: u64,
    /// What the kernels' worker threads need beside their operands.
    pub scratch: u64,
}

impl Memory {
    pub fn total(self) -> u64 {
        self.weights + self.lanes + self.scratch
    }
}

/// Something that runs schedules.
pub trait Device: Send + Sync {
    /// As `--device` names it.
    fn name(&self) -> &'static str;

    /// What decides the bits of its results beside the operations: part of the key of what it computes.
    fn kind(&self) -> String;

    /// The version of its implementation of an operation; zero for leaves and views.
    fn version(&self, op: &Op) -> u32;

    /// The same device with factors of products in f32: for proofs and for repairs.
    fn exact(&self) -> &dyn Device;

    /// Begins to measure where the time goes; false where it cannot.
    fn start_profile(&self) -> bool {
        false
    }

    /// What was measured since.
    fn take_profile(&self) -> Option<Profile> {
        None
    }

    /// Samples that are best kept in flight at once.
    fn lanes(&self) -> usize;

    fn memory(&self, schedule: &Schedule, lanes: usize) -> Memory;

    /// Bytes that runs may plan with.
    fn available(&self) -> u64;

    /// Binds weights to a schedule; each session is one lane.
    fn prepare(&self, schedule: Arc<Schedule>, weights: Weights) -> Result<Box<dyn Session>, DeviceError>;

    /// Binds weights to the two schedules of decoding, that of first tokens and that of steps. Their sessions share what
    /// is remembered, which is zero at first.
    fn decode(
        &self,
        schedules: [Arc<Schedule>; 2],
        weights: Weights,
    ) -> Result<[Box<dyn Session>; 2], DeviceError>;

    /// Binds a model in training, and weights that stay as they are, to a schedule that adds up gradients.
    /// `lanes` sum the gradients of their own samples first: their number decides bits, and is the schedule's.
    fn train(
        &self,
        schedule: Arc<Schedule>,
        frozen: Weights,
        state: TrainingState,
        lanes: usize,
    ) -> Result<Box<dyn Training>, DeviceError>;
}

/// A model in training, as a host keeps it.
#[derive(Clone, Default)]
pub struct TrainingState {
    pub weights: Weights,
    /// AdamW's running averages of the gradients and of their squares, by weight.
    pub mean: BTreeMap<String, Vec<f32>>,
    pub square: BTreeMap<String, Vec<f32>>,
}

/// A model in training on a device.
pub trait Training: Send {
    /// Forward and backward of the samples of one update; results in the samples' order. Gradients of earlier
    /// updates are forgotten. They are summed in an order that lanes and samples alone decide.
    fn gradients(&mut self, samples: &[Bindings]) -> Result<Vec<Outputs>, DeviceError>;

    /// The norm of all gradients together.
    fn norm(&mut self) -> Result<f64, DeviceError>;

    /// One step of AdamW; `decay` says by how much a weight decays.
    fn update(&mut self, update: &Update, decay: &dyn Fn(&str) -> f64) -> Result<(), DeviceError>;

    /// Runs the samples again, step by step: the first value that is not finite, by what computes it.
    fn first_non_finite(&mut self, samples: &[Bindings]) -> Result<Option<String>, DeviceError>;

    /// The gradient of a weight, as [`Training::gradients`] left it.
    fn gradient(&self, weight: &str) -> Result<Option<Cow<'_, [f32]>>, DeviceError>;

    /// Its weights as they stand.
    fn weights(&self) -> Result<Cow<'_, Weights>, DeviceError>;

    /// The model as it stands; it shares memory with this as far as it can.
    fn state(&self) -> Result<Cow<'_, TrainingState>, DeviceError>;

    fn into_state(self: Box<Self>) -> Result<TrainingState, DeviceError>;
}

/// One lane: a schedule with its buffers.
pub trait Session: Send {
    fn run(&mut self, bindings: &Bindings) -> Result<Outputs, DeviceError>;
}

/// All weights that a schedule reads are there, of the right lengths.
fn bound(schedule: &Schedule, weights: &Weights) -> Result<(), DeviceError> {
    for (name, &expected) in &schedule.weights {
        let Some(tensor) = weights.get(name) else {
            return Err(DeviceError::Unbound { what: "weight", name: name.clone() });
        };
        length("weight", name, tensor.len(), expected)?;
    }
    Ok(())
}

fn length(what: &'static str, name: &str, found: usize, expected: usize) -> Result<(), DeviceError> {
    if found == expected {
        return Ok(());
    }
    Err(DeviceError::Length { what, name: name.into(), found, expected })
}
