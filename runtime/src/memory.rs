//! How much memory the process holds, as its system tells.

/// Begins a new measurement of [`peak`]. Without effect where the system does not offer it.
pub fn reset_peak() {
    // See proc_pid_clear_refs(5): 5 resets the high water mark.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The largest resident size in bytes since [`reset_peak`]; `None` where the system does not say.
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// Bytes of memory that are free to use now; 4 GiB where the system does not say.
pub fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(4 << 30, |k| k << 10)
}
