//! What would stop a run, and can be said beforehand.

use crate::output::{Exit, Failure};
use crate::system::Place;
use crate::table::{bytes, grouped};
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

/// What a run writes to one place.
struct Written {
    what: String,
    place: Place,
    /// Bytes, at least.
    needs: u64,
    help: &'static str,
}

impl Room<'_> {
    /// Nothing stops a run that has nothing to do.
    pub fn problems(&self, ahead: &[Ahead]) -> Vec<Failure> {
        let written = self.written(ahead);
        let closed: Vec<Failure> = written.iter().filter_map(unwritable).collect();
        closed.into_iter().chain(self.too_little_memory(ahead)).chain(too_little_disk(written)).collect()
    }

    /// The store, and the folder of every export.
    fn written(&self, ahead: &[Ahead]) -> Vec<Written> {
        let least = |stage: &Ahead| stage.estimate.disk.map_or(0, |disk| disk.min);
        let stored = ahead.iter().filter(|stage| !matches!(stage.stage, Stage::Export(_))).map(least).sum();
        let store = (!ahead.is_empty()).then(|| Written {
            what: "the store".into(),
            place: Place::of(self.store),
            needs: stored,
            help: "name another with --store",
        });
        let export = |stage: &Ahead| {
            let Stage::Export(export) = stage.stage else { return None };
            let help = match Path::new(&export.to).is_absolute() {
                true => "name another in the recipe",
                false => "name another with --out",
            };
            let what = format!("the folder of `{}`", stage.name);
            Some(Written { what, place: Place::of(&self.out.join(&export.to)), needs: least(stage), help })
        };
        store.into_iter().chain(ahead.iter().filter_map(export)).collect()
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
            let (device, [needs, has]) = (&self.device, told_apart(needs, has));
            let message = format!("`{}` needs at least {needs} of memory, {device} has {has}", worst.name);
            Failure::new(Exit::World, message).help(
                "shorter sequences or smaller batches need less, another --device may have more; `--memory 80GB` plans \
                 for a device that has so much",
            )
        })
    }
}

fn unwritable(written: &Written) -> Option<Failure> {
    let Written { what, place, help, .. } = written;
    (!place.writable).then(|| {
        let message = format!("{}: {what} cannot be written to", place.path.display());
        Failure::new(Exit::World, message).help(*help)
    })
}

/// What is written to the same file system is counted together, and told of the first place there.
fn too_little_disk(written: Vec<Written>) -> Vec<Failure> {
    let mut disks: Vec<(Place, u64)> = Vec::new();
    for Written { place, needs, .. } in written {
        match disks.iter_mut().find(|(disk, _)| disk.shares_its_disk_with(&place)) {
            Some((_, sum)) => *sum = sum.saturating_add(needs),
            None => disks.push((place, needs)),
        }
    }
    let lacks = |(place, needs): (Place, u64)| {
        let [needs, free] = told_apart(needs, place.free.filter(|free| needs > *free)?);
        let path = place.path.display();
        Some(
            Failure::new(
                Exit::World,
                format!("the run needs at least {needs} of disk, {path} has {free} free"),
            )
            .help("make room, or name other places with --store and --out"),
        )
    };
    disks.into_iter().filter_map(lacks).collect()
}

/// Two sizes, byte by byte where they would read alike.
fn told_apart(a: u64, b: u64) -> [String; 2] {
    let sizes = [a, b];
    let told = sizes.map(bytes);
    if told[0] == told[1] { sizes.map(|size| format!("{} B", grouped(size))) } else { told }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minic_compiler::plan::{Bounds, Export};

    fn problems(memory: Option<u64>, halved: bool, estimate: Estimate) -> Vec<String> {
        let here = tempfile::tempdir().expect("a folder");
        let device = "a device".to_string();
        let room = Room { device, memory, halved, store: &here.path().join("store"), out: here.path() };
        told(&room, &[(&Stage::Rotate, estimate)])
    }

    fn told(room: &Room, ahead: &[(&Stage, Estimate)]) -> Vec<String> {
        let stage = |(stage, estimate)| Ahead { name: "student", stage, estimate };
        let ahead: Vec<Ahead> = ahead.iter().map(|(a, b)| stage((*a, b))).collect();
        room.problems(&ahead).iter().map(|failure| format!("{failure:?}")).collect()
    }

    fn export(to: &str) -> Stage {
        Stage::Export(Export { model: "student".into(), to: to.into(), dtype: None, shard: None })
    }

    fn disk(bytes: u64) -> Estimate {
        Estimate { disk: Some(Bounds { min: bytes, max: bytes }), ..Estimate::default() }
    }

    #[test]
    fn memory_and_disk_that_are_lacking_are_told_with_both_sizes() {
        let memory = Estimate { memory: Some(Bounds { min: 80_000, max: 90_000 }), ..Estimate::default() };
        assert_eq!(problems(Some(80_000), false, memory.clone()), Vec::<String>::new());
        assert_eq!(problems(None, false, memory.clone()), Vec::<String>::new(), "nobody says");
        assert_eq!(problems(Some(40_000), true, memory.clone()), Vec::<String>::new(), "in 16 bits");
        let told = problems(Some(70_000), false, memory.clone()).concat();
        assert!(told.contains("`student` needs at least 80.0 kB of memory, a device has 70.0 kB"), "{told}");
        let told = problems(Some(79_999), false, memory).concat();
        assert!(
            told.contains("`student` needs at least 80,000 B of memory, a device has 79,999 B"),
            "{told}"
        );
        let told = problems(None, false, disk(1 << 60)).concat();
        assert!(told.contains("the run needs at least 1.15 EB of disk"), "{told}");
    }

    #[test]
    fn exports_to_one_disk_are_counted_together() {
        let here = tempfile::tempdir().expect("a folder");
        let free = Place::of(here.path()).free.expect("the system says");
        let store = here.path().join("store");
        let room =
            Room { device: String::new(), memory: None, halved: false, store: &store, out: here.path() };
        let (one, other) = (export("a"), export(&here.path().join("b").display().to_string()));
        let most = free / 3 * 2;
        assert_eq!(told(&room, &[(&one, disk(most / 4))]), Vec::<String>::new());
        let told = told(&room, &[(&one, disk(most)), (&other, disk(most))]);
        assert!(told.len() == 1 && told[0].contains("of disk"), "{told:?}");
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_told_where_something_is_written_there() {
        let here = tempfile::tempdir().expect("a folder");
        let file = here.path().join("file");
        std::fs::write(&file, "").expect("a file");
        let room = |store, out| Room { device: String::new(), memory: None, halved: false, store, out };
        let none = Vec::<String>::new();
        let (inside, fine) = (file.join("store"), here.path().join("a/store"));
        let (absolute, relative) = (export(&here.path().join("out").display().to_string()), export("out"));
        let ahead = |stage| [(stage, Estimate::default())];
        assert_eq!(told(&room(&inside, &fine), &[]), none, "nothing is to be run");
        assert!(told(&room(&inside, &fine), &ahead(&Stage::Rotate)).concat().contains("--store"));
        assert_eq!(told(&room(&fine, &file), &ahead(&Stage::Rotate)), none, "nothing is exported");
        assert_eq!(told(&room(&fine, &file), &ahead(&absolute)), none, "it is exported elsewhere");
        let found = told(&room(&fine, &file), &ahead(&relative));
        assert!(found.len() == 1 && found[0].contains("--out"), "{found:?}");
    }
}
