//! What a candidate has: parameters, operations, memory, speed, and what is measured on data.

use super::Checker;
use super::arguments::{Accepts, Argument, Default, call_of};
use super::names::suggestion;
use crate::hir::{Measure, Quantity};
use minic_grammar::Diagnostic;
use minic_grammar::ast::{Expr, Unit};

const fn count(name: &'static str, doc: &'static str) -> Argument {
    Argument { name, accepts: Accepts::Count, default: Default::Required, doc }
}

const SEQUENCE: Argument = count("sequence", "tokens of one sequence");
const BATCH: Argument = count("batch", "sequences at once");
const CONTEXT: Argument = count("context", "tokens before it");
const ONE: Argument =
    Argument { name: "batch", accepts: Accepts::Count, default: Default::Is(1.0), doc: "sequences at once" };
const INPUT: Argument = count("input", "tokens read");
const OUTPUT: Argument = count("output", "tokens written");

/// Quantities that follow from the sizes, and those that a device measures without data.
const ANALYTIC: &[(&str, &[Argument])] = &[
    ("params", &[]),
    ("active_params", &[]),
    ("body_params", &[]),
    ("flops", &[SEQUENCE]),
    ("decode_flops", &[CONTEXT]),
    ("memory", &[BATCH, SEQUENCE]),
    ("cache", &[BATCH, SEQUENCE]),
    ("activations", &[BATCH, SEQUENCE]),
    ("latency", &[INPUT, ONE]),
    ("throughput", &[INPUT, OUTPUT, ONE]),
];

/// There is a quantity of this name.
pub(super) fn is_quantity(name: &str) -> bool {
    ANALYTIC.iter().any(|(known, _)| *known == name) || Measure::ALL.iter().any(|m| m.name() == name)
}

impl Quantity {
    /// Follows from the sizes alone.
    pub fn is_analytic(&self) -> bool {
        !matches!(self, Quantity::Latency { .. } | Quantity::Throughput { .. } | Quantity::Measured(_))
    }

    pub(super) fn unit(&self) -> Unit {
        match self {
            Quantity::Memory { .. } | Quantity::Cache { .. } | Quantity::Activations { .. } => Unit::Bytes,
            Quantity::Params
            | Quantity::ActiveParams
            | Quantity::BodyParams
            | Quantity::Flops { .. }
            | Quantity::DecodeFlops { .. }
            | Quantity::Refusals { .. } => Unit::Count,
            Quantity::Latency { .. } | Quantity::Throughput { .. } | Quantity::Measured(_) => Unit::Float,
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
            "body_params" => Quantity::BodyParams,
            "decode_flops" => Quantity::DecodeFlops { context: size("context") },
            "cache" => Quantity::Cache { batch: size("batch"), sequence: size("sequence") },
            "activations" => Quantity::Activations { batch: size("batch"), sequence: size("sequence") },
            "latency" => Quantity::Latency { input: size("input"), batch: size("batch") },
            _ => Quantity::Throughput { input: size("input"), output: size("output"), batch: size("batch") },
        })
    }
}
