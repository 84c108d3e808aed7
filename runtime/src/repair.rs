//! What is mended after a cut, from the calibration set alone: the scale of the norms whose width changed, and
//! the matrices that write to the residual stream.

mod least_squares;
mod norms;

pub use least_squares::{Mended, Outputs, RepairError};
pub use norms::{Fitted, Powers, factors, fit};
