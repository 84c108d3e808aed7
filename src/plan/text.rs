//! The answer of `minic plan` for people: the shape of every model, the state and the cost of every stage.

use super::report::{Phase, Report, StageReport, Standing, Totals};
use crate::inspect::DIMS;
use crate::output::Output;
use crate::recipe;
use crate::table::{Table, bytes, duration, grouped, operations};
use minic_compiler::dim::Dim;
use minic_compiler::model::LayerKind;
use minic_compiler::plan::{self, Bounds, Points, Shape, Stage};

impl<'a> Report<'a> {
    pub fn to_text(&self, output: &Output) -> String {
        let bold = |text: String| if output.styled { format!("\x1b[1m{text}\x1b[0m") } else { text };
        let mut out = String::new();
        for (name, shape) in &self.shapes.models {
            out += &bold(name.clone());
            match shape {
                Some(shape) => out += &self.model_text(shape),
                None => out += "  config.json is not at hand\n",
            }
            out.push('\n');
        }
        out += &self.table(output, &bold);
        for stage in &self.stages {
            if let Stage::Search(search) = &stage.node.stage {
                out += &bold(format!("\n{}, rung by rung\n", stage.node.name));
                out += &stage.rungs(search);
            }
        }
        out + &self.legend()
    }

    /// A line for every stage, and below it what is to be said of it.
    fn table(&self, output: &Output, bold: &dyn Fn(String) -> String) -> String {
        let mut table =
            Table::new(&["state", "stage", ">passes", ">operations", ">memory", ">disk", ">time"]);
        self.stages.iter().for_each(|stage| table.row(stage.cells()));
        let text = table.render(|_, line| line);
        let mut lines = text.lines().map(String::from);
        let mut out = lines.next().map(|head| bold(head) + "\n").unwrap_or_default();
        for (stage, line) in self.stages.iter().zip(lines) {
            let below = stage.remarks(output.verbose).into_iter().map(|remark| format!("    {remark}"));
            for line in std::iter::once(line).chain(below) {
                out += &match output.styled.then(|| stage.state.color()).flatten() {
                    Some(color) => format!("\x1b[{color}m{line}\x1b[0m\n"),
                    None => line + "\n",
                };
            }
        }
        out
    }

    /// The sums, and what stands behind the columns.
    fn legend(&self) -> String {
        let t = self.totals();
        let mut sums = vec![format!("{} to run, {} cached, {} blocked", t.run, t.cached, t.blocked)];
        sums.push(match (t.seconds.max > 0.0, t.untimed) {
            (false, 0) => "no time".into(),
            (false, _) => "time not measured".into(),
            (true, 0) => format!("time {}", spent(t.seconds, t.rough)),
            (true, n) => {
                let stages = recipe::count(n, "stage");
                format!("time {} beside {stages} not measured", spent(t.seconds, t.rough))
            }
        });
        if t.flops.max > 0.0 {
            let beside = if t.uncounted > 0 { ", and what is not known yet" } else { "" };
            sums.push(format!("{} operations{beside}", ranged(t.flops, operations)));
        }
        if t.updates > 0 {
            sums.push(format!("{} on {} tokens", recipe::count_of(t.updates, "update"), grouped(t.tokens)));
        }
        if t.disk.max > 0 {
            sums.push(format!("disk {}", ranged(t.disk, bytes)));
        }
        if let Some(memory) = t.memory {
            sums.push(format!("peak memory {} on {}", ranged(memory, bytes), self.device));
        }
        let mut out = format!("\n{}\n", wrapped(&sums, "; "));
        if t.run + t.blocked > 0 {
            out += &self.measure(&t);
            out += LEGEND;
        }
        out
    }

    /// How times become better.
    fn measure(&self, totals: &Totals) -> String {
        let missing: Vec<String> = self.missing().into_iter().collect();
        let command = "`minic bench recipe RECIPE` measures";
        match (missing.as_slice(), totals.rough) {
            ([], false) => String::new(),
            ([], true) => format!("~ is by figures of models of other sizes: {command} these.\n"),
            (missing, _) => {
                format!("Not measured on this machine: {}.\n{command} that.\n", missing.join(", "))
            }
        }
    }

    fn model_text(&self, shape: &Shape) -> String {
        let mut out = match &shape.from {
            Some(from) => format!("  from {from}"),
            None => format!("  {}", shape.family()),
        };
        let made_from = shape.from.as_deref().and_then(|from| self.shapes.get(from));
        if made_from.is_some_and(|from| from.is_same(shape)) {
            return out + ", of the same shape\n";
        }
        let before = self.reference(shape);
        let mut table = Table::new(&["", ""]);
        let mut line = |name: &str, value: &dyn Fn(&Shape) -> String, remark: String| {
            let new = value(shape);
            let change = match before.map(|(_, shape)| value(shape)) {
                Some(old) if old != new => format!("{old} -> {new}"),
                _ => new,
            };
            let gap = if remark.is_empty() { "" } else { "  " };
            table.row(vec![format!("    {name}"), format!("{change}{gap}{remark}")]);
        };
        let of = |(name, whole): (&str, &Shape)| {
            share(whole.params(), shape.params()).map(|share| format!("{share} of {name}"))
        };
        if let Some(points) = shape.points {
            line("points", &|_| points_of(points), String::new());
        }
        line("parameters", &|s| ranged(s.params(), grouped), before.and_then(of).unwrap_or_default());
        line("layers", &layers, shape.layers.as_ref().map(|l| pattern(l)).unwrap_or_default());
        for dim in DIMS.iter().filter(|dim| !shape.sizes(**dim).is_empty()) {
            let size = |s: &Shape| sizes(&s.sizes(*dim));
            if before.is_none_or(|(_, p)| size(p) != size(shape)) {
                line(dim.name(), &size, String::new());
            }
        }
        let at = format!("sequence {}", self.sequence);
        let flops = |s: &Shape| ranged(s.flops_per_token(self.sequence).map(|f| f as f64), operations);
        line("operations", &flops, format!("per token, {at}"));
        line("deployed", &|s| ranged(s.memory(1, self.sequence), bytes), format!("bf16, batch 1, {at}"));
        let text = table.render(|_, text| text);
        out.push('\n');
        out + text.split_once('\n').map_or("", |(_, rows)| rows)
    }

    /// The nearest model before this one whose parameters are known exactly.
    fn reference(&self, shape: &Shape) -> Option<(&'a str, &'a Shape)> {
        let mut from = shape.from.as_deref()?;
        // A model is never made from itself, so that each is passed once.
        for _ in 0..=self.shapes.models.len() {
            let (name, known) = self.shapes.models.get_key_value(from)?;
            let known = known.as_ref()?;
            match (known.params().exact(), known.from.as_deref()) {
                (Some(_), _) | (None, None) => return Some((name, known)),
                (None, Some(next)) => from = next,
            }
        }
        None
    }
}

impl StageReport<'_> {
    /// The rungs of a search, one line each.
    fn rungs(&self, search: &plan::Search) -> String {
        let titles = ["", "rung", ">candidates", ">passes", ">training", ">operations", ">memory", "by"];
        let mut table = Table::new(&titles);
        for (number, (rung, e)) in search.search.rungs.iter().zip(&self.estimate.rungs).enumerate() {
            let passes = match (e.passes, e.samples) {
                (0, _) => String::new(),
                (passes, Some(samples)) => format!("{passes} over {samples} samples"),
                (passes, None) => passes.to_string(),
            };
            table.row(vec![
                String::new(),
                (number + 1).to_string(),
                ranged(e.candidates, grouped),
                passes,
                e.tokens.map(|tokens| format!("{} tokens", grouped(tokens))).unwrap_or_default(),
                e.flops.filter(|flops| flops.max > 0.0).map(|f| ranged(f, operations)).unwrap_or_default(),
                e.memory.map(|held| ranged(held, bytes)).unwrap_or_default(),
                rung.to_string(),
            ]);
        }
        table.render(|_, line| line)
    }

    fn cells(&self) -> Vec<String> {
        let e = &self.estimate;
        let passes = e.passes.map(|p| match p.partial {
            0 => p.whole.to_string(),
            partial => format!("{}+{partial}", p.whole),
        });
        let work = match (e.flops, e.sample_flops) {
            (Some(flops), _) => ranged(flops, operations),
            (None, Some(one)) => format!("{} each", ranged(one, operations)),
            (None, None) => String::new(),
        };
        vec![
            format!("{} {}", self.state.symbol(), self.state.name()),
            self.label(),
            passes.unwrap_or_default(),
            work,
            e.memory.map(|m| ranged(m, bytes)).unwrap_or_default(),
            e.disk.map(|d| ranged(d, bytes)).unwrap_or_default(),
            self.time_text(),
        ]
    }

    /// The name, after the kind where that does not tell it.
    fn label(&self) -> String {
        let (kind, name) = (self.node.stage.name(), &self.node.name);
        let told = name.split(['.', ' ']).any(|word| word == kind);
        if told { name.clone() } else { format!("{kind} {name}") }
    }

    fn time_text(&self) -> String {
        match (&self.state, self.time.seconds) {
            (Standing::Cached, _) => String::new(),
            (_, Some(seconds)) if seconds.max > 0.0 => spent(seconds, self.time.rough),
            (_, Some(_)) => String::new(),
            (_, None) => "?".into(),
        }
    }

    /// Why it stands as it does, and what it does.
    fn remarks(&self, verbose: bool) -> Vec<String> {
        let phase = |p: &Phase| {
            format!(
                "{}: {} of {} x {} = {} tokens of {}",
                p.name,
                recipe::count_of(p.updates, "update"),
                p.batch,
                p.sequence,
                grouped(p.tokens),
                p.data
            )
        };
        let detail = verbose.then(|| self.node.stage.detail()).filter(|detail| !detail.is_empty());
        let reason = self.state.reason().map(ToString::to_string);
        reason.into_iter().chain(self.phases.iter().map(phase)).chain(detail).collect()
    }
}

impl Standing {
    fn symbol(&self) -> &'static str {
        match self {
            Standing::Run(_) => "+",
            Standing::Cached => "=",
            Standing::Blocked(_) => "!",
        }
    }

    /// Of a terminal: what is there is dim, what cannot be run is yellow.
    fn color(&self) -> Option<u8> {
        match self {
            Standing::Run(_) => None,
            Standing::Cached => Some(2),
            Standing::Blocked(_) => Some(33),
        }
    }
}

const LEGEND: &str = "\
Passes over each sample: whole+partial. Memory of weights in f32 and one lane's buffers; of a
training, with gradients and AdamW's averages, the least where blocks are computed again.
Disk of a training: its weights and averages until it ends, a third of it afterwards.
";

/// `~2 min .. 3 min`; of ends that differ by less than a measurement does, the longer.
fn spent(seconds: Bounds<f64>, rough: bool) -> String {
    let close = seconds.max <= 1.1 * seconds.min;
    let text = if close { duration(seconds.max) } else { ranged(seconds, duration) };
    format!("{}{text}", if rough { "~" } else { "" })
}

/// Parts side by side, in lines of at most 100 columns.
fn wrapped(parts: &[String], between: &str) -> String {
    const COLUMNS: usize = 100;
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + between.len() + part.chars().count() <= COLUMNS => {
                *line += &format!("{between}{part}");
            }
            Some(line) => {
                *line += between.trim_end();
                lines.push(part.clone());
            }
            None => lines.push(part.clone()),
        }
    }
    lines.join("\n")
}

/// `9,600, of which 147 .. 1,614 are feasible`
fn points_of(points: Points) -> String {
    match points.feasible.exact() {
        Some(feasible) if feasible == points.all => grouped(points.all),
        _ => format!("{}, of which {} are feasible", grouped(points.all), ranged(points.feasible, grouped)),
    }
}

fn ranged<T>(bounds: Bounds<T>, show: fn(T) -> String) -> String {
    let (min, max) = (show(bounds.min), show(bounds.max));
    let unit = |text: &str| text.split_once(' ').map(|(_, unit)| unit.to_string());
    match (unit(&min), unit(&max)) {
        _ if min == max => min,
        (Some(a), Some(b)) if a == b => format!("{}..{max}", min.trim_end_matches(&a).trim_end()),
        _ => format!("{min} .. {max}"),
    }
}

/// `55.4 %`; nothing where nothing was cut.
fn share(whole: Bounds, part: Bounds) -> Option<String> {
    let percent = |n: u64| n as f64 * 100.0 / whole.max.max(1) as f64;
    let percent = part.map(|n| format!("{:.1}", percent(n)));
    match (whole == part, percent.min == percent.max) {
        (true, _) => None,
        (_, true) => Some(format!("{} %", percent.min)),
        _ => Some(format!("{} .. {} %", percent.min, percent.max)),
    }
}

fn pattern(layers: &[LayerKind]) -> String {
    layers.iter().map(|k| k.letter()).collect()
}

fn layers(shape: &Shape) -> String {
    let kinds = LayerKind::ALL.iter().map(|kind| (kind.name(), shape.count(*kind)));
    let kinds: Vec<String> =
        kinds.filter(|(_, n)| n.max > 0).map(|(name, n)| format!("{} {name}", ranged(n, grouped))).collect();
    format!("{} ({})", sizes(&shape.sizes(Dim::NumLayers)), kinds.join(", "))
}

/// One size, a few, or the ends of many.
fn sizes(sizes: &[usize]) -> String {
    match sizes {
        [] => "none".into(),
        [one] => one.to_string(),
        few if few.len() <= 6 => {
            format!("{{{}}}", few.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        [first, .., last] => format!("{first} .. {last}"),
    }
}
