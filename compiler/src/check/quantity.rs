//! What a candidate has: parameters, operations, memory, speed, and what is measured on data.

use super::Checker;
use super::arguments::{Accepts, Argument, Default, call_of};
use super::names::suggestion;
use super::outline::Outline;
use crate::cost;
use crate::hir::{Measure, Quantity};
use crate::model::{LayerKind, ModelDesc};
use minic_grammar::Diagnostic;
use minic_grammar::ast::{Expr, Unit};

const fn count(name: &'static str, doc: &'static str) -> Argument {
    Argument { name, accepts: Accepts::Count, default: Default::Required, doc }
}

const SEQUENCE: Argument = count("sequence", "tokens of one sequence");
const BATCH: Argument = count("batch", "sequences at once");
const INPUT: Argument = count("input", "tokens read");
const OUTPUT: Argument = count("output", "tokens written");

/// Quantities that follow from the sizes, and the one that a device measures without data.
const ANALYTIC: &[(&str, &[Argument])] = &[
    ("params", &[]),
    ("active_params", &[]),
    ("flops", &[SEQUENCE]),
    ("memory", &[BATCH, SEQUENCE]),
    ("throughput", &[INPUT, OUTPUT]),
];

impl Quantity {
    /// Follows from the sizes alone.
    pub fn is_analytic(&self) -> bool {
        !matches!(self, Quantity::Throughput { .. } | Quantity::Measured(_))
    }

    pub(super) fn unit(&self) -> Unit {
        match self {
            Quantity::Memory { .. } => Unit::Bytes,
            Quantity::Params | Quantity::ActiveParams | Quantity::Flops { .. } => Unit::Count,
            Quantity::Throughput { .. } | Quantity::Measured(_) => Unit::Float,
        }
    }
}

impl<'a> Checker<'a> {
    pub(super) fn quantity(&mut self, expr: &Expr) -> Option<Quantity> {
        let call = call_of(expr);
        let measure = call.as_ref().and_then(|c| Measure::ALL.iter().find(|m| m.name() == c.name));
        if let (Some(call), Some(measure)) = (&call, measure) {
            return self.arguments(call, &[]).map(|_| Quantity::Measured(*measure));
        }
        let known = call.as_ref().and_then(|c| ANALYTIC.iter().find(|(name, _)| *name == c.name));
        let (Some(call), Some(&(name, signature))) = (&call, known) else {
            let measured = Measure::ALL.iter().map(|m| m.name());
            let names: Vec<&str> = ANALYTIC.iter().map(|(name, _)| *name).chain(measured).collect();
            let shown = call.map_or("this".into(), |c| format!("`{}`", c.name));
            self.report(
                Diagnostic::new("E0601", expr.span, format!("there is no quantity {shown}"))
                    .label("unknown quantity")
                    .help(suggestion(shown.trim_matches('`'), "quantities", &names)),
            );
            return None;
        };
        let read = self.arguments(call, signature)?;
        let size = |name: &str| usize::try_from(read.whole(name)).unwrap_or(usize::MAX);
        Some(match name {
            "params" => Quantity::Params,
            "active_params" => Quantity::ActiveParams,
            "flops" => Quantity::Flops { sequence: size("sequence") },
            "memory" => Quantity::Memory { batch: size("batch"), sequence: size("sequence") },
            _ => Quantity::Throughput { input: size("input"), output: size("output") },
        })
    }
}

/// The least and the greatest value of an analytic quantity over all choices of layers; `None` for what
/// sizes do not determine.
pub(super) fn bounds(quantity: &Quantity, model: &Outline) -> Option<(f64, f64)> {
    let mut desc = model.desc.clone();
    desc.layers.clear();
    let base = without_layers(quantity, &desc)?;
    let empty = desc.params();
    let costs = [0, 1, 2].map(|i| {
        let kind = LayerKind::ALL[i];
        desc.layers = vec![kind];
        let params = if model.has(kind) { desc.params().saturating_sub(empty) } else { 0 };
        one_layer(quantity, &desc, kind, params)
    });
    let total = |counts: [usize; 3]| {
        let layers = counts.iter().zip(costs).map(|(&n, cost)| n as f64 * cost as f64);
        base as f64 + layers.sum::<f64>()
    };
    let layers = &model.layers;
    Some((total(layers.extreme(costs, false)), total(layers.extreme(costs, true))))
}

/// The share of embeddings, last norm and head.
fn without_layers(quantity: &Quantity, desc: &ModelDesc) -> Option<u64> {
    match quantity {
        Quantity::Params | Quantity::ActiveParams => Some(desc.params()),
        Quantity::Flops { sequence } => Some(cost::head_flops(desc).saturating_mul(*sequence as u64)),
        Quantity::Memory { .. } => Some(cost::memory(desc, 0, 0)),
        Quantity::Throughput { .. } | Quantity::Measured(_) => None,
    }
}

fn one_layer(quantity: &Quantity, desc: &ModelDesc, kind: LayerKind, params: u64) -> u64 {
    match quantity {
        Quantity::Params | Quantity::ActiveParams => params,
        Quantity::Flops { sequence } => {
            cost::block_flops(desc, kind, *sequence).saturating_mul(*sequence as u64)
        }
        Quantity::Memory { batch, sequence } => {
            let state = cost::block_state(desc, kind, *sequence).saturating_mul(*batch as u64);
            // Weights of a deployment are bf16.
            params.saturating_mul(2).saturating_add(state)
        }
        Quantity::Throughput { .. } | Quantity::Measured(_) => 0,
    }
}
