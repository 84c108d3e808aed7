//! The runtime: devices and kernels, checkpoints, data, the executor.

pub mod kernels;
