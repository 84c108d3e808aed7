//! Gradients that PyTorch computes on small checkpoints, pinned (tests/golden/README.md says how they were made).

use crate::command::minic;
use crate::support::{golden, goldens_with, json, logits, source, tensor, tokens};
use minic_compiler::autodiff::Recompute;
use minic_compiler::check::{self, Environment};
use minic_compiler::forward::{self, Objective, TEACHER};
use minic_compiler::losses::LOSSES;
use minic_compiler::model::Weight;
use minic_compiler::schedule;
use minic_runtime::device::cpu::Cpu;
use minic_runtime::device::{Bindings, Device, Outputs, TrainingState, Weights};
use minic_runtime::safetensors::Reader;
use minic_runtime::source::WeightSource;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

/// The difference in norm is below 1e-4 of the norm of what is expected; zero is expected exactly.
fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let pairs = expected.iter().zip(found).map(|(e, f)| (f64::from(*e), f64::from(*f)));
    let (off, size) = (norm(pairs.clone().map(|(e, f)| e - f)), norm(pairs.map(|(e, _)| e)));
    assert!(off <= 1e-4 * size, "{what}: {off:e} off, of {size:e}");
}

#[test]
fn gradients_of_cross_entropy_are_pytorchs() {
    let cases = goldens_with("gradients.safetensors");
    assert!(cases.len() >= 5, "{} cases", cases.len());
    for case in cases {
        let folder = tempfile::tempdir().unwrap();
        let (checkpoint, ids) = (case.display().to_string(), case.join("tokens-short.json"));
        let of_tokens = ["logits", &checkpoint, "--tokens", ids.to_str().unwrap(), "--device", "cpu"];
        let done = minic(folder.path(), &[&of_tokens[..], &["--output", "found", "--grads"]].concat());
        assert_eq!(done.exit, 0, "{checkpoint}: {}", done.stderr);

        let found = Reader::open(&folder.path().join("found")).unwrap();
        let model = source(&case);
        let table = model.desc().weights();
        let names = table.iter().map(|weight| weight.name.as_str()).chain(["logits"]);
        let in_file: BTreeSet<&str> = found.tensors().map(|(name, _)| name).collect();
        assert_eq!(in_file, names.collect(), "{checkpoint}");
        let alone: Vec<f32> = tokens(&ids).iter().flat_map(|ids| logits(&model, ids)).collect();
        assert!(tensor(&found, "logits") == alone, "{checkpoint}: gradients changed the logits");

        let expected = Reader::open(&case.join("gradients.safetensors")).unwrap();
        assert_eq!(expected.tensors().count(), table.len(), "{checkpoint}");
        for weight in table {
            let shapes = [&found, &expected].map(|file| file.tensor(&weight.name).unwrap().shape.clone());
            assert_eq!(shapes, [weight.sizes(), weight.sizes()], "{checkpoint} {weight}");
            let [found, expected] = [&found, &expected].map(|file| tensor(file, &weight.name));
            assert_close(&found, &expected, &format!("{checkpoint} {weight}"));
        }
    }
}

#[test]
fn gradients_of_every_loss_beside_a_teacher_are_pytorchs() {
    let cases = goldens_with("distillation.json");
    assert!(cases.len() >= 2, "{} cases", cases.len());
    for case in cases {
        let golden_losses = json(&case.join("distillation.json"));
        let teacher = golden(golden_losses["teacher"].as_str().unwrap());
        let expected = Reader::open(&case.join("distillation.safetensors")).unwrap();
        let losses = golden_losses["losses"].as_object().unwrap();
        for loss in LOSSES {
            let named = losses.keys().any(|line| line.contains(&format!("{}(", loss.name)));
            assert!(named, "{} holds no loss with {}", case.display(), loss.name);
        }
        let table = source(&case).desc().weights();
        assert_eq!(expected.tensors().count(), losses.len() * table.len(), "{}", case.display());
        for (i, (loss, value)) in losses.iter().enumerate() {
            let what = format!("{} {loss}", case.display());
            let distilled = Distilled::new(&case, &teacher, loss);
            let value = value.as_f64().unwrap();
            assert!((distilled.loss - value).abs() < 1e-5 * value, "{what}: {}, {value}", distilled.loss);
            for (weight, found) in table.iter().zip(&distilled.gradients) {
                let expected = tensor(&expected, &format!("{i}/{}", weight.name));
                assert_close(found, &expected, &format!("{what} {weight}"));
            }
        }
    }
}

/// What one update would begin with.
struct Distilled {
    loss: f64,
    /// In the order of the student's weights; zeros where nothing reads a weight.
    gradients: Vec<Vec<f32>>,
}

impl Distilled {
    fn new(student: &Path, teacher: &Path, loss: &str) -> Distilled {
        let samples = tokens(&student.join("tokens-short.json"));
        let samples: Vec<Bindings> = samples.iter().map(|tokens| Bindings::of(tokens)).collect();
        let objective = objective(student, teacher, loss);
        let (student, teacher) = (source(student), source(teacher));
        let (own, beside) = (student.desc(), Some(teacher.desc()));
        let (sequence, batch) = (samples[0].tokens.len(), samples.len());
        let training = forward::training(own, beside, &objective, sequence, batch, Recompute::Cheap).unwrap();
        let schedule = Arc::new(schedule::schedule(&training.graph).unwrap());
        let state = TrainingState { weights: weights(&student), ..TrainingState::default() };
        let mut device = Cpu.train(schedule, weights(&teacher).scoped(TEACHER), state, 1).unwrap();
        let outputs = device.gradients(&samples).unwrap();
        let gradient = |weight: Weight| {
            let found = device.gradient(&weight.name).unwrap().map(std::borrow::Cow::into_owned);
            found.unwrap_or_else(|| vec![0.0; weight.sizes().iter().product()])
        };
        let gradients = own.weights().into_iter().map(gradient).collect();
        Distilled { loss: mean_loss(&training, &objective, &outputs), gradients }
    }
}

fn weights(model: &WeightSource) -> Weights {
    let names = model.desc().weights().into_iter().map(|weight| weight.name);
    Weights::load(names, |name| model.read_f32(name)).unwrap()
}

/// The weighted sum of the terms, over all samples.
fn mean_loss(training: &forward::Training, objective: &Objective, outputs: &[Outputs]) -> f64 {
    let weights = objective.weights();
    let of_reading = |(outputs, reading): (&Outputs, &forward::Reading)| {
        let (values, columns) = (outputs[&reading.output].f32(), columns(training, reading));
        let column = values.iter().skip(reading.column).step_by(columns);
        weights[reading.term] * reading.scale * column.map(|x| f64::from(*x)).sum::<f64>()
    };
    let pairs = outputs.iter().flat_map(|o| training.readings.iter().map(move |reading| (o, reading)));
    pairs.map(of_reading).sum::<f64>() / outputs.len() as f64
}

/// How many terms share an output.
fn columns(training: &forward::Training, of: &forward::Reading) -> usize {
    training.readings.iter().filter(|reading| reading.output == of.output).count()
}

/// Golden folders as checkpoints of a recipe.
struct Folders;

impl Environment for Folders {
    fn config(&self, checkpoint: &str) -> Result<Option<String>, String> {
        Ok(std::fs::read_to_string(Path::new(checkpoint).join("config.json")).ok())
    }
}

/// What a recipe with this line of losses asks for.
fn objective(student: &Path, teacher: &Path, loss: &str) -> Objective {
    let recipe = format!(
        r#"mrecipe 1
model student {{ checkpoint = "{}" }}
model teacher {{ checkpoint = "{}" }}
data text {{ files = ["text.npy"]; sequence = 64 }}
schedule once {{ loss = {loss}; optimizer = adamw(); rate = constant(peak = 1e-3); batch = 2; tokens = 128 }}
distill distilled from student {{ teacher = teacher; data = text; schedule = once }}
export distilled to "distilled"
"#,
        student.display(),
        teacher.display()
    );
    let checked = check::check_text("recipe", &recipe, &Folders, &[]);
    let hir = checked.hir.unwrap_or_else(|| panic!("{loss}: {:?}", checked.found));
    let layers = source(student).desc().layers.len();
    Objective::new(&hir.schedules["once"].phases[0].loss, &(0..layers).collect::<Vec<_>>())
}
