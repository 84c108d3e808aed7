//! Rankings that are not declared metrics: layer metrics, wrappers and controls.

use crate::hir::LayerMetric;

/// A score of a whole layer, for `num_layers`. The greatest scores survive.
#[derive(Clone, Copy, Debug)]
pub struct LayerMetricName {
    pub name: &'static str,
    pub metric: LayerMetric,
    pub doc: &'static str,
}

/// To add a layer metric: its variant in [`LayerMetric`] and its line here.
pub const LAYER_METRICS: &[LayerMetricName] = &[
    LayerMetricName {
        name: "kld",
        metric: LayerMetric::Kld,
        doc: "forward KL of the logits, model against model without the layer, mean over tokens, in nats",
    },
    LayerMetricName {
        name: "mse",
        metric: LayerMetric::Mse,
        doc: "mean squared difference of the logits, model against model without the layer",
    },
    LayerMetricName {
        name: "cosine",
        metric: LayerMetric::Cosine,
        doc: "block influence: 1 - cosine of the block's input and output, mean over tokens",
    },
];

pub fn layer_metric(name: &str) -> Option<LayerMetric> {
    LAYER_METRICS.iter().find(|m| m.name == name).map(|m| m.metric)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankingKind {
    Random,
    Reverse,
    Iterative,
    Contiguous,
    Residual,
}

/// A built-in ranking that is written as a call.
#[derive(Clone, Copy, Debug)]
pub struct Ranking {
    pub name: &'static str,
    /// How it is called.
    pub form: &'static str,
    pub kind: RankingKind,
    pub doc: &'static str,
}

pub const RANKINGS: &[Ranking] = &[
    Ranking {
        name: "random",
        form: "random(seed = N)",
        kind: RankingKind::Random,
        doc: "a seeded shuffle, another one for every layer and axis; a control",
    },
    Ranking {
        name: "reverse",
        form: "reverse(METRIC)",
        kind: RankingKind::Reverse,
        doc: "the least important members are kept; a control",
    },
    Ranking {
        name: "iterative",
        form: "iterative(METRIC)",
        kind: RankingKind::Iterative,
        doc: "one layer is removed at a time, then the others are scored again",
    },
    Ranking {
        name: "contiguous",
        form: "contiguous(METRIC)",
        kind: RankingKind::Contiguous,
        doc: "one block of neighbouring layers is removed, that without which the model changes least",
    },
    Ranking {
        name: "residual",
        form: "residual(damping = N)",
        kind: RankingKind::Residual,
        doc: "the member goes whose loss the refitted others make up for best, and so on",
    },
];

pub fn ranking(name: &str) -> Option<&'static Ranking> {
    RANKINGS.iter().find(|r| r.name == name)
}
