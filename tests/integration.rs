//! One binary for all integration tests.

#[path = "integration/goldens.rs"]
mod goldens;
#[path = "integration/permutations.rs"]
mod permutations;
#[path = "integration/support.rs"]
mod support;
