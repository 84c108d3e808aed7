use super::*;
use crate::checkpoint::Checkpoint;
use crate::device::cpu::Cpu;
use crate::events::{Event, Observer, Stop, Watch};
use crate::samples::Saves;
use crate::store::{Key, Store};
use minic_compiler::metrics;
use minic_grammar::ast::Declaration;
use std::path::Path;
use std::time::Duration;

/// Stops a pass once so many samples are through.
struct StopAfter(usize, Stop);

impl Observer for StopAfter {
    fn observe(&self, event: &Event) {
        if matches!(event, Event::Progress { done, .. } if *done >= self.0) {
            self.1.set();
        }
    }
}

/// Everything that a calibration can gather of the golden model, and samples for it.
fn everything(samples: u32) -> (WeightSource, Gather, Vec<Vec<u32>>) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/importance"));
    let model = WeightSource::new(Arc::new(Checkpoint::open(folder).unwrap()));
    let program = program("mrecipe 1\nmetric m(x) = l2(mean(abs(x), over = sequence), over = batch)\n");
    let gather = Gather {
        metrics: vec![("mamba.x", Arc::new(program))],
        layers: vec![LayerMetric::Kld, LayerMetric::Cosine],
        covariance: true,
        loss: true,
        ..Gather::default()
    };
    let tokens = (0..samples).map(|i| (0..24).map(|t| (i * 7 + t * 5) % 40).collect()).collect();
    (model, gather, tokens)
}

#[test]
fn a_pass_that_is_stopped_anywhere_goes_on_with_the_same_bits() {
    let (model, gather, tokens) = everything(11);
    let samples: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let quiet = Watch::new("test", &());
    let all = Pass::over(&samples, &quiet);
    let whole = calibrate(&Cpu, &model, &gather, &all).unwrap();
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    for stop_after in 1..samples.len() {
        let key = Key::new("pass", format!("{stop_after}"));
        let saves = Saves { store: &store, key: &key, every: Duration::from_secs(3600) };
        let observer = StopAfter(stop_after, Stop::default());
        let watch = Watch { stop: observer.1.clone(), ..Watch::new("test", &observer) };
        let saves = Some(saves);
        let stopped = calibrate(&Cpu, &model, &gather, &Pass { watch: &watch, saves, ..all.clone() });
        // The last samples in flight may be the last of all.
        if let Err(error) = stopped {
            assert!(matches!(error, RunError::Stopped), "{error}");
            let resumed = calibrate(&Cpu, &model, &gather, &Pass { saves, ..all.clone() }).unwrap();
            assert_eq!(format!("{resumed:?}"), format!("{whole:?}"), "stopped after {stop_after}");
        }
    }
}

/// Parts go through the store's format, as in a run.
#[test]
fn sums_of_parts_join_to_the_bits_of_one_pass() {
    let (model, gather, tokens) = everything(7);
    let samples: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let quiet = Watch::new("test", &());
    let all = Pass::over(&samples, &quiet);
    let whole = calibrate(&Cpu, &model, &gather, &all).unwrap();
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let items = Item::all(&gather);
    for ends in [vec![7], vec![3, 7], vec![0, 1, 6, 6, 7], vec![1, 2, 3, 4, 5, 6, 7]] {
        let mut begin = 0;
        let mut joined: Vec<Option<Sum>> = items.iter().map(|_| None).collect();
        for &end in &ends {
            let pass = Pass { range: begin..end, ..all.clone() };
            let key = Key::new("part", format!("{begin} {end}"));
            store.put(&key, &sums(&Cpu, &model, &gather, &pass).unwrap()).unwrap();
            let read: Vec<Sum> = store.get(&key).unwrap().unwrap();
            for ((item, joined), right) in items.iter().zip(&mut joined).zip(read) {
                *joined = Some(match joined.take() {
                    Some(left) => left.join(right, item).expect("neighbours"),
                    None => right,
                });
            }
            begin = end;
        }
        let mut gathered = Gathered::default();
        for (item, sum) in items.iter().zip(joined) {
            sum.unwrap().finish(item, &mut gathered).unwrap();
        }
        assert_eq!(format!("{gathered:?}"), format!("{whole:?}"), "{ends:?}");
    }
}

fn program(recipe: &str) -> Program {
    match minic_grammar::parse(recipe).0.declarations.first() {
        Some(Declaration::Metric(metric)) => metrics::compile(metric).expect("compiles"),
        other => panic!("{other:?}"),
    }
}
