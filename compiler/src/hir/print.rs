//! The checked recipe as text, for snapshots and `plan --emit hir`: one declaration a line, its parts indented.

use super::*;
use std::fmt::{Display, Formatter, Result};

impl Display for Recipe {
    fn fmt(&self, f: &mut Formatter) -> Result {
        for (name, param) in &self.params {
            writeln!(f, "param {name} = {}", param.value)?;
        }
        for (name, model) in &self.models {
            writeln!(f, "model {name}: {model}")?;
        }
        for (name, data) in &self.data {
            writeln!(f, "data {name}: {data}")?;
        }
        for (_, metric) in &self.metrics {
            writeln!(f, "metric {}", metric.program)?;
        }
        for (name, prune) in &self.prunes {
            write!(f, "prune {name} {prune}")?;
        }
        for (name, search) in &self.searches {
            write!(f, "search {name} {search}")?;
        }
        for (name, schedule) in &self.schedules {
            writeln!(f, "schedule {name}")?;
            schedule.phases.iter().try_for_each(|phase| writeln!(f, "    {phase}"))?;
        }
        for (name, distill) in &self.distills {
            writeln!(f, "{} {name} {distill}", if distill.teacher.is_some() { "distill" } else { "train" })?;
        }
        self.sensitivities.iter().try_for_each(|(name, s)| writeln!(f, "sensitivity {name} {s}"))?;
        self.evaluations.iter().try_for_each(|e| writeln!(f, "{e}"))?;
        self.deployments.iter().try_for_each(|d| writeln!(f, "{d}"))?;
        self.exports.iter().try_for_each(|e| writeln!(f, "{e}"))
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter) -> Result {
        match self {
            Value::Count(n) => write!(f, "{n}"),
            Value::Float(v) => write!(f, "{v:?}"),
            Value::Bytes(n) => write!(f, "{n} bytes"),
            Value::Fraction(v) => write!(f, "{}%", v * 100.0),
            Value::Seconds(v) => write!(f, "{v}s"),
            Value::Updates(n) => write!(f, "{n} steps"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::String(s) => write!(f, "{s:?}"),
            Value::List(items) => write!(f, "[{}]", joined(items, ", ")),
        }
    }
}

fn joined<T: Display>(items: impl IntoIterator<Item = T>, between: &str) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(between)
}

/// ` on data`, or nothing.
fn clause<T: Display>(word: &str, value: &Option<T>) -> String {
    value.as_ref().map_or(String::new(), |v| format!(" {word} {v}"))
}

impl Display for Model {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(f, "{:?}{}", self.checkpoint, clause("dt_floor", &self.dt_floor))?;
        match &self.desc {
            None => f.write_str(" (config.json is not at hand)"),
            Some(desc) => {
                write!(f, " = {} {}", desc.family, desc.pattern())?;
                desc.dims.iter().try_for_each(|(dim, size)| write!(f, " {dim}:{size}"))?;
                write!(f, " dt:{}..{} params:{}", desc.dt.lo, desc.dt.hi, desc.params())
            }
        }
    }
}

impl Display for Data {
    fn fmt(&self, f: &mut Formatter) -> Result {
        let sources = self.mix.iter().map(|s| format!("{:?} x {}", s.files, s.weight));
        write!(f, "{}; sequence {}", joined(sources, " + "), self.sequence)?;
        match self.samples {
            Some(n) => write!(f, ", {n} samples")?,
            None => f.write_str(", all samples")?,
        }
        write!(f, ", seed {}, epochs {}", self.seed, self.epochs)?;
        let quoted = |s: &Option<String>| s.as_ref().map(|s| format!("{s:?}"));
        f.write_str(&clause("field", &quoted(&self.field)))?;
        f.write_str(&clause("answer", &quoted(&self.answer)))?;
        f.write_str(&clause("tokenizer", &quoted(&self.tokenizer)))?;
        f.write_str(&clause("bad rows", &self.bad_rows))
    }
}

impl Display for BadRows {
    fn fmt(&self, f: &mut Formatter) -> Result {
        match self {
            BadRows::Share(share) => write!(f, "{}%", share * 100.0),
            BadRows::Count(count) => write!(f, "{count}"),
        }
    }
}

impl Display for Prune {
    fn fmt(&self, f: &mut Formatter) -> Result {
        let kind = if self.is_model() { "" } else { " (a space)" };
        writeln!(f, "from {}{}{kind}", self.from, clause("calibrated on", &self.calibrate))?;
        self.axes.iter().try_for_each(|a| writeln!(f, "    axis {a}"))?;
        self.constraints.fmt(f)?;
        self.repairs.iter().try_for_each(|r| writeln!(f, "    repair {}", r.kind))
    }
}

impl Display for AxisCut {
    fn fmt(&self, f: &mut Formatter) -> Result {
        match self.values.as_slice() {
            [one] => write!(f, "{} = {one}", self.axis.name)?,
            many => write!(f, "{} in {{{}}}", self.axis.name, joined(many, ", "))?,
        }
        write!(f, " by {}{}", self.score, clause("at", &self.tap.map(|t| t.name)))
    }
}

impl LayerMetric {
    pub fn name(self) -> &'static str {
        let known = crate::metrics::LAYER_METRICS.iter().find(|m| m.metric == self);
        known.map_or("?", |m| m.name)
    }
}

impl Display for Score {
    fn fmt(&self, f: &mut Formatter) -> Result {
        match self {
            Score::Metric(name) => f.write_str(name),
            Score::Layer(metric) => f.write_str(metric.name()),
            Score::Iterative(metric) => write!(f, "iterative({})", metric.name()),
            Score::Contiguous(metric) => write!(f, "contiguous({})", metric.name()),
            Score::Random { seed } => write!(f, "random(seed = {seed})"),
            Score::Residual { damping } => write!(f, "residual(damping = {damping})"),
            Score::Reverse(inner) => write!(f, "reverse({inner})"),
            Score::Pca => f.write_str("pca"),
        }
    }
}

impl Display for Constraints {
    fn fmt(&self, f: &mut Formatter) -> Result {
        if !self.groups.is_empty() {
            writeln!(f, "    under {}", self.groups.join(", "))?;
        }
        if self.channels_per_head {
            writeln!(f, "    channels of every head by themselves")?;
        }
        self.multiple_of.iter().try_for_each(|(axis, n)| writeln!(f, "    {axis} multiple_of {n}"))?;
        if !self.protect.is_empty() {
            writeln!(f, "    protect layers {{{}}}", joined(&self.protect, ", "))?;
        }
        self.keep.iter().try_for_each(|(kind, n)| writeln!(f, "    keep {} {n}", kind.name()))?;
        if self.heads_before_channels {
            writeln!(f, "    heads before channels")?;
        }
        Ok(())
    }
}

impl Display for RepairKind {
    fn fmt(&self, f: &mut Formatter) -> Result {
        match self {
            RepairKind::Norms { power: Some(p) } => write!(f, "norms by (old / new)^{p}"),
            RepairKind::Norms { power: None } => f.write_str("norms fitted"),
            RepairKind::LeastSquares { damping, sequential } => {
                let order = if *sequential { "sequential " } else { "" };
                write!(f, "outputs {order}by least_squares(damping = {damping})")
            }
        }
    }
}

impl Display for Search {
    fn fmt(&self, f: &mut Formatter) -> Result {
        writeln!(f, "in {}", self.space)?;
        self.require.iter().try_for_each(|r| writeln!(f, "    require {r}"))?;
        self.rungs.iter().try_for_each(|r| writeln!(f, "    rank by {r}"))?;
        self.ties.iter().try_for_each(|t| writeln!(f, "    break ties within {} by {}", t.within, t.by))?;
        self.controls.iter().try_for_each(|c| writeln!(f, "    control {c}"))?;
        match &self.training {
            Some(training) => writeln!(f, "    trained {training}"),
            None => Ok(()),
        }
    }
}

impl Display for Require {
    fn fmt(&self, f: &mut Formatter) -> Result {
        if matches!(self.quantity, Quantity::Refusals { .. }) {
            return self.quantity.fmt(f);
        }
        if self.lo > f64::NEG_INFINITY {
            write!(f, "{} <= ", self.lo)?;
        }
        self.quantity.fmt(f)?;
        if self.hi < f64::INFINITY { write!(f, " <= {}", self.hi) } else { Ok(()) }
    }
}

impl Display for Quantity {
    fn fmt(&self, f: &mut Formatter) -> Result {
        match self {
            Quantity::Params => f.write_str("params"),
            Quantity::ActiveParams => f.write_str("active_params"),
            Quantity::Flops { sequence } => write!(f, "flops(sequence = {sequence})"),
            Quantity::Memory { batch, sequence } => {
                write!(f, "memory(batch = {batch}, sequence = {sequence})")
            }
            Quantity::BodyParams => f.write_str("body_params"),
            Quantity::DecodeFlops { context } => write!(f, "decode_flops(context = {context})"),
            Quantity::Cache { batch, sequence } => {
                write!(f, "cache(batch = {batch}, sequence = {sequence})")
            }
            Quantity::Activations { batch, sequence } => {
                write!(f, "activations(batch = {batch}, sequence = {sequence})")
            }
            Quantity::Refusals { target, given } => {
                write!(f, "deployable for {target}")?;
                let given = given.iter().map(|(name, value)| format!("{name} = {value}"));
                let given = joined(given, ", ");
                if given.is_empty() { Ok(()) } else { write!(f, "({given})") }
            }
            Quantity::Latency { input, batch } => write!(f, "latency(input = {input}, batch = {batch})"),
            Quantity::Throughput { input, output, batch } => {
                write!(f, "throughput(input = {input}, output = {output}, batch = {batch})")
            }
            Quantity::Measured(measure) => f.write_str(measure.name()),
        }
    }
}

impl Display for Objective {
    fn fmt(&self, f: &mut Formatter) -> Result {
        if let Some(quantity) = self.alone() {
            return quantity.fmt(f);
        }
        f.write_str(&joined(
            self.terms.iter().map(|(weight, quantity)| format!("{weight} * {quantity}")),
            " + ",
        ))
    }
}

impl Display for RungTraining {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(f, "on {}{}", self.data, clause("beside", &self.teacher))
    }
}

impl Display for Rung {
    fn fmt(&self, f: &mut Formatter) -> Result {
        let order = if self.descending { " descending" } else { "" };
        write!(f, "{}{order}{}{}", self.by, clause("on", &self.on), clause("after", &self.after))?;
        write!(f, "{} keep {}", clause("for", &self.tokens), self.keep)
    }
}

impl Display for Control {
    fn fmt(&self, f: &mut Formatter) -> Result {
        match self {
            Control::Random { seed } => write!(f, "random(seed = {seed})"),
            Control::Reverse => f.write_str("reverse"),
            Control::GroupUnaware => f.write_str("group_unaware"),
        }
    }
}

impl Display for Phase {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(f, "phase {:?}: {} x {}", self.name, self.tokens, joined(&self.loss, " + "))?;
        write!(
            f,
            "; batch {}{}{}",
            self.batch,
            clause("sequence", &self.sequence),
            clause("on", &self.data)
        )?;
        write!(f, "; {}; {}", self.optimizer, self.rate)
    }
}

impl Display for LossTerm {
    fn fmt(&self, f: &mut Formatter) -> Result {
        let arguments = self.arguments.iter().map(|(name, value)| format!("{name} = {value}"));
        write!(f, "{} {}({})", self.weight, self.loss, joined(arguments, ", "))
    }
}

impl Display for Optimizer {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(f, "adamw({}, {}, eps {}, decay {}", self.beta1, self.beta2, self.eps, self.weight_decay)?;
        write!(f, "{})", clause("clip", &self.clip))
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(f, "{} {} to {} after {} updates", self.shape, self.peak, self.floor, self.warmup)?;
        f.write_str(&clause("decay", &self.decay))
    }
}

impl Display for Distill {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(
            f,
            "from {}{} on {} by {}",
            self.from,
            clause("teacher", &self.teacher),
            self.data,
            self.schedule
        )?;
        write!(f, "{}{}", self.weights, clause("held out", &self.heldout))
    }
}

impl Display for Weights {
    fn fmt(&self, f: &mut Formatter) -> Result {
        match self {
            Weights::Own => Ok(()),
            Weights::Random { seed } => write!(f, " weights random(seed = {seed})"),
        }
    }
}

impl Display for Heldout {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(f, "{} every {} tokens", self.data, self.every)
    }
}

impl Display for Evaluation {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(f, "evaluate {}{} on {}: ", self.model, clause("against", &self.against), self.on)?;
        f.write_str(&joined(self.measures.iter().map(|m| m.name()), ", "))
    }
}

impl Display for Sensitivity {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(f, "of {} on {}: {}", self.space, self.on, joined(&self.quantities, ", "))
    }
}

impl Display for Deployment {
    fn fmt(&self, f: &mut Formatter) -> Result {
        let targets = self.targets.iter().map(|(name, arguments)| {
            let arguments = arguments.iter().map(|(name, value)| format!("{name} = {value}"));
            format!("{name}({})", joined(arguments, ", "))
        });
        write!(f, "deploy {} for {}", self.model, joined(targets, ", "))
    }
}

impl Display for Export {
    fn fmt(&self, f: &mut Formatter) -> Result {
        let dtype = self.dtype.map(|d| d.recipe_name());
        write!(
            f,
            "export {} to {:?}{}{}",
            self.model,
            self.to,
            clause("as", &dtype),
            clause("shard", &self.shard)
        )
    }
}
