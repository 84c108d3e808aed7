//! The runtime: devices and kernels, checkpoints, data, the executor.

pub mod bench;
pub mod calibrate;
pub mod chart;
pub mod checkpoint;
pub mod compare;
pub mod convert;
pub mod data;
pub mod decode;
pub mod device;
pub mod error;
pub mod evaluate;
pub mod events;
pub mod gate;
pub mod guard;
pub mod hub;
pub mod importance;
pub mod input;
mod json;
pub mod kernels;
pub mod linalg;
pub mod mask;
pub mod memory;
pub mod position;
pub mod provenance;
pub mod publish;
pub mod random;
pub mod record;
pub mod repair;
mod residual;
pub mod run;
pub mod safetensors;
pub mod samples;
pub mod score;
pub mod shader;
pub mod source;
pub mod stamp;
pub mod stats;
pub mod store;
pub mod synth;
pub mod threads;
pub mod tokens;
pub mod train;
pub mod tree;
pub mod walk;

#[cfg(test)]
mod testing;
