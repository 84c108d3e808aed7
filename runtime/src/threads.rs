//! The threads that compute: as many as the machine has cores, unless something else is said before the first works.

/// Starts so many. Fails where threads were started before.
pub fn start(count: usize) -> Result<(), String> {
    rayon::ThreadPoolBuilder::new().num_threads(count).build_global().map_err(|error| error.to_string())
}

pub fn count() -> usize {
    rayon::current_num_threads()
}
