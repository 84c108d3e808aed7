//! What is known of a name: the sizes of a model and of what it is made from, the value of a param, what data hold.

use super::Draft;
use super::words::{Word, WordKind};
use crate::axes;
use crate::check::names::{Kind, declared};
use crate::check::value::{bytes, count};
use crate::check::{Counts, Outline, Shape};
use crate::cost::{Parts, SEQUENCE};
use crate::dim::Dim;
use crate::hir::Quantity;
use crate::model::LayerKind;
use crate::text::grouped;
use minic_grammar::ast::{Declaration, Ident, Unit};
use minic_grammar::{forms, quantity};

/// Of a search with more points left no bounds are computed while a recipe is written.
const MOST_POINTS: usize = 2_000;

/// A number with a unit, in full.
pub(super) fn number(word: &str) -> Option<String> {
    let (value, unit) = quantity(word)?;
    let plain = word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let text = match unit {
        Unit::Count | Unit::Integer => format!("{} (a count)", grouped(value as u64)),
        Unit::Bytes => format!("{} bytes", grouped(value as u64)),
        Unit::Percent => format!("{value} (a fraction)"),
        Unit::Duration => format!("{value} seconds"),
        Unit::Updates => format!("{value} updates"),
        Unit::Float => return None,
    };
    (!plain).then(|| format!("`{word}` = {text}"))
}

/// The one model that a name stands for, where it is one and its sizes are known.
pub(super) fn outline<'a>(draft: &'a Draft, name: &str) -> Option<&'a Outline> {
    match draft.checked.known.shapes.get(name)? {
        Shape::One(outline) => Some(outline),
        Shape::Space(_) | Shape::Chosen(_) | Shape::Unknown => None,
    }
}

/// A few words about a name, for lists.
pub(super) fn short(draft: &Draft, name: &str) -> Option<String> {
    let known = &draft.checked.known;
    if let Some(param) = known.recipe.params.get(name) {
        return Some(param.value.to_string());
    }
    match known.shapes.get(name)? {
        Shape::One(outline) => {
            Some(format!("{} parameters", range(bounds(outline, &Quantity::Params), count)))
        }
        Shape::Space(space) => Some(format!("a space of {} points", grouped(space.len()))),
        Shape::Chosen(space) => Some(format!("the best of {} points", grouped(space.len()))),
        Shape::Unknown => None,
    }
}

/// `parent.hidden_size`
pub(super) fn dimension(draft: &Draft, model: &str, dim: &str) -> Option<String> {
    let dim = Dim::from_name(dim)?;
    let size = outline(draft, model)?.dim(dim)?;
    let doc = axes::AXES.iter().find(|axis| axis.dim == dim).map_or("", |axis| axis.doc);
    Some(format!("`{model}.{dim}` = **{size}**\n\n{doc}"))
}

/// Everything that is known of a declared name, as Markdown.
pub(super) fn declaration(draft: &Draft, name: &Ident) -> String {
    let declarations = draft.checked.ast.declarations.iter();
    let found = declarations.filter_map(|d| declared(d).map(|(kind, ident)| (d, kind, ident)));
    let Some((declaration, kind, _)) = found.into_iter().find(|(_, _, ident)| ident.span == name.span) else {
        return format!("`{}`", name.node);
    };
    let mut text = format!("```mrecipe\n{}\n```\n", head(draft, declaration));
    let body = match kind {
        Kind::Param => param(draft, &name.node),
        Kind::Model | Kind::Prune | Kind::Search | Kind::Distill => {
            model(draft, &name.node, parent(declaration))
        }
        Kind::Data => data(draft, &name.node),
        Kind::Metric | Kind::Group | Kind::Schedule | Kind::Sensitivity => String::new(),
    };
    if body.is_empty() {
        text.push_str(forms::doc(first_word(draft, declaration)).unwrap_or_default());
    }
    text + &body
}

/// The declaration up to its block; short ones whole.
fn head<'a>(draft: &'a Draft, declaration: &Declaration) -> &'a str {
    let span = declaration.span();
    let whole = draft.checked.sources.text(span);
    match (whole.find('{'), whole.contains('\n')) {
        (Some(brace), true) => whole[..brace].trim_end(),
        _ => whole,
    }
}

fn first_word<'a>(draft: &'a Draft, declaration: &Declaration) -> &'a str {
    head(draft, declaration).split_whitespace().next().unwrap_or_default()
}

fn parent(declaration: &Declaration) -> Option<&str> {
    match declaration {
        Declaration::Prune(d) => Some(&d.from.node),
        Declaration::Search(d) => Some(&d.space.node),
        Declaration::Distill(d) => Some(&d.from.node),
        _ => None,
    }
}

fn param(draft: &Draft, name: &str) -> String {
    match draft.checked.known.recipe.params.get(name) {
        Some(param) => {
            let set = format!("`--set {name}=VALUE` gives it another value.");
            format!("= **{}**{}. {set}", param.value, replaced(draft, name).unwrap_or_default())
        }
        None => "Its value is not known.".into(),
    }
}

/// What a `use` gives in the place of the value that the used file declares.
fn replaced(draft: &Draft, name: &str) -> Option<String> {
    let mut params = draft.checked.ast.declarations.iter().filter_map(|d| match d {
        Declaration::Param(param) => Some(param),
        _ => None,
    });
    let param = params.find(|param| param.name.node == name)?;
    let replaced = draft.checked.replaced.iter().find(|r| r.value == param.value.span)?;
    let sources = &draft.checked.sources;
    let (file, _) = sources.locate(replaced.value);
    Some(format!(", by a `use` of `{}`, instead of {}", file.name, sources.text(replaced.default)))
}

fn data(draft: &Draft, name: &str) -> String {
    let Some(data) = draft.checked.known.recipe.data.get(name) else { return String::new() };
    let windows = data.samples.map_or("all windows".into(), |n| format!("{n} windows"));
    let tokens = data
        .samples
        .map_or(String::new(), |n| format!(", {} tokens", count(n as f64 * data.sequence as f64)));
    format!("{windows} of {} tokens{tokens}", data.sequence)
}

/// Sizes and costs of a model, beside those of what it is made from.
fn model(draft: &Draft, name: &str, from: Option<&str>) -> String {
    let parent = from.and_then(|from| Some((from, outline(draft, from)?)));
    match draft.checked.known.shapes.get(name) {
        Some(Shape::One(outline)) => match parent {
            Some((from, parent)) => {
                table(draft, &[(from, Column::of(draft, parent)), (name, Column::of(draft, outline))])
            }
            None => table(draft, &[(name, Column::of(draft, outline))]),
        },
        Some(Shape::Space(space)) => {
            let points = format!("A space of **{}** points.\n\n", grouped(space.len()));
            let varied = Column::varied(draft, space.parent(), &space.axes);
            points + &both(draft, parent, varied.map(|column| (name, column)))
        }
        Some(Shape::Chosen(space)) => {
            let left = space.left.as_ref().map_or(space.len(), |left| left.len() as u64);
            let text = format!(
                "The best of **{}** points that meet the requirements, of {}.\n\n",
                grouped(left),
                grouped(space.len())
            );
            let column =
                space.points.as_ref().zip(space.left.as_ref()).filter(|(_, left)| left.len() <= MOST_POINTS);
            let column = column.map(|(points, left)| {
                let mut model = points.parent().clone();
                let each = left.iter().map(|point| {
                    points.enter(&mut model, *point);
                    Column::of(draft, &model)
                });
                each.reduce(Column::joined)
            });
            text + &both(draft, None, column.flatten().map(|column| (name, column)))
        }
        Some(Shape::Unknown) | None => {
            "Its sizes are not known: config.json is not at hand, or something is wrong.".into()
        }
    }
}

fn both(draft: &Draft, parent: Option<(&str, &Outline)>, own: Option<(&str, Column)>) -> String {
    let parent = parent.map(|(name, outline)| (name, Column::of(draft, outline)));
    let columns: Vec<(&str, Column)> = parent.into_iter().chain(own).collect();
    table(draft, &columns)
}

/// The least and the greatest of everything that a model may turn out to be.
struct Column {
    family: &'static str,
    dims: Vec<(Dim, (usize, usize))>,
    layers: Vec<(LayerKind, (usize, usize))>,
    /// Of each of [`figures`].
    costs: Vec<(u64, u64)>,
}

fn wider<T: Ord + Copy>(a: (T, T), b: (T, T)) -> (T, T) {
    (a.0.min(b.0), a.1.max(b.1))
}

impl Column {
    fn of(draft: &Draft, outline: &Outline) -> Column {
        let dim = |dim: &Dim| outline.dim(*dim).map(|n| (*dim, (n, n)));
        Column {
            family: outline.desc.family,
            dims: outline.desc.dims.keys().filter_map(dim).collect(),
            layers: LayerKind::ALL.iter().map(|kind| (*kind, outline.layers.range(*kind))).collect(),
            costs: figures(draft).iter().map(|quantity| bounds(outline, quantity)).collect(),
        }
    }

    /// Of a space: between the model of the smallest values and that of the largest. Costs grow with every size.
    fn varied(draft: &Draft, parent: Option<&Outline>, axes: &[(Dim, Vec<usize>)]) -> Option<Column> {
        let end = |pick: fn(&Vec<usize>) -> Option<usize>| {
            let mut model = parent?.clone();
            for (dim, values) in axes.iter().filter(|(dim, _)| *dim != Dim::NumLayers) {
                model.desc.dims.insert(*dim, pick(values)?);
            }
            if let Some((_, depths)) = axes.iter().find(|(dim, _)| *dim == Dim::NumLayers) {
                model.layers = model.survivors(pick(depths)?, &Default::default())?;
            }
            Some(Column::of(draft, &model))
        };
        let least = end(|values| values.iter().min().copied())?;
        Some(least.joined(end(|values| values.iter().max().copied())?))
    }

    fn joined(self, other: Column) -> Column {
        let dims = self.dims.into_iter().zip(&other.dims).map(|((dim, a), (_, b))| (dim, wider(a, *b)));
        let layers =
            self.layers.into_iter().zip(&other.layers).map(|((kind, a), (_, b))| (kind, wider(a, *b)));
        Column {
            family: self.family,
            dims: dims.collect(),
            layers: layers.collect(),
            costs: self.costs.into_iter().zip(other.costs).map(|(a, b)| wider(a, b)).collect(),
        }
    }

    fn dim(&self, dim: Dim) -> Option<(usize, usize)> {
        self.dims.iter().find(|(known, _)| *known == dim).map(|(_, range)| *range)
    }
}

/// What a model is shown to cost, on the longest sequence of the recipe's data.
fn figures(draft: &Draft) -> [Quantity; 3] {
    let data = draft.checked.known.recipe.data.values();
    let sequence = data.map(|data| data.sequence).max().unwrap_or(SEQUENCE);
    [Quantity::Params, Quantity::Memory { batch: 1, sequence }, Quantity::Flops { sequence }]
}

/// Names at the head, one line for each size and cost.
fn table(draft: &Draft, columns: &[(&str, Column)]) -> String {
    let Some((_, first)) = columns.first() else { return String::new() };
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("`{name}` |")).collect();
    let rule = " ---: |".repeat(columns.len());
    let mut text = format!("| {} | {}\n| :--- |{rule}\n", first.family, names.join(" "));
    let mut row = |title: &str, cells: Vec<String>| {
        let changed = cells.windows(2).any(|pair| pair[0] != pair[1]);
        let cells = cells.iter().enumerate().map(|(i, cell)| match changed && i > 0 {
            true => format!(" **{cell}** |"),
            false => format!(" {cell} |"),
        });
        text.push_str(&format!("| {title} |{}\n", cells.collect::<String>()));
    };
    for (dim, _) in &first.dims {
        let size = |column: &Column| column.dim(*dim).map_or(String::new(), |r| span(r.0 as u64, r.1 as u64));
        row(dim.name(), columns.iter().map(|(_, column)| size(column)).collect());
    }
    for (i, (kind, _)) in first.layers.iter().enumerate() {
        let range = |column: &Column| column.layers.get(i).map_or((0, 0), |(_, range)| *range);
        if columns.iter().any(|(_, column)| range(column).1 > 0) {
            let cells =
                columns.iter().map(|(_, column)| span(range(column).0 as u64, range(column).1 as u64));
            row(&format!("{} layers", kind.name()), cells.collect());
        }
    }
    for (i, quantity) in figures(draft).iter().enumerate() {
        let (title, show): (String, fn(f64) -> String) = match quantity {
            Quantity::Memory { sequence, .. } => (format!("memory, a sequence of {sequence}"), bytes),
            Quantity::Flops { sequence } => (format!("operations of {sequence} tokens"), count),
            _ => ("parameters".into(), count),
        };
        let cost = |column: &Column| column.costs.get(i).map_or(String::new(), |cost| range(*cost, show));
        row(&title, columns.iter().map(|(_, column)| cost(column)).collect());
    }
    text
}

fn span(least: u64, most: u64) -> String {
    if least == most { least.to_string() } else { format!("{least} ..= {most}") }
}

fn range((least, most): (u64, u64), show: fn(f64) -> String) -> String {
    let (a, b) = (show(least as f64), show(most as f64));
    if a == b { a } else { format!("{a} ..= {b}") }
}

/// Of a quantity that follows from the sizes, whichever layers survive.
fn bounds(outline: &Outline, quantity: &Quantity) -> (u64, u64) {
    let Some(parts) = Parts::of(quantity, &outline.desc) else { return (0, 0) };
    let (fewest, most) = (outline.layers.fewest, outline.layers.most);
    let rest = |a: usize, b: usize| {
        let third = outline.layers.total.checked_sub(a + b)?;
        (fewest[2]..=most[2]).contains(&third).then_some([a, b, third])
    };
    let choices = (fewest[0]..=most[0]).flat_map(|a| (fewest[1]..=most[1]).filter_map(move |b| rest(a, b)));
    let costs = choices.map(|counts: Counts| parts.total(&counts));
    costs.map(|cost| (cost, cost)).reduce(wider).unwrap_or_default()
}

/// Sizes that an axis may be cut to: eighths of the parent's, as the family allows them.
pub(super) fn axis_values(draft: &Draft, axis: &str, parent: Option<&str>) -> Vec<Word> {
    let Some((axis, outline)) = axes::find(axis).zip(parent.and_then(|name| outline(draft, name))) else {
        return Vec::new();
    };
    let Some(size) = outline.dim(axis.dim) else { return Vec::new() };
    let step = axis.dim.within().and_then(|outer| outline.dim(outer)).unwrap_or(1).max(1);
    let mut eighths: Vec<(usize, usize)> = (1..8).rev().map(|n| (size * n / 8 / step * step, n)).collect();
    eighths.dedup_by_key(|(value, _)| *value);
    eighths
        .into_iter()
        .filter(|(value, _)| (1..size).contains(value))
        .map(|(value, _)| {
            let share = format!("{:.0}% of {size}", value as f64 / size as f64 * 100.0);
            Word {
                kind: WordKind::Constant,
                label: value.to_string(),
                detail: share,
                doc: String::new(),
                insert: None,
            }
        })
        .collect()
}
