//! The runtime: devices and kernels, checkpoints, data, the executor.

pub mod checkpoint;
pub mod convert;
pub mod data;
pub mod error;
pub mod kernels;
pub mod position;
pub mod random;
pub mod safetensors;
pub mod tokens;

#[cfg(test)]
mod testing;
