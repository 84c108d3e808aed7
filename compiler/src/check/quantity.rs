//! What a candidate has: parameters, operations, memory, speed, and what is measured on data.

use super::Checker;
use super::arguments::{Accepts, Argument, Default, call_of};
use super::named::{self, Named, call, word};
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
pub(crate) const ANALYTIC: &[Named] = &[
    word("params", "parameters"),
    word("active_params", "parameters that one token meets; all of them in these families"),
    word("body_params", "parameters without embedding and head"),
    call("flops", &[SEQUENCE], "operations of a forward pass over a sequence"),
    call("decode_flops", &[CONTEXT], "operations of one more token after a context"),
    call("memory", &[BATCH, SEQUENCE], "bytes of a deployment: weights in bf16, and the cache"),
    call("cache", &[BATCH, SEQUENCE], "bytes of keys, values and states"),
    call("activations", &[BATCH, SEQUENCE], "bytes of the largest values of a forward pass, in bf16"),
    call("latency", &[INPUT, ONE], "seconds to the first token, measured on the device"),
    call(
        "throughput",
        &[INPUT, OUTPUT, ONE],
        "tokens written a second by all sequences, measured on the device",
    ),
];

/// There is a quantity of this name.
pub(crate) fn is_quantity(name: &str) -> bool {
    named::find(ANALYTIC, name).is_some() || Measure::ALL.iter().any(|m| m.name() == name)
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
        let known = call.as_ref().and_then(|c| named::find(ANALYTIC, &c.name));
        let (Some(call), Some(&Named { name, arguments: signature, .. })) = (&call, known) else {
            let measured = Measure::ALL.iter().map(|m| m.name());
            let names: Vec<&str> = named::names(ANALYTIC).into_iter().chain(measured).collect();
            let name = call.as_ref().map_or(expr.span, |c| c.name_span);
            let shown = call.map_or("this".into(), |c| format!("`{}`", c.name));
            self.report(
                Diagnostic::new("E0601", name, format!("there is no quantity {shown}"))
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
