//! How much memory the process holds and the machine has, as the system tells.

/// Begins a new measurement of [`peak`]. Without effect where the system does not offer it.
pub fn reset_peak() {
    // See proc_pid_clear_refs(5): 5 resets the high water mark.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The largest resident size in bytes since [`reset_peak`]; `None` where the system does not say.
pub fn peak() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// Bytes of memory that the machine has; `None` where the system does not say.
pub fn total() -> Option<u64> {
    kibibytes("/proc/meminfo", "MemTotal:")
}

/// Bytes of memory that are free to use now; 4 GiB where the system does not say.
pub fn available() -> u64 {
    kibibytes("/proc/meminfo", "MemAvailable:").unwrap_or(4 << 30)
}

/// The number behind an entry of one of the system's tables.
fn kibibytes(table: &str, entry: &str) -> Option<u64> {
    let text = std::fs::read_to_string(table).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(entry))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}
