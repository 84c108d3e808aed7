//! What would stop a run, and can be said beforehand.

use crate::output::{Exit, Failure};
use crate::system::Place;
use crate::table::bytes;
use minic_compiler::plan::{Estimate, Stage};
use std::path::Path;

/// Where a run computes, and where it writes.
pub struct Room<'a> {
    /// For messages: `cpu avx2`.
    pub device: String,
    /// Bytes of the device; `None` where nobody says.
    pub memory: Option<u64>,
    /// A device that computes in 16 bits holds weights in half of their bytes.
    pub halved: bool,
    pub store: &'a Path,
    pub out: &'a Path,
}

/// A stage that is still to be run.
pub struct Ahead<'a> {
    pub name: &'a str,
    pub stage: &'a Stage,
    pub estimate: &'a Estimate,
}

impl Room<'_> {
    pub fn problems(&self, ahead: &[Ahead]) -> Vec<Failure> {
        let places = [("store", self.store, "--store"), ("folder of exports", self.out, "--out")];
        let closed = places.into_iter().filter_map(|(what, path, option)| unwritable(what, path, option));
        closed.chain(self.too_little_memory(ahead)).chain(self.too_little_disk(ahead)).collect()
    }

    /// The stage that needs the most speaks for all.
    fn too_little_memory(&self, ahead: &[Ahead]) -> Option<Failure> {
        let least = |stage: &&Ahead| {
            let least = stage.estimate.memory.map_or(0, |memory| memory.min);
            if self.halved { least / 2 } else { least }
        };
        let worst = ahead.iter().max_by_key(|stage| least(stage))?;
        let (needs, has) = (least(&worst), self.memory?);
        (needs > has).then(|| {
            let device = &self.device;
            let message =
                format!("`{}` needs at least {} of memory, {device} has {}", worst.name, bytes(needs), bytes(has));
            Failure::new(Exit::World, message).help(
                "shorter sequences or smaller batches need less, another --device may have more; `--memory 80GB` plans \
                 for a device that has so much",
            )
        })
    }

    /// What is written to the same file system is counted together.
    fn too_little_disk(&self, ahead: &[Ahead]) -> Vec<Failure> {
        let least = |exports: bool| {
            let of_kind = ahead.iter().filter(|s| matches!(s.stage, Stage::Export(_)) == exports);
            of_kind.filter_map(|s| s.estimate.disk).map(|disk| disk.min).sum::<u64>()
        };
        let (stored, exported) = (least(false), least(true));
        let (store, out) = (Place::of(self.store), Place::of(self.out));
        let needs = match store.shares_its_disk_with(&out) {
            true => vec![("the run", &out, stored + exported)],
            false => vec![("the store", &store, stored), ("exports", &out, exported)],
        };
        let lacks = |(what, place, needs): (&str, &Place, u64)| {
            let free = place.free.filter(|free| needs > *free)?;
            let where_ = place.path.display();
            let message =
                format!("{what} needs at least {} of disk, {where_} has {} free", bytes(needs), bytes(free));
            Some(
                Failure::new(Exit::World, message)
                    .help("make room, or name other places with --store and --out"),
            )
        };
        needs.into_iter().filter_map(lacks).collect()
    }
}

fn unwritable(what: &str, path: &Path, option: &str) -> Option<Failure> {
    let place = Place::of(path);
    (!place.writable).then(|| {
        Failure::new(Exit::World, format!("{}: the {what} cannot be written to", place.path.display()))
            .help(format!("name another with {option}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use minic_compiler::plan::Bounds;

    fn problems(memory: Option<u64>, halved: bool, estimate: Estimate) -> Vec<String> {
        let here = tempfile::tempdir().expect("a folder");
        let device = "a device".to_string();
        let room = Room { device, memory, halved, store: &here.path().join("store"), out: here.path() };
        let ahead = Ahead { name: "student", stage: &Stage::Rotate, estimate: &estimate };
        room.problems(&[ahead]).iter().map(|failure| format!("{failure:?}")).collect()
    }

    #[test]
    fn memory_and_disk_that_are_lacking_are_told_with_both_sizes() {
        let memory = Estimate { memory: Some(Bounds { min: 80_000, max: 90_000 }), ..Estimate::default() };
        assert_eq!(problems(Some(80_000), false, memory.clone()), Vec::<String>::new());
        assert_eq!(problems(None, false, memory.clone()), Vec::<String>::new(), "nobody says");
        assert_eq!(problems(Some(40_000), true, memory.clone()), Vec::<String>::new(), "in 16 bits");
        let told = problems(Some(79_999), false, memory).concat();
        assert!(told.contains("`student` needs at least 80.0 kB of memory, a device has 80.0 kB"), "{told}");
        let disk = Estimate { disk: Some(Bounds { min: 1 << 60, max: 1 << 60 }), ..Estimate::default() };
        let told = problems(None, false, disk).concat();
        assert!(told.contains("the run needs at least 1.15 EB of disk"), "{told}");
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_told() {
        let here = tempfile::tempdir().expect("a folder");
        let file = here.path().join("file");
        std::fs::write(&file, "").expect("a file");
        assert!(unwritable("store", &file.join("store"), "--store").is_some());
        assert!(unwritable("store", &here.path().join("a/store"), "--store").is_none());
    }
}
