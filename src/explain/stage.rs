//! How a stage of a plan comes about: the declaration that asked for it, what it depends on, what depends on it.

use crate::output::{Exit, Failure, Output};
use crate::recipe::{self, Recipe};
use crate::table::Table;
use minic_compiler::check::Override;
use minic_compiler::plan::{Plan, Stage, StageId, Value};
use minic_grammar::ast::{Declaration, Param};
use minic_grammar::render::{LineIndex, Position};
use minic_grammar::{Span, nearest};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

pub fn explain(path: &Path, name: &str, overrides: &[Override], output: &Output) -> Result<(), Failure> {
    let recipe = Recipe::load(path, overrides)?;
    let plan = recipe::plan(recipe.checked(output)?)?;
    let id = plan.find(name).ok_or_else(|| unknown(&plan, name))?;
    let explained = Explained { recipe: &recipe, plan: &plan, id, overrides };
    if output.json { output.document(&explained.to_json()) } else { output.answer(&explained.to_text()) }
}

fn unknown(plan: &Plan, name: &str) -> Failure {
    let nodes: Vec<_> = plan.order().into_iter().map(|id| plan.node(id)).collect();
    let names = nodes.iter().flat_map(|n| std::iter::once(&n.name).chain(&n.makes)).map(String::as_str);
    let help = match nearest(name, names) {
        Some(near) => format!("did you mean `{near}`? `minic plan` lists the stages"),
        None => "`minic plan` lists the stages".into(),
    };
    Failure::new(Exit::Input, format!("the plan has no stage or model `{name}`")).help(help)
}

struct Explained<'a> {
    recipe: &'a Recipe,
    plan: &'a Plan,
    id: StageId,
    overrides: &'a [Override],
}

impl Explained<'_> {
    fn to_json(&self) -> serde_json::Value {
        let node = self.plan.node(self.id);
        let (file, start, end) = self.place(self.span());
        let neighbors = |of: Vec<(StageId, Value)>| -> Vec<serde_json::Value> {
            let json =
                |(id, v): (StageId, Value)| json!({ "name": self.plan.node(id).name, "value": v.name() });
            of.into_iter().map(json).collect()
        };
        let before = self.plan.ancestors(self.id);
        let above = self.plan.order().into_iter().filter(|id| *id != self.id && before.contains(id));
        json!({
            "name": node.name,
            "stage": node.stage.name(),
            "detail": node.stage.detail(),
            "makes": node.makes,
            "aliases": node.aliases,
            "declaration": {
                "file": file,
                "line": start.line,
                "column": start.column,
                "end_line": end.line,
                "end_column": end.column,
                "text": self.declaration(),
            },
            "inputs": neighbors(self.plan.inputs(self.id)),
            "depends_on": above.map(|id| self.plan.node(id).name.clone()).collect::<Vec<_>>(),
            "needed_by": neighbors(self.plan.outputs(self.id)),
            "params": self.knobs().iter().map(Knob::to_json).collect::<Vec<_>>(),
            "overrides": self.overrides.iter().map(Override::text).collect::<Vec<_>>(),
        })
    }

    fn to_text(&self) -> String {
        let node = self.plan.node(self.id);
        let mut out = format!("{}: {}", node.name, node.stage.name());
        let detail = node.stage.detail();
        if !detail.is_empty() {
            let _ = write!(out, " {detail}");
        }
        out.push('\n');
        for (what, names) in [("makes", &node.makes), ("does the work of", &node.aliases)] {
            if !names.is_empty() {
                let _ = writeln!(out, "{what} {}", names.join(", "));
            }
        }
        let (file, start, _) = self.place(self.span());
        let _ = writeln!(out, "\nasked for at {file}:{}", start.line);
        for text in self.declaration().lines() {
            let _ = writeln!(out, "    {text}");
        }
        let knobs = self.knobs();
        if !knobs.is_empty() {
            let mut table = Table::new(&["", "", ""]);
            knobs.iter().for_each(|knob| table.row(knob.cells()));
            let _ = write!(out, "\nwith the params\n{}", body(&table));
        }
        let settings: Vec<&Override> =
            self.overrides.iter().filter(|o| !knobs.iter().any(|k| k.name == o.name)).collect();
        if !settings.is_empty() {
            let shown = settings.iter().map(|o| format!("    --set {}\n", o.text()));
            let _ = write!(out, "\nwith\n{}", shown.collect::<String>());
        }
        let _ = write!(out, "\ndepends on\n{}", self.tree());
        let _ = write!(out, "\nneeded by\n{}", self.readers());
        out
    }

    /// The declaration that asked for the stage; for scores, its line.
    fn span(&self) -> Span {
        let node = self.plan.node(self.id);
        let holds = |s: &Span| s.start <= node.span.start && node.span.end <= s.end;
        match node.stage {
            Stage::Score(_) => node.span,
            _ => self.recipe.ast.declarations.iter().map(Declaration::span).find(holds).unwrap_or(node.span),
        }
    }

    fn declaration(&self) -> &str {
        self.recipe.sources.text(self.span())
    }

    /// The file of a span, and where it begins and ends there.
    fn place(&self, span: Span) -> (&str, Position, Position) {
        let (file, local) = self.recipe.sources.locate(span);
        let lines = LineIndex::new(&file.text);
        (&file.name, lines.position(local.start), lines.position(local.end))
    }

    /// The params that it is made with, and where their values come from.
    fn knobs(&self) -> Vec<Knob<'_>> {
        let node = self.plan.node(self.id);
        let declarations = self.recipe.ast.declarations.iter().map(Declaration::span);
        let holds = |s: &Span| s.start <= node.span.start && node.span.end <= s.end;
        let Some(declaration) = declarations.into_iter().find(holds) else { return Vec::new() };
        let knob = |param: &'_ Param| {
            let written = param.value.span;
            let replaced = self.recipe.replaced.iter().find(|r| r.value == written);
            let mut values = Vec::new();
            let set = self.overrides.iter().rev().find(|o| o.name == param.name.node);
            values.extend(set.map(|o| Given { value: &o.value, by: "--set", place: None }));
            let at = |span: Span, by| {
                let (file, start, _) = self.place(span);
                Given { value: self.recipe.sources.text(span), by, place: Some((file, start.line)) }
            };
            values.extend(replaced.map(|r| at(r.value, "use")));
            values.push(at(replaced.map_or(written, |r| r.default), "param"));
            Knob { name: param.name.node.clone(), values }
        };
        self.recipe.params_of(declaration).into_iter().map(knob).collect()
    }

    /// Everything it is made of, each below what it is for; what stands twice is shown whole once.
    fn tree(&self) -> String {
        let mut rows = Vec::new();
        self.branch(self.id, 1, &mut BTreeSet::new(), &mut rows);
        if rows.is_empty() {
            return "    nothing: it is read from files\n".into();
        }
        let mut table = Table::new(&["", "", ""]);
        rows.into_iter().for_each(|row| table.row(row));
        body(&table)
    }

    fn branch(&self, id: StageId, depth: usize, seen: &mut BTreeSet<StageId>, rows: &mut Vec<Vec<String>>) {
        for (from, value) in self.plan.inputs(id) {
            let node = self.plan.node(from);
            let fresh = seen.insert(from);
            let what = format!("{} {}", node.stage.name(), node.stage.detail());
            rows.push(vec![
                format!("{}{}", "    ".repeat(depth), node.name),
                value.name().into(),
                if fresh { what } else { "as above".into() },
            ]);
            if fresh {
                self.branch(from, depth + 1, seen, rows);
            }
        }
    }

    fn readers(&self) -> String {
        let outputs = self.plan.outputs(self.id);
        if outputs.is_empty() {
            return "    nothing: it is a result\n".into();
        }
        let mut table = Table::new(&["", ""]);
        for (to, value) in outputs {
            table.row(vec![format!("    {}", self.plan.node(to).name), value.name().into()]);
        }
        body(&table)
    }
}

/// A param: the value that holds, and then those that it replaces.
struct Knob<'a> {
    name: String,
    values: Vec<Given<'a>>,
}

/// A value as written, and who gives it.
struct Given<'a> {
    value: &'a str,
    /// `param`, `use` or `--set`.
    by: &'static str,
    place: Option<(&'a str, usize)>,
}

impl Given<'_> {
    fn source(&self) -> String {
        match self.place {
            Some((file, line)) => format!("`{}` at {file}:{line}", self.by),
            None => format!("`{}`", self.by),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        let (file, line) = self.place.unzip();
        json!({ "value": self.value, "by": self.by, "file": file, "line": line })
    }
}

impl Knob<'_> {
    fn cells(&self) -> Vec<String> {
        let holds = self.values.iter().take(1).map(Given::source);
        let replaced = self.values.iter().skip(1).map(|v| format!("instead of {}, {}", v.value, v.source()));
        let value = self.values.first().map_or("", |v| v.value);
        let sources: Vec<String> = holds.chain(replaced).collect();
        vec![format!("    {}", self.name), value.into(), sources.join(", ")]
    }

    fn to_json(&self) -> serde_json::Value {
        json!({ "name": self.name, "values": self.values.iter().map(Given::to_json).collect::<Vec<_>>() })
    }
}

/// A table without its head.
fn body(table: &Table) -> String {
    let text = table.render(|_, line| line);
    text.split_once('\n').map_or(String::new(), |(_, rows)| rows.to_string())
}
