//! The runtime: devices and kernels, checkpoints, data, the executor.

pub mod convert;
pub mod error;
pub mod kernels;
pub mod position;
pub mod safetensors;
