//! Gradients of whole models against differences in f64, and trainings that end in the same bits.

use super::*;
use crate::data::Samples;
use crate::device::cpu::Cpu;
use crate::device::{DeviceError, vulkan::Vulkan};
use crate::events::{Event, Observer, Stop};
use crate::kernels::{self, Exact};
use crate::shader::Precision;
use crate::store::{Key, Store};
use crate::synth;
use crate::testing;
use minic_compiler::forward::Written;
use minic_compiler::graph::{Graph, Op};
use minic_compiler::graph::{HeadLoss, StreamLoss, TopK};
use minic_compiler::losses::Term;
use minic_compiler::model::Weight;
use serde_json::json;
use std::cell::Cell;

/// The graph in f64 by the kernels' references: what every node is, and the gradients that were added up.
struct Interpreted {
    values: Vec<Vec<f64>>,
    gradients: BTreeMap<String, Vec<f64>>,
}

type Tensors = BTreeMap<String, Vec<f64>>;

fn interpret(graph: &Graph, weights: &Tensors, inputs: &Tensors, tokens: &[u32]) -> Interpreted {
    let mut values: Vec<Vec<f64>> = Vec::new();
    let mut gradients = BTreeMap::new();
    for id in graph.order() {
        let node = graph.node(id);
        let operands = graph.operands(id);
        let value = match &node.op {
            Op::Tokens => Vec::new(),
            Op::Weight { name } => weights[name].clone(),
            Op::Input { name } => inputs[name].clone(),
            Op::Gradient { name } => {
                gradients.entry(name.clone()).or_insert_with(|| vec![0.0; node.len()]);
                Vec::new()
            }
            Op::Part { name } => {
                let whole = graph.node(operands[0]);
                let (offset, _) = whole.shape[1].run(name).unwrap();
                let (cols, width) = (node.matrix().1, whole.matrix().1);
                let rows = values[operands[0].index()].chunks(width);
                rows.flat_map(|row| row[offset..offset + cols].to_vec()).collect()
            }
            op => {
                let exact = |id: &minic_compiler::graph::ValueId| {
                    let node = graph.node(*id);
                    let (rows, cols) = node.matrix();
                    match &node.op {
                        Op::Tokens => Exact::U32(tokens.to_vec()),
                        Op::Gradient { name } => Exact::F64 { data: gradients[name].clone(), rows, cols },
                        _ => Exact::F64 { data: values[id.index()].clone(), rows, cols },
                    }
                };
                let given: Vec<Exact> = operands.iter().map(exact).collect();
                let kernel = kernels::find(op).unwrap_or_else(|| panic!("no kernel for {}", op.name()));
                let mut value = (kernel.reference)(op, &given);
                if op.accumulates() {
                    let Op::Gradient { name } = &graph.node(*operands.last().unwrap()).op else { panic!() };
                    gradients.insert(name.clone(), value.split_off(node.len()));
                }
                value
            }
        };
        values.push(value);
    }
    Interpreted { values, gradients }
}

/// The weighted loss of a sample.
fn exact_loss(training: &forward::Training, weights: &[f64], interpreted: &Interpreted) -> f64 {
    let of = |reading: &Reading| {
        let (_, id) = training.graph.outputs.iter().find(|(name, _)| *name == reading.output).unwrap();
        let width = training.graph.node(*id).matrix().1;
        let column = interpreted.values[id.index()].iter().skip(reading.column).step_by(width);
        column.sum::<f64>() * reading.scale * weights[reading.term]
    };
    training.readings.iter().map(of).sum()
}

fn term(weight: f64, loss: &'static str, term: Term) -> LossTerm {
    LossTerm { weight, loss, arguments: BTreeMap::new(), term, span: Default::default() }
}

fn head(weight: f64, loss: HeadLoss) -> LossTerm {
    term(weight, "head", Term::Head(loss))
}

fn top(weight: f64, k: usize, temperature: f64) -> LossTerm {
    head(weight, HeadLoss::TopK(TopK { k, temperature }))
}

/// What the teacher's targets are by the reference, as they are kept: in f32.
fn exact_targets(teacher: &ModelDesc, weights: &Weights, objective: &Objective, tokens: &[u32]) -> Tensors {
    let of = |targets: TopK| {
        let graph = forward::written(teacher, tokens.len(), &Written::Targets(targets)).unwrap();
        let interpreted = interpret(&graph, &exact(weights), &Tensors::new(), tokens);
        let values = interpreted.values[graph.outputs[0].1.index()].iter().map(|x| f64::from(*x as f32));
        (targets.input(), values.collect())
    };
    objective.targets(teacher.size(Dim::VocabSize)).into_iter().map(of).collect()
}

/// Every loss at once.
fn all_losses() -> Vec<LossTerm> {
    let streams =
        |loss| Term::Streams(minic_compiler::losses::Streams { loss, layers: None, teacher_layers: None });
    vec![
        head(0.7, HeadLoss::ForwardKl { temperature: 2.0 }),
        head(0.2, HeadLoss::ReverseKl { temperature: 1.0 }),
        head(0.3, HeadLoss::Js { beta: 0.4, temperature: 1.5 }),
        head(0.5, HeadLoss::CrossEntropy),
        top(0.6, 5, 1.5),
        top(0.3, 40, 1.0),
        term(0.4, "mse", streams(StreamLoss::Mse)),
        term(0.6, "cosine", streams(StreamLoss::Cosine)),
    ]
}

/// Values as training finds them: no two alike, norms around one, decays of every speed.
fn tensors(desc: &ModelDesc, seed: u64) -> Weights {
    let mut weights = synth::weights(desc, seed).unwrap();
    let mut random = crate::random::SplitMix64::new(seed);
    for weight in desc.weights() {
        let matrix = weight.shape.len() == 2;
        for value in weights.get_mut(&weight.name).unwrap() {
            let jitter = random.below(1 << 16) as f32 / 65536.0 - 0.5;
            *value = if matrix { *value * 12.0 } else { *value + 0.4 * jitter };
        }
    }
    weights
}

fn exact(weights: &Weights) -> Tensors {
    let wide = |name: &str| weights.get(name).unwrap().iter().map(|x| f64::from(*x)).collect();
    weights.names().map(|name| (name.to_string(), wide(name))).collect()
}

fn hybrid() -> ModelDesc {
    testing::desc(&testing::config())
}

/// Biases everywhere, a tied head, and a clamp of dt that some positions meet.
fn mamba2() -> ModelDesc {
    testing::desc(&json!({
        "model_type": "mamba2", "hidden_size": 12, "num_heads": 4, "head_dim": 6, "expand": 2, "n_groups": 2,
        "state_size": 5, "conv_kernel": 4, "num_hidden_layers": 2, "vocab_size": 260, "use_bias": true,
        "use_conv_bias": true, "tie_word_embeddings": true, "time_step_limit": [0.4, 1.1]
    }))
}

fn tokens(n: usize, seed: u64) -> Vec<u32> {
    let mut random = crate::random::SplitMix64::new(seed);
    (0..n).map(|_| random.below(256) as u32).collect()
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

/// Gradients of a device and of f64 references, and the loss along two directions of every weight.
#[expect(clippy::print_stdout, reason = "a table for `--nocapture`")]
fn check_gradients(on: &dyn Device, desc: &ModelDesc, objective: &Objective) {
    const SEQUENCE: usize = 37;
    let teacher = desc.clone();
    let (own, beside) = (tensors(desc, 1), tensors(&teacher, 2));
    let training = forward::training(desc, Some(&teacher), objective, SEQUENCE, 1, Recompute::Cheap).unwrap();
    let tokens = tokens(SEQUENCE, 3);
    let schedule = Arc::new(schedule::schedule(&training.graph).unwrap());
    let frozen = beside.scoped(TEACHER);
    let state = TrainingState { weights: own.clone(), ..TrainingState::default() };
    let mut device = on.train(schedule, frozen.clone(), state, 1).unwrap();
    let inputs = exact_targets(&teacher, &beside, objective, &tokens);
    let narrow = inputs.iter().map(|(name, x)| (name, x.iter().map(|x| *x as f32).collect::<Vec<f32>>()));
    let narrow: Vec<_> = narrow.collect();
    let given = narrow.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    device.gradients(&[Bindings { tokens: &tokens, inputs: given }]).unwrap();
    let wide = exact(&own.clone().with(&frozen));
    let interpreted = interpret(&training.graph, &wide, &inputs, &tokens);
    let loss = |weights: &Tensors| {
        let interpreted = interpret(&training.graph, weights, &inputs, &tokens);
        exact_loss(&training, &objective.weights(), &interpreted)
    };
    for weight in desc.weights() {
        let expected = &interpreted.gradients[&weight.name];
        let found = device.gradient(&weight.name).unwrap().unwrap();
        let size = norm(expected.iter().copied());
        let off = norm(expected.iter().zip(found.iter()).map(|(e, f)| e - f64::from(*f))) / size;
        let along = differences(&weight, expected, &wide, &loss);
        println!("{:48} |g| {size:9.2e}  f32 off {off:8.1e}  differences off {along:8.1e}", weight.name);
        assert!(size > 1e-9, "{} has no gradient", weight.name);
        assert!(off < 1e-4, "{}: {off:e} off in norm", weight.name);
        assert!(along < 1e-5, "{}: {along:e} off the difference", weight.name);
    }
}

/// How far central differences are off along the gradient itself and along a direction that is drawn.
fn differences(weight: &Weight, gradient: &[f64], at: &Tensors, loss: &impl Fn(&Tensors) -> f64) -> f64 {
    let mut random = crate::random::SplitMix64::new(9);
    let drawn: Vec<f64> = gradient.iter().map(|_| random.below(1 << 20) as f64 / 5e5 - 1.0).collect();
    let size = norm(gradient.iter().copied());
    let mut worst = 0.0f64;
    for direction in [gradient.to_vec(), drawn] {
        let length = norm(direction.iter().copied());
        let step = 1e-5;
        let moved = |sign: f64| {
            let mut moved = at.clone();
            let values = moved.get_mut(&weight.name).unwrap();
            values.iter_mut().zip(&direction).for_each(|(x, d)| *x += sign * step * d / length);
            loss(&moved)
        };
        let difference = (moved(1.0) - moved(-1.0)) / (2.0 * step);
        let expected: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d / length).sum();
        worst = worst.max((difference - expected).abs() / size);
    }
    worst
}

#[test]
fn gradients_of_a_hybrid_are_the_slopes_of_every_loss() {
    check_gradients(&Cpu, &hybrid(), &Objective::new(&all_losses(), &[0, 1, 2]));
    check_gradients(&Cpu, &hybrid(), &Objective::cross_entropy());
}

#[test]
fn gradients_of_mamba2_are_the_slopes_of_every_loss() {
    check_gradients(&Cpu, &mamba2(), &Objective::new(&all_losses(), &[0, 1]));
    check_gradients(&Cpu, &mamba2(), &Objective::cross_entropy());
}

#[test]
fn gradients_on_a_vulkan_device_are_those_of_the_references() {
    let Some(device) = testing::vulkan_device() else { return };
    check_gradients(&device, &hybrid(), &Objective::new(&all_losses(), &[0, 1, 2]));
    check_gradients(&device, &mamba2(), &Objective::new(&all_losses(), &[0, 1]));
}

#[test]
fn what_is_computed_again_changes_no_bit() {
    let desc = hybrid();
    let objective = Objective::cross_entropy();
    let samples = [tokens(24, 1), tokens(24, 2), tokens(24, 3)];
    let samples: Vec<Bindings> = samples.iter().map(|tokens| Bindings::of(tokens)).collect();
    let gradients = |recompute, lanes| {
        let graph = forward::training(&desc, None, &objective, 24, 3, recompute).unwrap().graph;
        let schedule = Arc::new(schedule::schedule(&graph).unwrap());
        let state = TrainingState { weights: tensors(&desc, 1), ..TrainingState::default() };
        let mut device = Cpu.train(schedule, Weights::default(), state, lanes).unwrap();
        device.gradients(&samples).unwrap();
        desc.weights().iter().map(|w| device.gradient(&w.name).unwrap().unwrap().to_vec()).collect::<Vec<_>>()
    };
    let whole = gradients(Recompute::Nothing, 2);
    assert_eq!(whole, gradients(Recompute::Cheap, 2));
    assert_eq!(whole, gradients(Recompute::Blocks, 2));
    assert_ne!(whole, gradients(Recompute::Nothing, 3), "lanes decide bits, so that they are no setting");
}

fn phase(tokens: u64, batch: usize, sequence: usize, loss: Vec<LossTerm>) -> hir::Phase {
    hir::Phase {
        name: format!("{sequence}"),
        loss,
        optimizer: hir::Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: Some(1.0) },
        rate: hir::Rate { shape: "cosine", peak: 3e-3, floor: 1e-4, warmup: 2, decay: None },
        batch,
        tokens,
        sequence: Some(sequence),
        data: None,
        span: Default::default(),
    }
}

/// Of [`distilled`], and more than there are windows of one kind.
const UPDATES: usize = 10;

/// The key of targets where nothing reads any.
fn unshelved(_: &Phase, written: &Written) -> Result<Key, RunError> {
    panic!("{written} are read by no loss")
}

/// Stops after so many updates.
struct StopAfter(usize, Stop);

impl Observer for StopAfter {
    fn observe(&self, event: &Event) {
        if matches!(event, Event::Progress { done, total: UPDATES, .. } if *done >= self.0) {
            self.1.set();
        }
    }
}

/// Two phases of two lengths with a teacher and held-out data; weights and figures in bits.
fn distilled(saves: Option<Saves>, stop_after: usize) -> Result<String, RunError> {
    let observer = StopAfter(stop_after, Stop::default());
    let watch = Watch { stop: observer.1.clone(), ..Watch::new("test", &observer) };
    let (weights, trained) = distil(&Cpu, saves, &watch, Way::default())?;
    Ok(in_bits(&weights, &trained))
}

fn in_bits(weights: &Weights, trained: &Trained) -> String {
    let bits: Vec<Vec<u32>> =
        weights.names().map(|n| weights.get(n).unwrap().iter().map(|x| x.to_bits()).collect()).collect();
    format!("{trained:?} {bits:?}")
}

/// How far a training goes, and whether its teacher runs beside it.
#[derive(Clone, Copy, Default)]
struct Way {
    until: Option<u64>,
    shows: bool,
    /// What was written down is taken out of the store again.
    forgets: bool,
}

fn distil(
    device: &dyn Device,
    saves: Option<Saves>,
    watch: &Watch,
    way: Way,
) -> Result<(Weights, Trained), RunError> {
    let place = tempfile::tempdir().unwrap();
    let apart = Store::open(place.path()).unwrap();
    let desc = hybrid();
    let phases = [phase(6 * 3 * 16, 3, 16, all_losses()), phase(4 * 2 * 24, 2, 24, all_losses())];
    let samples = |sequence: usize| Arc::new(Samples::of(sequence, tokens(sequence * 7, 5)));
    let mut feeds = [Feed::new(samples(16), 1), Feed::new(samples(24), 1)];
    let held: Vec<Vec<u32>> = (0..3).map(|i| tokens(16, 50 + i)).collect();
    let key = |phase: &Phase, written: &Written| {
        Ok(Key::new("targets", format!("{written} {}", phase.feed))
            .field("of", written.to_string())
            .field("feed", phase.feed))
    };
    let store = saves.as_ref().map_or(&apart, |saves| saves.store);
    let job = Job {
        device,
        student: &desc,
        teacher: Some(Teacher { desc: &desc, weights: &|_| Ok(tensors(&desc, 2)) }),
        origins: vec![0, 1, 2],
        shelf: Shelf { store, key: &key, block: 1000 },
        phases: vec![
            Phase { phase: &phases[0], feed: 0, first: 0, sequence: 16, updates: 6 },
            Phase { phase: &phases[1], feed: 1, first: 10, sequence: 24, updates: 4 },
        ],
        heldout: Some(Heldout {
            windows: held.iter().map(Vec::as_slice).collect(),
            answers: None,
            every: 100,
        }),
        until: way.until,
        most: None,
        shows: way.shows,
    };
    let (weights, trained) = job.train(&mut feeds, || Ok(tensors(&desc, 1)), watch, saves, |_| Ok(None))?;
    if way.forgets {
        job.forget(&mut feeds, 0, watch)?;
    }
    if way.until.is_some() {
        return Ok((weights, trained));
    }
    assert_eq!((trained.updates, trained.tokens), (10, 6 * 3 * 16 + 4 * 2 * 24));
    assert!(trained.heldout.len() >= 3 && trained.heldout.iter().all(|row| row.heldout_kl.is_some()));
    Ok((weights, trained))
}

#[test]
fn interrupted_trainings_end_in_the_bits_of_uninterrupted_ones() {
    let whole = distilled(None, usize::MAX).unwrap();
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    for stop_after in 1..UPDATES {
        let key = Key::new("training", "one").field("stop after", stop_after);
        let saves = Saves { store: &store, key: &key, every: Duration::from_secs(3600) };
        assert!(matches!(distilled(Some(saves), stop_after), Err(RunError::Stopped)), "{stop_after}");
        assert_eq!(distilled(Some(saves), usize::MAX).unwrap(), whole, "stopped after {stop_after}");
    }
    // Stopped at every update.
    let key = Key::new("training", "all");
    let saves = Saves { store: &store, key: &key, every: Duration::ZERO };
    let stops = (1..UPDATES).filter(|n| distilled(Some(saves), *n).is_err()).count();
    assert_eq!((stops, distilled(Some(saves), usize::MAX).unwrap()), (UPDATES - 1, whole));
}

#[test]
fn a_teacher_that_is_written_down_once_trains_in_the_same_bits_by_stages() {
    let whole = distilled(None, usize::MAX).unwrap();
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let quiet = Watch::new("test", &());
    for student in ["one", "other"] {
        let key = Key::new("training", student).field("student", student);
        let saves = Saves { store: &store, key: &key, every: Duration::from_secs(3600) };
        for until in [3, 6, 8] {
            let way = Way { until: Some(until), shows: true, forgets: student == "other" };
            let (weights, trained) = distil(&Cpu, Some(saves), &quiet, way).unwrap();
            assert_eq!((trained.updates, weights.names().count()), (until, hybrid().weights().len()));
        }
        let way = Way { shows: true, until: None, forgets: student == "other" };
        let (weights, trained) = distil(&Cpu, Some(saves), &quiet, way).unwrap();
        assert_eq!(in_bits(&weights, &trained), whole);
        // What was written down is there for the other student, and gone after it.
        let hidden = store.list().unwrap().iter().filter(|e| e.header.subject.contains("hidden")).count();
        assert_eq!(hidden > 0, student == "one");
    }
}

/// The largest distance of two models' weights, by the size of the step from `begin` that the first has made.
fn apart(begin: &Weights, one: &Weights, other: &Weights) -> f64 {
    let of = |name: &str| {
        let [begin, one, other] = [begin, one, other].map(|weights| weights.get(name).unwrap());
        let between = |a: &[f32], b: &[f32]| norm(a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
        between(one, other) / between(one, begin)
    };
    begin.names().map(of).fold(0.0, f64::max)
}

#[test]
#[expect(clippy::print_stdout, reason = "figures for `--nocapture`")]
fn ten_updates_on_a_vulkan_device_end_where_those_of_the_cpu_do() {
    let Some(device) = testing::vulkan_device() else { return };
    let quiet = Watch::new("test", &());
    let begin = tensors(&hybrid(), 1);
    let (on_cpu, of_cpu) = distil(&Cpu, None, &quiet, Way::default()).unwrap();
    // Of what the updates have changed, and of a loss.
    for (precision, most, of_loss) in
        [(Precision::F32, 1e-5, 1e-5), (Precision::F16, 0.02, 1e-3), (Precision::Bf16, 0.1, 1e-2)]
    {
        let device = Vulkan::new(device.gpu().clone(), precision);
        let (on_device, of_device) = distil(&device, None, &quiet, Way::default()).unwrap();
        let off = apart(&begin, &on_cpu, &on_device);
        let shows = Way { shows: true, ..Way::default() };
        let (shown, _) = distil(&device, None, &quiet, shows).unwrap();
        let off = off.max(apart(&begin, &on_cpu, &shown));
        println!("{}: off by {off:.1e} of what ten updates have changed", precision.name());
        assert!(off < most, "{off:e}");
        for (a, b) in of_cpu.heldout.iter().zip(&of_device.heldout) {
            let losses = [(a.heldout_loss, b.heldout_loss), (a.heldout_kl.unwrap(), b.heldout_kl.unwrap())];
            assert!(losses.iter().all(|(a, b)| (a - b).abs() < of_loss * a.abs()), "{losses:?}");
        }
    }
}

/// Takes the device away after so many updates.
struct LoseAfter<'a>(usize, &'a Vulkan);

impl Observer for LoseAfter<'_> {
    fn observe(&self, event: &Event) {
        if matches!(event, Event::Progress { done, total: UPDATES, .. } if *done == self.0) {
            self.1.gpu().lose();
        }
    }
}

#[test]
fn a_training_goes_on_after_its_device_was_lost() {
    let Some(device) = testing::vulkan_device() else { return };
    let bits = |(weights, trained): (Weights, Trained)| {
        let of = |n| weights.get(n).unwrap().iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        (weights.names().map(of).collect::<Vec<_>>(), trained)
    };
    let whole = bits(distil(&device, None, &Watch::new("test", &()), Way::default()).unwrap());
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let key = Key::new("training", "lost");
    let saves = Saves { store: &store, key: &key, every: Duration::ZERO };
    for after in [2, 7] {
        let Some(device) = testing::vulkan_device() else { return };
        let observer = LoseAfter(after, &device);
        let error =
            distil(&device, Some(saves), &Watch::new("test", &observer), Way::default()).err().unwrap();
        assert!(matches!(error, RunError::Device(DeviceError::Lost { .. })), "{error}");
        assert_eq!(error.kind(), crate::error::Kind::World);
    }
    // Another session of the same device ends in the same bits.
    assert_eq!(bits(distil(&device, Some(saves), &Watch::new("test", &()), Way::default()).unwrap()), whole);
}

#[test]
fn any_number_of_threads_trains_the_same_bits() {
    let runs = [1, 2, 3, 7].map(|n| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        pool.install(|| distilled(None, usize::MAX).unwrap())
    });
    assert!(runs.iter().all(|run| *run == runs[0]));
}

#[test]
fn training_makes_the_loss_small() {
    let desc = hybrid();
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let phases = [phase(60 * 4 * 16, 4, 16, vec![head(1.0, HeadLoss::CrossEntropy)])];
    let mut feeds = [Feed::new(Arc::new(Samples::of(16, tokens(16 * 4, 5))), 1)];
    let windows = [tokens(64, 5)];
    let windows: Vec<&[u32]> = windows[0].chunks(16).collect();
    let job = Job {
        device: &Cpu,
        student: &desc,
        teacher: None,
        shelf: Shelf { store: &store, key: &unshelved, block: 0 },
        origins: vec![0, 1, 2],
        phases: vec![Phase { phase: &phases[0], feed: 0, first: 0, sequence: 16, updates: 60 }],
        heldout: Some(Heldout { windows, answers: None, every: 1 << 40 }),
        until: None,
        most: None,
        shows: false,
    };
    let begin = || Ok(synth::weights(&desc, 1).unwrap());
    let (_, trained) = job.train(&mut feeds, begin, &Watch::new("test", &()), None, |_| Ok(None)).unwrap();
    let [first, last] = [0, 1].map(|i| trained.heldout[i].heldout_loss);
    assert!(trained.heldout.len() == 2 && first > 5.0 && last < 0.8 * first, "{first} -> {last}");
}

#[test]
fn the_first_value_that_is_not_finite_is_named_and_the_model_before_it_kept() {
    let desc = hybrid();
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let phases = [phase(4 * 2 * 16, 2, 16, vec![head(1.0, HeadLoss::CrossEntropy)])];
    let mut feeds = [Feed::new(Arc::new(Samples::of(16, tokens(16 * 9, 5))), 1)];
    let job = Job {
        device: &Cpu,
        student: &desc,
        teacher: None,
        shelf: Shelf { store: &store, key: &unshelved, block: 0 },
        origins: vec![0, 1, 2],
        phases: vec![Phase { phase: &phases[0], feed: 0, first: 0, sequence: 16, updates: 4 }],
        heldout: None,
        until: None,
        most: None,
        shows: false,
    };
    let mut weights = tensors(&desc, 1);
    weights.get_mut("backbone.layers.1.mixer.up_proj.weight").unwrap()[7] = 3e38;
    let key = Key::new("training", "bad");
    let saves = Saves { store: &store, key: &key, every: Duration::from_secs(3600) };
    let quiet = Watch::new("student", &());
    let error = job.train(&mut feeds, || Ok(weights), &quiet, Some(saves), |_| Ok(None)).err().unwrap();
    let told = error.to_string();
    assert!(told.contains("`student`: update 1: ") && told.contains("layers.1.mixer"), "{told}");
    assert_eq!(error.kind(), crate::error::Kind::Proof);
    let (state, trained) = save::load(&saves).unwrap().unwrap();
    assert_eq!((trained.updates, state.weights.names().count()), (0, desc.weights().len()));
}

#[test]
fn a_held_out_loss_that_is_not_finite_ends_the_training_and_keeps_the_model() {
    let desc = hybrid();
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let phases = [phase(4 * 2 * 16, 2, 16, vec![head(1.0, HeadLoss::CrossEntropy)])];
    let mut feeds = [Feed::new(Arc::new(Samples::of(16, tokens(16 * 9, 5))), 1)];
    let held = tokens(16, 50);
    let job = Job {
        device: &Cpu,
        student: &desc,
        teacher: None,
        origins: vec![0, 1, 2],
        phases: vec![Phase { phase: &phases[0], feed: 0, first: 0, sequence: 16, updates: 4 }],
        heldout: Some(Heldout { windows: vec![&held], answers: None, every: 1 << 40 }),
        shelf: Shelf { store: &store, key: &unshelved, block: 0 },
        until: None,
        most: None,
        shows: false,
    };
    let mut weights = tensors(&desc, 1);
    weights.get_mut("backbone.layers.1.mixer.up_proj.weight").unwrap()[7] = 3e38;
    let key = Key::new("training", "bad");
    let saves = Saves { store: &store, key: &key, every: Duration::from_secs(3600) };
    let quiet = Watch::new("student", &());
    let error = job.train(&mut feeds, || Ok(weights), &quiet, Some(saves), |_| Ok(None)).err().unwrap();
    let told = error.to_string();
    assert!(told.starts_with("`student`: update 1: the held-out loss is not a finite number"), "{told}");
    assert_eq!(save::load(&saves).unwrap().unwrap().1.updates, 0);
}

/// A training beside targets alone, in a store.
struct Shelved<'a> {
    store: &'a Store,
    /// How often the teacher's weights were read.
    read: Cell<usize>,
    loss: Vec<LossTerm>,
    updates: u64,
}

/// Windows of [`Shelved`], four to a block.
const WINDOWS: usize = 11;

impl Shelved<'_> {
    fn new(store: &Store, updates: u64) -> Shelved<'_> {
        let loss = vec![top(0.8, 20, 2.0), head(0.2, HeadLoss::CrossEntropy)];
        Shelved { store, read: Cell::new(0), loss, updates }
    }

    /// The bits of the weights, and the last loss.
    fn train(&self, observer: &dyn Observer, stop: Stop) -> Result<(Vec<Vec<u32>>, f64), RunError> {
        let desc = hybrid();
        let phases = [phase(self.updates * 3 * 16, 3, 16, self.loss.clone())];
        let mut feeds = [Feed::new(Arc::new(Samples::of(16, tokens(16 * WINDOWS, 5))), 1)];
        let teacher = |_: &dyn Fn(&str) -> bool| {
            self.read.set(self.read.get() + 1);
            Ok(tensors(&desc, 2))
        };
        let key =
            |_: &Phase, written: &Written| Ok(Key::new("targets", "all").field("of", written.to_string()));
        let job = Job {
            device: &Cpu,
            student: &desc,
            teacher: Some(Teacher { desc: &desc, weights: &teacher }),
            origins: vec![0, 1, 2],
            phases: vec![Phase { phase: &phases[0], feed: 0, first: 0, sequence: 16, updates: self.updates }],
            heldout: None,
            until: None,
            most: None,
            shows: false,
            shelf: Shelf { store: self.store, key: &key, block: 4 * 16 * 41 * 4 },
        };
        let watch = Watch { stop, ..Watch::new("test", observer) };
        let begin = || Ok(tensors(&desc, 1));
        let (weights, trained) = job.train(&mut feeds, begin, &watch, None, |_| Ok(None))?;
        let bits = |n| weights.get(n).unwrap().iter().map(|x| x.to_bits()).collect();
        Ok((weights.names().map(bits).collect(), trained.loss))
    }

    fn whole(&self) -> (Vec<Vec<u32>>, f64) {
        self.train(&(), Stop::default()).unwrap()
    }

    /// Blocks by the names of their objects, with their digests.
    fn blocks(&self) -> BTreeMap<String, String> {
        let entries = self.store.list().unwrap().into_iter();
        entries.map(|entry| (entry.name, entry.header.digest)).collect()
    }
}

#[test]
fn targets_are_made_once_and_serve_every_training() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    // One update sees three windows: the beginning of the first epoch, one block.
    let short = Shelved::new(&store, 1);
    short.whole();
    assert_eq!((short.read.get(), short.blocks().len()), (1, 1));
    // Several epochs need all eleven windows.
    let long = Shelved::new(&store, 9);
    let first = long.whole();
    let blocks = long.blocks();
    assert_eq!((long.read.get(), blocks.len()), (1, 3));
    assert!(short.blocks().iter().all(|block| blocks.contains_key(block.0)));
    // Once more, with another weight: nothing is made, and the teacher is not read.
    let again = Shelved { loss: vec![top(0.5, 20, 2.0)], ..Shelved::new(&store, 9) };
    assert!(again.whole().1.is_finite());
    assert_eq!((again.read.get(), again.blocks()), (0, blocks.clone()));
    // Another number of targets, other blocks.
    let other = Shelved { loss: vec![top(0.5, 21, 2.0)], ..Shelved::new(&store, 9) };
    other.whole();
    assert!(other.read.get() == 1 && other.blocks().len() > blocks.len());
    // A damaged block is made again, the same.
    let name = blocks.keys().next().unwrap();
    let path = place.path().join("objects").join(&name[..2]).join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mended = Shelved::new(&store, 9);
    assert_eq!((mended.whole(), mended.read.get()), (first, 1));
    assert!(blocks.iter().all(|(name, digest)| mended.blocks()[name] == *digest));
}

/// Stops once so many windows have their targets, and keeps how many there were to be made.
struct StopMaking(usize, Stop, std::sync::Mutex<Vec<usize>>);

impl Observer for StopMaking {
    fn observe(&self, event: &Event) {
        if let Event::Progress { done, total, .. } = event {
            self.2.lock().unwrap().push(*total);
            if *done >= self.0 {
                self.1.set();
            }
        }
    }
}

#[test]
fn the_making_of_targets_goes_on_where_it_was_stopped() {
    let places = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let [stopped, whole] = [0, 1].map(|i| Store::open(places[i].path()).unwrap());
    let whole = Shelved::new(&whole, 9);
    let training = Shelved::new(&stopped, 9);
    for (made, left) in [(0, 11), (1, 7), (2, 3)] {
        let observer = StopMaking(1, Stop::default(), Default::default());
        assert!(matches!(training.train(&observer, observer.1.clone()), Err(RunError::Stopped)), "{made}");
        assert_eq!((training.blocks().len(), observer.2.lock().unwrap()[0]), (made + 1, left));
    }
    assert_eq!(training.whole(), whole.whole());
    assert_eq!((training.read.get(), training.blocks()), (3, whole.blocks()));
}

#[test]
fn beside_targets_alone_no_teacher_is_held() {
    let desc = hybrid();
    let weights = |loss: &[LossTerm]| {
        let objective = Objective::new(loss, &[0, 1, 2]);
        let graph = forward::training(&desc, Some(&desc), &objective, 24, 3, Recompute::Cheap).unwrap().graph;
        schedule::schedule(&graph).unwrap()
    };
    let targets =
        weights(&[top(1.0, 9, 1.0), top(1.0, 9, 1.0), top(1.0, 3, 2.0), head(0.1, HeadLoss::CrossEntropy)]);
    assert!(!targets.weights.keys().any(|name| name.starts_with(TEACHER)));
    let inputs: Vec<(&str, usize)> = targets.inputs.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(inputs, [("teacher top 3 at T=2", 24 * 7), ("teacher top 9 at T=1", 24 * 19)]);
    let dense = weights(&[head(1.0, HeadLoss::ForwardKl { temperature: 1.0 })]);
    assert!(dense.weights.keys().any(|name| name.starts_with(TEACHER)));
}

/// More targets than tokens are all of them.
#[test]
fn targets_of_every_token_train_as_the_teacher_does() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let last = |term| Shelved { loss: vec![term], ..Shelved::new(&store, 4) }.whole().1;
    let all = last(top(1.0, 10_000, 2.0));
    let dense = last(head(1.0, HeadLoss::ForwardKl { temperature: 2.0 }));
    assert!((all / dense - 1.0).abs() < 1e-5, "{all} {dense}");
    let some = last(top(1.0, 4, 2.0));
    assert!((some / dense - 1.0).abs() > 1e-3, "{some} {dense}");
}
