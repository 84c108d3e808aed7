//! What the operating system says about the machine.

use minic_runtime::memory;
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes.
pub struct Memory {
    pub total: u64,
    pub available: u64,
    /// What the control group allows, where it is less than all.
    pub limit: Option<u64>,
}

pub fn memory() -> Option<Memory> {
    let (total, available) = (memory::total()?, memory::available());
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    Some(Memory { total, available, limit: limit.filter(|l| *l < total) })
}

/// The processor's name.
pub fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'))?;
    Some(line.1.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A folder, or the place where it would be made.
pub struct Place {
    /// As given, made absolute.
    pub path: PathBuf,
    /// Bytes that may still be written.
    pub free: Option<u64>,
    /// Files can be made there.
    pub writable: bool,
    /// The file system, where the system numbers them.
    disk: Option<u64>,
}

impl Place {
    pub fn of(path: &Path) -> Place {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        // What is to be made is made in the nearest folder that is there.
        let there = path.ancestors().find(|p| p.exists()).unwrap_or(&path);
        let writable = there.is_dir() && is_writable(there);
        Place { free: free(there), writable, disk: disk(there), path: path.clone() }
    }

    /// What is written to one takes room of the other; not so where nobody says.
    pub fn shares_its_disk_with(&self, other: &Place) -> bool {
        self.disk.is_some() && self.disk == other.disk
    }
}

#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let found = nix::sys::statvfs::statvfs(folder).ok()?;
    // Their widths differ between systems.
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
    let (blocks, size) = (u64::try_from(found.blocks_available()), u64::try_from(found.fragment_size()));
    blocks.ok()?.checked_mul(size.ok()?)
}

#[cfg(unix)]
fn disk(folder: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    folder.metadata().ok().map(|metadata| metadata.dev())
}

#[cfg(not(unix))]
fn disk(_: &Path) -> Option<u64> {
    None
}

#[cfg(unix)]
fn is_writable(folder: &Path) -> bool {
    use nix::unistd::{AccessFlags, access};
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

#[cfg(not(unix))]
fn is_writable(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|m| !m.permissions().readonly())
}
