//! The graphs that minic runs, put together from a family's embedding, blocks and head.

mod decoding;
mod training;

pub use decoding::{Answer, prefill, step};
pub use training::{
    Beside, Objective, Reading, Shown, TEACHER, Training, Written, lanes, training, training_beside, written,
};

use crate::axes;
use crate::dim::{Dim, Extent};
use crate::graph::{Builder, Graph, Masks, ShapeError, ValueId};
use crate::hir::LayerMetric;
use crate::metrics::Program;
use crate::model::ModelDesc;
use std::sync::Arc;

/// What one pass over a calibration set is to gather.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    /// Activation metrics: at every block that has the tap.
    pub metrics: Vec<(&'static str, Arc<Program>)>,
    /// Layer metrics, for every one of the model's layers that is not `removed`.
    pub layers: Vec<LayerMetric>,
    /// Neighbouring layers that are left out together, at least one.
    pub span: usize,
    /// Layers that are gone already: what is left out next is compared with the whole model all the same.
    pub removed: Vec<usize>,
    /// The covariance of the stream over all norms, for `pca`.
    pub covariance: bool,
    /// Loss of the model itself.
    pub loss: bool,
}

impl Default for Gather {
    fn default() -> Self {
        Gather {
            metrics: Vec::new(),
            layers: Vec::new(),
            span: 1,
            removed: Vec::new(),
            covariance: false,
            loss: false,
        }
    }
}

impl Gather {
    /// Of so many layers, those that are not gone already.
    fn left(&self, layers: usize) -> Vec<usize> {
        (0..layers).filter(|layer| !self.removed.contains(layer)).collect()
    }

    /// The first layer of every block of `span` neighbours among them, ascending.
    pub fn places(&self, layers: usize) -> Vec<usize> {
        let mut left = self.left(layers);
        left.truncate((left.len() + 1).saturating_sub(self.span));
        left
    }
}

/// Names of a graph's outputs.
pub mod output {
    use crate::hir::LayerMetric;

    /// [L-1, 2]: nll in nats, hit.
    pub const LOSS: &str = "loss";
    /// Losses of training.
    pub const LOSSES: &str = "losses";
    pub const LOGITS: &str = "logits";
    /// The likeliest token, [rows, 1].
    pub const TOKEN: &str = "token";
    /// Of a teacher: [`super::Written`].
    pub const WRITTEN: &str = "targets";
    /// The stream after a block.
    pub const STREAM: &str = "stream";
    /// [E, E], the sum over all norms and positions; the lower triangle.
    pub const COVARIANCE: &str = "covariance";
    /// What a block's last matrix reads.
    pub const READ: &str = "read";

    pub fn loss(model: &str) -> String {
        format!("{model} {LOSS}")
    }

    /// [L, 2]: KL(against || model), mean squared difference of the logits.
    pub fn divergence(model: &str, against: &str) -> String {
        format!("{model} against {against}")
    }

    /// A metric's partial at a tap of a block; `None`: after the last norm.
    pub fn metric(tap: &str, metric: &str, layer: Option<usize>) -> String {
        match layer {
            Some(layer) => format!("{tap}.{layer} {metric}"),
            None => format!("{tap}.last {metric}"),
        }
    }

    /// What removing the block of layers that begins with this one does; `kld` and `mse` are columns 0 and 1 of a
    /// divergence.
    pub fn layer(metric: LayerMetric, layer: usize) -> String {
        match metric {
            LayerMetric::Kld => format!("without.{layer} kld"),
            LayerMetric::Mse => format!("without.{layer} mse"),
            LayerMetric::Cosine => format!("influence.{layer}"),
        }
    }
}

/// Runs `layers` on a stream: the streams before each of them, and after the last.
fn run(b: &mut Builder, desc: &ModelDesc, stream: ValueId, layers: &[usize]) -> Vec<ValueId> {
    let mut streams = vec![stream];
    for &layer in layers {
        let before = streams[streams.len() - 1];
        streams.push(desc.family().block(b, desc, layer, before));
    }
    streams
}

/// A whole model on tokens: its streams, and what logits are made of.
struct Ends {
    /// Before the first block, and after each.
    streams: Vec<ValueId>,
    hidden: ValueId,
    head: ValueId,
}

fn ends(b: &mut Builder, desc: &ModelDesc, tokens: ValueId) -> Ends {
    let stream = desc.family().embed(b, desc, tokens);
    let layers: Vec<usize> = (0..desc.layers.len()).collect();
    let streams = run(b, desc, stream, &layers);
    let hidden = desc.family().last_norm(b, desc, streams[layers.len()]);
    Ends { streams, hidden, head: desc.family().head(b, desc) }
}

/// Logits [L, V] of a sample, whole: for `minic logits` and the gate.
pub fn logits(desc: &ModelDesc, sequence: usize, masks: Masks) -> Result<Graph, ShapeError> {
    let mut b = Builder::masked(masks);
    let tokens = b.tokens(sequence);
    let Ends { hidden, head, .. } = ends(&mut b, desc, tokens);
    b.layer = None;
    let logits = b.linear(hidden, head, None);
    b.output(output::LOGITS, logits);
    b.finish()
}

/// One block by itself: input `stream` [L, E] -> output `stream` [L, E].
pub fn block(desc: &ModelDesc, layer: usize, sequence: usize, masks: Masks) -> Result<Graph, ShapeError> {
    let mut b = Builder::masked(masks);
    let stream = b.input(output::STREAM, stream_of(desc, sequence));
    let out = desc.family().block(&mut b, desc, layer, stream);
    b.output(output::STREAM, out);
    b.finish()
}

/// The same with one more output, `read`: what the block's last matrix reads.
pub fn observed(desc: &ModelDesc, layer: usize, sequence: usize) -> Result<Graph, ShapeError> {
    let mut b = showing(desc, layer);
    let stream = b.input(output::STREAM, stream_of(desc, sequence));
    let out = desc.family().block(&mut b, desc, layer, stream);
    b.output(output::STREAM, out);
    b.finish()
}

/// A builder that shows what the last matrix of a block reads.
fn showing(desc: &ModelDesc, layer: usize) -> Builder {
    let mut b = Builder::new();
    b.shown = desc.layers.get(layer).and_then(|kind| axes::writer(*kind)).map(|(tap, _)| tap.name);
    b
}

/// What the last matrix of a block reads, the one that writes to the stream: input `stream` [L, E] -> output
/// `read` [L, I].
pub fn read(desc: &ModelDesc, layer: usize, sequence: usize) -> Result<Graph, ShapeError> {
    let mut b = showing(desc, layer);
    let stream = b.input(output::STREAM, stream_of(desc, sequence));
    desc.family().block(&mut b, desc, layer, stream);
    b.finish()
}

/// The embedding by itself: tokens -> output `stream` [L, E].
pub fn embedding(desc: &ModelDesc, sequence: usize, masks: Masks) -> Result<Graph, ShapeError> {
    let mut b = Builder::masked(masks);
    let tokens = b.tokens(sequence);
    let stream = desc.family().embed(&mut b, desc, tokens);
    b.output(output::STREAM, stream);
    b.finish()
}

/// The last norm and the head by themselves: input `stream` [L, E] -> output `logits` [L, V].
pub fn head(desc: &ModelDesc, sequence: usize, masks: Masks) -> Result<Graph, ShapeError> {
    let mut b = Builder::masked(masks);
    let stream = b.input(output::STREAM, stream_of(desc, sequence));
    let hidden = desc.family().last_norm(&mut b, desc, stream);
    let head = desc.family().head(&mut b, desc);
    let logits = b.linear(hidden, head, None);
    b.output(output::LOGITS, logits);
    b.finish()
}

/// (L, E)
fn stream_of(desc: &ModelDesc, sequence: usize) -> Vec<Extent> {
    let width = Extent::of(Dim::HiddenSize, desc.size(Dim::HiddenSize));
    vec![Extent::of(Dim::Sequence, sequence), width]
}

/// A comparison: the figures of `model`, and its divergence from `against`.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison<'a> {
    pub model: &'a str,
    pub against: Option<&'a str>,
}

/// Several models over the same tokens, each run once: the loss of every model, and the divergence that each
/// comparison asks for. The weights of model `half` are named `half/..`.
pub fn evaluation(
    models: &[(&str, &ModelDesc)],
    comparisons: &[Comparison],
    sequence: usize,
) -> Result<Graph, ShapeError> {
    let mut b = Builder::new();
    let tokens = b.tokens(sequence);
    let mut all = Vec::new();
    for &(name, desc) in models {
        b.scope = format!("{name}/");
        let Ends { hidden, head, .. } = ends(&mut b, desc, tokens);
        let loss = b.token_loss(hidden, head, tokens);
        b.output(output::loss(name), loss);
        all.push((name, (hidden, head)));
    }
    let end = |name: &str| all.iter().find(|(n, _)| *n == name).map(|(_, end)| *end);
    for Comparison { model, against } in comparisons {
        if let (Some(student), Some(teacher)) = (end(model), against.and_then(end)) {
            let divergence = b.divergence(teacher, student);
            b.output(output::divergence(model, against.unwrap_or_default()), divergence);
        }
    }
    b.finish()
}

/// Everything that one pass over a calibration set gathers: one forward pass, and for `kld` and `mse` one
/// branch for every layer, or block of `span` layers, which starts from the stream that it was given.
pub fn calibration(desc: &ModelDesc, sequence: usize, gather: &Gather) -> Result<Graph, ShapeError> {
    let mut b = Builder::new();
    b.metrics = gather.metrics.clone();
    let tokens = b.tokens(sequence);
    let all: Vec<usize> = (0..desc.layers.len()).collect();
    let stream = desc.family().embed(&mut b, desc, tokens);
    // Stream by stream, so that none is kept for its covariance.
    let mut covariance = gather.covariance.then(|| b.covariance(stream, desc.eps, None));
    let mut streams = vec![stream];
    for &layer in &all {
        let after = desc.family().block(&mut b, desc, layer, streams[layer]);
        covariance = covariance.map(|sum| b.covariance(after, desc.eps, Some(sum)));
        streams.push(after);
    }
    if let Some(sum) = covariance {
        b.output(output::COVARIANCE, sum);
    }
    let hidden = desc.family().last_norm(&mut b, desc, streams[all.len()]);
    b.metrics.clear();
    let head = desc.family().head(&mut b, desc);
    if gather.loss {
        let loss = b.token_loss(hidden, head, tokens);
        b.output(output::LOSS, loss);
    }
    // The model without what is gone already shares its first layers with the whole one.
    let left = gather.left(all.len());
    let shared = gather.removed.iter().copied().min().unwrap_or(all.len());
    let mut path = streams[..shared].to_vec();
    path.extend(run(&mut b, desc, streams[shared], &left[shared..]));
    for (at, layer) in gather.places(all.len()).into_iter().enumerate() {
        let after = at + gather.span;
        let mut divergence = None;
        for &metric in &gather.layers {
            let value = if metric == LayerMetric::Cosine {
                b.cosine_distance(path[at], path[after])
            } else {
                *divergence.get_or_insert_with(|| {
                    let end = run(&mut b, desc, path[at], &left[after..])[left.len() - after];
                    let without = desc.family().last_norm(&mut b, desc, end);
                    b.divergence((hidden, head), (without, head))
                })
            };
            b.output(output::layer(metric, layer), value);
        }
    }
    b.finish()
}
