//! Sessions of the Vulkan device beside those of the CPU.

use super::*;
use crate::device::cpu::Cpu;
use crate::testing;
use minic_compiler::dim::Dim;
use minic_compiler::graph::{Graph, Masks};
use minic_compiler::model::ModelDesc;
use minic_compiler::schedule::schedule;

fn hybrid() -> ModelDesc {
    testing::desc(&testing::config())
}

fn weights(desc: &ModelDesc) -> Weights {
    crate::synth::weights(desc, 3).unwrap()
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|t| (t * 37 + t / 3) % 250).collect()
}

fn run(device: &dyn Device, graph: &Graph, weights: &Weights, tokens: &[u32]) -> Outputs {
    let schedule = Arc::new(schedule(graph).unwrap());
    let mut session = device.prepare(schedule, weights.clone()).unwrap();
    session.run(&Bindings::of(tokens)).unwrap()
}

fn logits(device: &dyn Device, precision_of: &str, positions: usize) -> Vec<f32> {
    let desc = hybrid();
    let graph = forward::logits(&desc, positions, Masks::default()).unwrap();
    let outputs = run(device, &graph, &weights(&desc), &tokens(positions));
    let values = outputs[forward::output::LOGITS].f32().to_vec();
    assert_eq!(values.len(), positions * desc.size(Dim::VocabSize), "{precision_of}");
    values
}

fn off(one: &[f32], other: &[f32]) -> f32 {
    let largest = one.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn logits_are_those_of_the_cpu_up_to_the_rounding_of_factors() {
    let Some(device) = testing::vulkan_device() else { return };
    let expected = logits(&Cpu, "cpu", 150);
    for (precision, tolerance) in [(Precision::F32, 2e-6), (Precision::F16, 3e-3), (Precision::Bf16, 2e-2)] {
        let device = Vulkan::new(device.gpu().clone(), precision);
        let off = off(&expected, &logits(&device, precision.name(), 150));
        assert!(off < tolerance, "{precision:?}: {off:e}");
        assert_eq!(off > 1e-5, precision != Precision::F32, "{precision:?}: {off:e}");
        let exact = self::off(&expected, &logits(device.exact(), precision.name(), 150));
        assert!(exact < 2e-6, "{exact:e}");
    }
}

#[test]
fn the_same_sample_gives_the_same_bits_again() {
    let Some(device) = testing::vulkan_device() else { return };
    let desc = hybrid();
    let graph = forward::logits(&desc, 70, Masks::default()).unwrap();
    let mut session = device.prepare(Arc::new(schedule(&graph).unwrap()), weights(&desc)).unwrap();
    let (one, other) = (tokens(70), tokens(71));
    let mut bits = |tokens: &[u32]| session.run(&Bindings::of(tokens)).unwrap();
    let first = bits(&one);
    assert_ne!(first, bits(&other[1..]));
    assert_eq!(first, bits(&one));
}

#[test]
fn sessions_share_what_is_uploaded_and_give_it_back() {
    let Some(device) = testing::vulkan_device() else { return };
    let desc = hybrid();
    let graph = forward::logits(&desc, 16, Masks::default()).unwrap();
    let schedule = Arc::new(schedule(&graph).unwrap());
    let held = || device.gpu().tensors.bytes();
    let weights = weights(&desc);
    let first = device.prepare(schedule.clone(), weights.clone()).unwrap();
    let one = held();
    let second = device.prepare(schedule.clone(), weights.clone()).unwrap();
    assert!(held() - one + schedule.weight_bytes() <= one, "weights are there once");
    drop((first, second));
    assert_eq!(held(), 0);
}

#[test]
fn tensors_of_many_pieces_come_back_as_they_were() {
    let Some(device) = testing::vulkan_device() else { return };
    // Five pieces and a part of one, in pages that are no multiples of pieces.
    let (len, page) = (23_000_001, 7_000_003);
    let data: Vec<f32> = (0..len).map(|i| (i % 16_777_213) as f32).collect();
    let pages = buffers::Pages::new(device.gpu(), len, page).unwrap();
    pages.upload(device.gpu(), &data).unwrap();
    assert!(pages.download(device.gpu()).unwrap() == data);
}

#[test]
fn what_does_not_fit_is_told_with_what_would() {
    if testing::vulkan(None).is_none() {
        return;
    }
    let desc = hybrid();
    let graph = forward::logits(&desc, 200, Masks::default()).unwrap();
    let schedule = Arc::new(schedule(&graph).unwrap());
    let with = |memory: u64| {
        let limits = Limits { memory: Some(memory), ..Limits::default() };
        let device = Vulkan::new(Arc::new(Gpu::open(0, limits).unwrap()), Precision::F32);
        device.prepare(schedule.clone(), weights(&desc)).err()
    };
    assert!(with(1 << 40).is_none());
    let half = schedule.weight_bytes() + schedule.lane_bytes() / 2;
    match with(half) {
        Some(DeviceError::DeviceMemory { bytes, has, fits }) => {
            assert!(bytes > has && has == half && (60..=100).contains(&fits), "{bytes} {has} {fits}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(with(1000), Some(DeviceError::DeviceMemory { fits: 0, .. })));
}

#[test]
fn a_device_that_was_lost_says_so_to_everybody() {
    let Some(device) = testing::vulkan_device() else { return };
    let desc = hybrid();
    let graph = forward::logits(&desc, 16, Masks::default()).unwrap();
    let schedule = Arc::new(schedule(&graph).unwrap());
    let mut session = device.prepare(schedule.clone(), weights(&desc)).unwrap();
    device.gpu().lose();
    let error = session.run(&Bindings::of(&tokens(16))).unwrap_err();
    assert!(matches!(error, DeviceError::Lost { .. }) && error.to_string().contains("goes on"), "{error}");
    let error = device.prepare(schedule, weights(&desc)).err();
    assert!(matches!(error, Some(DeviceError::Lost { .. })));
}

/// What is around the matrices of the kernel for matrix units: tiles, buffers, barriers, scales and edges. When the device is
/// opened, it is compared with the scalar twin, as on hardware.
#[test]
fn products_of_emulated_matrices_are_those_of_the_twin() {
    if testing::vulkan(None).is_none_or(|gpu| !gpu.caps.f16) {
        return;
    }
    let limits = Limits { emulated: true, ..Limits::default() };
    let gpu = Arc::new(Gpu::open(0, limits).unwrap());
    assert_eq!(gpu.distrusted, None);
    assert!(is_cooperative(&gpu.caps, Precision::F16));
    for size in [[1, 1, 1], [128, 128, 32], [130, 300, 100], [257, 129, 513]] {
        assert_eq!(selftest::fault(&gpu, &gpu.caps, Precision::F16, size), None, "{size:?}");
    }
    let device = Vulkan::new(gpu, Precision::F16);
    let off = off(&logits(&Cpu, "cpu", 150), &logits(&device, "f16", 150));
    assert!((1e-5..3e-3).contains(&off), "{off:e}");
}

/// As wgpu shows an H200, by its driver's public reports.
fn hopper() -> Caps {
    Caps {
        subgroup: (32, 32),
        f16: true,
        cooperative: vec![[16, 16, 16]],
        workgroup_memory: 48 << 10,
        invocations: 1024,
        binding: (1 << 31) - 4,
        buffer: 1 << 32,
        alignment: 16,
        ..Caps::least()
    }
}

/// Planned and checked by naga, not run: the published 8B teacher and its 4B student in one H200.
#[test]
#[expect(clippy::print_stdout, reason = "figures for `--nocapture`")]
fn a_published_distillation_is_planned_into_one_gpu() {
    const CONFIG: &str = include_str!("../../../../compiler/tests/configs/Nemotron-H-8B-Base-8K.json");
    let teacher = families::describe(&config::parse(CONFIG).unwrap()).unwrap();
    let sizes = [(Dim::MambaNumHeads, 112), (Dim::FfnHiddenSize, 12_288), (Dim::HiddenSize, 3072)];
    let student = teacher.resized(&sizes.into(), &(0..teacher.layers.len()).collect::<Vec<_>>());
    let objective = Objective::forward_kl();
    let graph = forward::training(&student, Some(&teacher), &objective, 8192, 1, Recompute::Blocks);
    let schedule = schedule(&graph.unwrap().graph).unwrap();
    for precision in [Precision::F32, Precision::F16] {
        let planned = lane::plan(&hopper(), precision, &schedule).unwrap();
        let memory = planned.memory(&schedule);
        let total = memory.total() + schedule.average_bytes();
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        println!(
            "{}: {} dispatches of {} steps, weights {:.1} GiB, averages {:.1}, a lane {:.1}, scratch {:.1}, in all {:.1}",
            precision.name(),
            planned.dispatches.len(),
            schedule.steps.len(),
            gib(memory.weights),
            gib(schedule.average_bytes()),
            gib(memory.lanes),
            gib(memory.scratch),
            gib(total)
        );
        let mut seen = BTreeSet::new();
        let prepared = planned.prepared.iter().flat_map(|of| &of.dispatches);
        for dispatch in planned.dispatches.iter().chain(prepared) {
            assert!(dispatch.groups.iter().all(|n| (1..=65535).contains(n)), "{dispatch:?}");
            assert!(dispatch.binds.len() <= 8 && dispatch.params.len() <= 64, "{}", dispatch.name);
            for mat in &dispatch.binds {
                let words = mat.elem.words();
                let (first, last) = (mat.at * words, (mat.at + mat.span().max(1)) * words - 1);
                let page = mat.page.saturating_mul(words);
                assert_eq!(first / page, last / page, "{} crosses a page: {mat:?}", dispatch.name);
                assert!(4 * (mat.span() * words + 4) <= hopper().binding, "{}: {mat:?}", dispatch.name);
            }
            if seen.insert(&dispatch.text) {
                crate::shader::check(dispatch, &hopper()).and_then(|checked| checked.words()).unwrap();
            }
        }
        assert!(total < 1 << 37, "{} GiB", gib(total));
    }
}

/// Forwards and in reverse, with bindings so small that most operands are cut.
#[test]
fn whole_models_stay_the_same_with_small_bindings() {
    const SEQUENCE: usize = 600;
    let desc = hybrid();
    let graph = forward::training(&desc, None, &Objective::cross_entropy(), SEQUENCE, 1, Recompute::Cheap);
    let schedule = Arc::new(schedule(&graph.unwrap().graph).unwrap());
    let tokens = tokens(SEQUENCE);
    let run = |binding| {
        let limits = Limits { binding, ..Limits::default() };
        let device = Vulkan::new(Arc::new(Gpu::open(0, limits).unwrap()), Precision::F32);
        let steps = dispatches(&device.gpu().caps, Precision::F32, &schedule).unwrap();
        let state = TrainingState { weights: weights(&desc), ..TrainingState::default() };
        let mut training = device.train(schedule.clone(), Weights::default(), state, 1).unwrap();
        training.gradients(&[Bindings::of(&tokens)]).unwrap();
        let of =
            |w: &minic_compiler::model::Weight| training.gradient(&w.name).unwrap().unwrap().into_owned();
        let gradients: Vec<Vec<f32>> = desc.weights().iter().map(of).collect();
        (steps.iter().map(Vec::len).sum::<usize>(), gradients)
    };
    if testing::vulkan(None).is_none() {
        return;
    }
    let ((few, whole), (many, cut)) = (run(None), run(Some(1 << 14)));
    assert!(many > 2 * few, "{few} dispatches, {many} of pieces");
    for ((weight, a), b) in desc.weights().iter().zip(&whole).zip(&cut) {
        let off = off(a, b);
        assert!(off < 2e-5, "{weight}: {off:e}");
    }
}
