//! The plan as a drawing: layers from left to right, edges as smooth curves. No dependency.
//!
//! The usual three steps (Sugiyama): a stage stands one layer after the last of its inputs; what goes on over
//! several layers gets a waypoint in each, shared by all edges that carry the same value of one stage; within
//! the layers, the order follows the mean place of the neighbours, swept to and fro, and so do the heights.

use super::{Group, NodeRecord, Plan, Value};
use crate::text::escaped;
use std::collections::BTreeMap;
use std::fmt::Write;

const LINE: f64 = 15.0;
const PADDING: f64 = 10.0;
/// Of one character of the detail and of the name, in the fonts given below.
const CHARACTER: f64 = 6.3;
const BOLD_CHARACTER: f64 = 8.3;
const LAYER_GAP: f64 = 90.0;
const GAP: f64 = 18.0;
const MARGIN: f64 = 20.0;
/// Characters to a line of detail, and lines at most.
const WRAP: usize = 34;
const LINES: usize = 6;

/// A stage, or a waypoint of an edge.
struct Item<'a> {
    stage: Option<&'a NodeRecord>,
    lines: Vec<String>,
    width: f64,
    height: f64,
    x: f64,
    /// The middle.
    y: f64,
}

/// A curve from an item to one of the next layer.
#[derive(Clone, Copy, PartialEq)]
struct Segment<'a> {
    from: usize,
    to: usize,
    value: &'a str,
}

struct Drawing<'a> {
    items: Vec<Item<'a>>,
    /// Items from top to bottom.
    layers: Vec<Vec<usize>>,
    segments: Vec<Segment<'a>>,
}

impl Plan {
    /// A standalone SVG document.
    pub fn to_svg(&self) -> String {
        draw(&self.records(), |_| None)
    }
}

/// A standalone SVG document of stages, each after those that feed it. A note stands in a stage's last line.
/// Colors are attributes, which a page's style sheet may overrule by the classes beside them.
pub fn draw(stages: &[NodeRecord], note: impl Fn(&NodeRecord) -> Option<String>) -> String {
    let mut drawing = Drawing::layered(stages, note);
    drawing.order();
    drawing.place();
    drawing.render()
}

impl<'a> Drawing<'a> {
    fn layered(stages: &'a [NodeRecord], note: impl Fn(&NodeRecord) -> Option<String>) -> Drawing<'a> {
        let mut depth: BTreeMap<&str, usize> = BTreeMap::new();
        for stage in stages {
            let before = stage.inputs.iter().filter_map(|input| depth.get(input.from.as_str()));
            let after = before.max().map_or(0, |d| d + 1);
            depth.insert(&stage.name, after);
        }
        let count = depth.values().max().map_or(0, |d| d + 1);
        let mut drawing =
            Drawing { items: Vec::new(), layers: vec![Vec::new(); count], segments: Vec::new() };
        let mut item_of: BTreeMap<&str, usize> = BTreeMap::new();
        for stage in stages {
            let item = drawing.add(stage_item(stage, note(stage)), depth[stage.name.as_str()]);
            item_of.insert(&stage.name, item);
        }
        let edges = |from: &'a str| {
            let inputs = stages.iter().flat_map(|to| to.inputs.iter().map(move |input| (to, input)));
            inputs.filter(move |(_, input)| input.from == from)
        };
        for (from, first) in stages.iter().map(|stage| (stage.name.as_str(), depth[stage.name.as_str()])) {
            let mut waypoints: BTreeMap<(&str, usize), usize> = BTreeMap::new();
            for (to, input) in edges(from) {
                let (value, mut from) = (input.value.as_str(), item_of[from]);
                for layer in first + 1..depth[to.name.as_str()] {
                    let next =
                        *waypoints.entry((value, layer)).or_insert_with(|| drawing.add(waypoint(), layer));
                    drawing.connect(Segment { from, to: next, value });
                    from = next;
                }
                drawing.connect(Segment { from, to: item_of[to.name.as_str()], value });
            }
        }
        drawing
    }

    fn add(&mut self, item: Item<'a>, layer: usize) -> usize {
        self.items.push(item);
        self.layers[layer].push(self.items.len() - 1);
        self.items.len() - 1
    }

    fn connect(&mut self, segment: Segment<'a>) {
        if !self.segments.contains(&segment) {
            self.segments.push(segment);
        }
    }

    /// The neighbours of every item one layer before and one layer after.
    fn neighbours(&self) -> (Vec<Vec<usize>>, Vec<Vec<usize>>) {
        let mut before = vec![Vec::new(); self.items.len()];
        let mut after = vec![Vec::new(); self.items.len()];
        for segment in &self.segments {
            after[segment.from].push(segment.to);
            before[segment.to].push(segment.from);
        }
        (before, after)
    }

    fn order(&mut self) {
        let (before, after) = self.neighbours();
        for sweep in 0..8 {
            let mut rank = vec![0.0; self.items.len()];
            for layer in &self.layers {
                for (i, &item) in layer.iter().enumerate() {
                    rank[item] = (i as f64 + 0.5) / layer.len() as f64;
                }
            }
            let forward = sweep % 2 == 0;
            let depths: Vec<usize> = if forward {
                (1..self.layers.len()).collect()
            } else {
                (0..self.layers.len()).rev().collect()
            };
            for depth in depths {
                let beside = if forward { &before } else { &after };
                let mean = |item: usize| mean(&beside[item], &rank).unwrap_or(rank[item]);
                self.layers[depth].sort_by(|&a, &b| mean(a).total_cmp(&mean(b)));
                let layer = &self.layers[depth];
                for (i, &item) in layer.iter().enumerate() {
                    rank[item] = (i as f64 + 0.5) / layer.len() as f64;
                }
            }
        }
    }

    fn place(&mut self) {
        let mut x = MARGIN;
        for layer in &self.layers {
            let width = layer.iter().map(|&i| self.items[i].width).fold(0.0, f64::max);
            for &i in layer {
                self.items[i].x = x;
                // Waypoints span their layer, so that a curve passes it on one height.
                if self.items[i].stage.is_none() {
                    self.items[i].width = width;
                }
            }
            x += width + LAYER_GAP;
        }
        for layer in &self.layers {
            let mut y = MARGIN;
            for &i in layer {
                self.items[i].y = y + self.items[i].height / 2.0;
                y += self.items[i].height + GAP;
            }
        }
        let (before, after) = self.neighbours();
        let both: Vec<Vec<usize>> =
            before.iter().zip(&after).map(|(b, a)| [&b[..], &a[..]].concat()).collect();
        for _ in 0..8 {
            for beside in [&before, &after, &both] {
                self.align(beside);
            }
        }
        let top = self.items.iter().map(|i| i.y - i.height / 2.0).fold(f64::INFINITY, f64::min);
        for item in &mut self.items {
            item.y += MARGIN - top;
        }
    }

    /// Moves every item towards the mean height of its neighbours, keeping order and gaps.
    fn align(&mut self, beside: &[Vec<usize>]) {
        let heights: Vec<f64> = self.items.iter().map(|i| i.y).collect();
        for layer in &self.layers {
            let wish: Vec<f64> =
                layer.iter().map(|&i| mean(&beside[i], &heights).unwrap_or(heights[i])).collect();
            let half = |i: usize| self.items[layer[i]].height / 2.0;
            let apart = |i: usize| half(i - 1) + half(i) + GAP;
            // Pushed down in order, and pushed up in reverse: the mean of both keeps the gaps.
            let mut down = wish.clone();
            for i in 1..layer.len() {
                down[i] = down[i].max(down[i - 1] + apart(i));
            }
            let mut up = wish;
            for i in (1..layer.len()).rev() {
                up[i - 1] = up[i - 1].min(up[i] - apart(i));
            }
            for (i, &item) in layer.iter().enumerate() {
                self.items[item].y = (down[i] + up[i]) / 2.0;
            }
        }
    }

    fn render(&self) -> String {
        let right = self.items.iter().map(|i| i.x + i.width).fold(0.0, f64::max) + MARGIN;
        let bottom = self.items.iter().map(|i| i.y + i.height / 2.0).fold(0.0, f64::max) + MARGIN;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {right:.0} {bottom:.0}\" width=\"{right:.0}\" \
             height=\"{bottom:.0}\" font-family=\"ui-sans-serif, 'DejaVu Sans', sans-serif\">\n\
             <rect class=\"paper\" width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
             orient=\"auto\"><path class=\"tip\" d=\"M0,0 L8,4 L0,8 z\" fill=\"#64748b\"/></marker></defs>\n"
        );
        for segment in &self.segments {
            self.render_segment(&mut out, *segment);
        }
        for item in &self.items {
            if let Some(stage) = item.stage {
                render_stage(&mut out, item, stage);
            }
        }
        out + "</svg>\n"
    }

    /// The curve, and the straight line through the waypoint that it leads to.
    fn render_segment(&self, out: &mut String, segment: Segment) {
        let (from, to) = (&self.items[segment.from], &self.items[segment.to]);
        let (x0, y0, x1, y1) = (from.x + from.width, from.y, to.x, to.y);
        let middle = (x0 + x1) / 2.0;
        let mut path = format!("M{x0:.1},{y0:.1} C{middle:.1},{y0:.1} {middle:.1},{y1:.1} {x1:.1},{y1:.1}");
        let tip = if to.stage.is_some() {
            " marker-end=\"url(#tip)\""
        } else {
            let _ = write!(path, " h{:.1}", to.width);
            ""
        };
        let _ = writeln!(
            out,
            "<path class=\"edge {value}\" d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.3\"{tip}>\
             <title>{value}</title></path>",
            stroke(segment.value),
            value = escaped(segment.value)
        );
    }
}

fn mean(of: &[usize], values: &[f64]) -> Option<f64> {
    (!of.is_empty()).then(|| of.iter().map(|&i| values[i]).sum::<f64>() / of.len() as f64)
}

fn waypoint<'a>() -> Item<'a> {
    Item { stage: None, lines: Vec::new(), width: 0.0, height: 2.0, x: 0.0, y: 0.0 }
}

fn stage_item(stage: &NodeRecord, note: Option<String>) -> Item<'_> {
    let mut lines = wrapped(&stage.line());
    lines.extend(note);
    let longest = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0) as f64 * CHARACTER;
    let width = longest.max(stage.name.chars().count() as f64 * BOLD_CHARACTER) + 2.0 * PADDING;
    let height = (lines.len() + 1) as f64 * LINE + 2.0 * PADDING - 4.0;
    Item { stage: Some(stage), lines, width, height, x: 0.0, y: 0.0 }
}

/// Lines of at most [`WRAP`] characters, broken at blanks; what does not fit ends with an ellipsis.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let shortened: String = if word.chars().count() > WRAP {
            word.chars().take(WRAP - 1).chain(['…']).collect()
        } else {
            word.into()
        };
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + shortened.chars().count() <= WRAP => {
                line.push(' ');
                line.push_str(&shortened);
            }
            _ => lines.push(shortened),
        }
    }
    if lines.len() > LINES {
        lines.truncate(LINES);
        if let Some(last) = lines.last_mut() {
            last.push_str(" …");
        }
    }
    lines
}

fn render_stage(out: &mut String, item: &Item, stage: &NodeRecord) {
    let (fill, line) = colors(stage.group);
    let top = item.y - item.height / 2.0;
    let _ = writeln!(
        out,
        "<g class=\"stage {}\"><title>{}</title><rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
         rx=\"6\" fill=\"{fill}\" stroke=\"{line}\" stroke-width=\"1.4\"/>",
        stage.group.name(),
        escaped(&stage.line()),
        item.x,
        item.width,
        item.height
    );
    let x = item.x + PADDING;
    let mut y = top + PADDING + 8.0;
    let _ = writeln!(
        out,
        "<text class=\"name\" x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"12.5\" font-weight=\"600\" fill=\"#0f172a\">{}</text>",
        escaped(&stage.name)
    );
    for text in &item.lines {
        y += LINE;
        let _ = writeln!(
            out,
            "<text class=\"label\" x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"11\" fill=\"#475569\">{}</text>",
            escaped(text)
        );
    }
    out.push_str("</g>\n");
}

/// Fill and outline.
fn colors(group: Group) -> (&'static str, &'static str) {
    match group {
        Group::Input => ("#f1f5f9", "#64748b"),
        Group::Importance => ("#e0f2fe", "#0284c7"),
        Group::Cut => ("#fef3c7", "#d97706"),
        Group::Learning => ("#fae8ff", "#a21caf"),
        Group::Evaluation => ("#dcfce7", "#16a34a"),
        Group::Output => ("#ede9fe", "#6d28d9"),
    }
}

/// Weights stand out from what is measured.
fn stroke(value: &str) -> &'static str {
    let weights = [Value::Model, Value::Teacher].iter().any(|weights| weights.name() == value);
    if weights { "#d97706" } else { "#94a3b8" }
}
