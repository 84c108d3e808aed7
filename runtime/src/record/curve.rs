//! Loss over tokens as a drawing. No dependency.

use super::{Line, Row, Update};
use crate::chart::{self, counted, escaped, shown, ticks};
use std::collections::BTreeSet;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 50.0;
/// Points of the training curve at most: each is the mean of so many updates that they do not exceed it.
const POINTS: usize = 240;
/// Losses that span a greater factor are drawn over a logarithmic axis.
const LINEAR_SPAN: f64 = 20.0;
const TRAINING: &str = "#0284c7";
const HELDOUT: &str = "#d97706";

/// A standalone SVG document of one training: the loss of its updates, smoothed, between the least and the
/// greatest of those that a point stands for; the loss on held-out data; and where its phases begin.
pub fn svg(title: &str, lines: &[Line]) -> String {
    let updates: Vec<&Update> = lines
        .iter()
        .filter_map(|line| match &line.row {
            Row::Update(update) => Some(update),
            Row::Heldout(_) => None,
        })
        .collect();
    let heldout: Vec<(f64, f64)> = lines
        .iter()
        .filter_map(|line| match &line.row {
            Row::Heldout(h) => Some((h.tokens as f64, h.heldout_loss)),
            Row::Update(_) => None,
        })
        .collect();
    let step = updates.len().div_ceil(POINTS).max(1);
    let points: Vec<Point> = updates.chunks(step).filter_map(Point::of).collect();
    let frame = Frame::around(&points, &heldout);
    let mut out = head(title);
    frame.axes(&mut out, unit(&updates));
    frame.phases(&mut out, &updates);
    out += "<g clip-path=\"url(#plot)\">\n";
    frame.training(&mut out, &points);
    frame.heldout(&mut out, &heldout);
    out += "</g>\n";
    legend(&mut out, &updates, step, points.last(), &heldout);
    out + "</svg>\n"
}

/// Some updates on end.
struct Point {
    tokens: f64,
    mean: f64,
    least: f64,
    greatest: f64,
}

impl Point {
    fn of(updates: &[&Update]) -> Option<Point> {
        let finite = updates.iter().map(|u| u.loss).filter(|loss| loss.is_finite());
        let (count, sum) = finite.clone().fold((0, 0.0), |(n, sum), loss| (n + 1, sum + loss));
        let middle = updates.get(updates.len() / 2)?;
        (count > 0).then(|| Point {
            tokens: middle.tokens as f64,
            mean: sum / f64::from(count),
            least: finite.clone().fold(f64::INFINITY, f64::min),
            greatest: finite.fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

/// The scales of both axes.
struct Frame {
    tokens: f64,
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Frame {
    /// Holds every mean and every held-out loss; single updates may lie beyond.
    fn around(points: &[Point], heldout: &[(f64, f64)]) -> Frame {
        let losses = || points.iter().map(|p| p.mean).chain(heldout.iter().map(|h| h.1));
        let losses = || losses().filter(|loss| loss.is_finite());
        let tokens = points.iter().map(|p| p.tokens).chain(heldout.iter().map(|h| h.0)).fold(1.0, f64::max);
        let (low, high) = losses().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if !low.is_finite() {
            return Frame { tokens, low: 0.0, high: 1.0, logarithmic: false };
        }
        if low > 0.0 && high > LINEAR_SPAN * low {
            return Frame { tokens, low: low / 1.15, high: high * 1.15, logarithmic: true };
        }
        let margin = if high > low { 0.06 * (high - low) } else { 0.05 * high.abs().max(1e-3) };
        Frame { tokens, low: low - margin, high: high + margin, logarithmic: false }
    }

    fn x(&self, tokens: f64) -> f64 {
        LEFT + tokens / self.tokens * (WIDTH - LEFT - RIGHT)
    }

    /// Far outside of the frame, but a number, for what a logarithm cannot show.
    fn y(&self, loss: f64) -> f64 {
        let share = match self.logarithmic {
            true => (loss.max(1e-30) / self.low).ln() / (self.high / self.low).ln(),
            false => (loss - self.low) / (self.high - self.low),
        };
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }

    fn axes(&self, out: &mut String, unit: &str) {
        let across: Vec<(f64, String)> =
            ticks(0.0, self.tokens, 7).into_iter().map(|tick| (self.x(tick), counted(tick))).collect();
        let up: Vec<(f64, String)> =
            self.loss_ticks().into_iter().map(|tick| (self.y(tick), shown(tick))).collect();
        let frame = chart::Frame { left: LEFT, right: WIDTH - RIGHT, top: TOP, bottom: HEIGHT - BOTTOM };
        frame.draw(out, &across, &up, "tokens", unit);
    }

    fn loss_ticks(&self) -> Vec<f64> {
        if !self.logarithmic {
            return ticks(self.low, self.high, 7);
        }
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let steps: &[f64] = if self.high / self.low > 1e4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all = decades.flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d)));
        all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }

    /// A dashed line at the first update of every phase but the first, with the names of all of them.
    fn phases(&self, out: &mut String, updates: &[&Update]) {
        let begins: Vec<(f64, &str)> = updates
            .iter()
            .enumerate()
            .filter(|(i, update)| *i == 0 || updates[i - 1].phase != update.phase)
            .map(|(i, update)| {
                (if i == 0 { 0.0 } else { updates[i - 1].tokens as f64 }, update.phase.as_str())
            })
            .collect();
        if begins.len() < 2 {
            return;
        }
        for (tokens, name) in begins {
            let x = self.x(tokens);
            let _ = writeln!(
                out,
                "<path d=\"M{x:.1},{TOP:.1} V{:.1}\" stroke=\"#94a3b8\" stroke-dasharray=\"4 4\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\" fill=\"#64748b\">{}</text>",
                HEIGHT - BOTTOM,
                x + 5.0,
                TOP + 12.0,
                escaped(name)
            );
        }
    }

    fn training(&self, out: &mut String, points: &[Point]) {
        if points.is_empty() {
            return;
        }
        let at = |tokens: f64, loss: f64| format!("{:.1},{:.1}", self.x(tokens), self.y(loss));
        let upper = points.iter().map(|p| at(p.tokens, p.greatest));
        let lower = points.iter().rev().map(|p| at(p.tokens, p.least));
        let band: Vec<String> = upper.chain(lower).collect();
        let _ =
            writeln!(out, "<polygon points=\"{}\" fill=\"{TRAINING}\" opacity=\"0.18\"/>", band.join(" "));
        let smooth: Vec<String> = points.iter().map(|p| at(p.tokens, p.mean)).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{TRAINING}\" stroke-width=\"1.6\" \
             stroke-linejoin=\"round\"/>",
            smooth.join(" ")
        );
    }

    fn heldout(&self, out: &mut String, heldout: &[(f64, f64)]) {
        let finite: Vec<(f64, f64)> = heldout.iter().copied().filter(|(_, loss)| loss.is_finite()).collect();
        let at = |(tokens, loss): &(f64, f64)| format!("{:.1},{:.1}", self.x(*tokens), self.y(*loss));
        let line: Vec<String> = finite.iter().map(at).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{HELDOUT}\" stroke-width=\"1.6\"/>",
            line.join(" ")
        );
        for (tokens, loss) in finite {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.2\" fill=\"{HELDOUT}\"><title>{} tokens: {}</title></circle>",
                self.x(tokens),
                self.y(loss),
                counted(tokens),
                shown(loss)
            );
        }
    }
}

fn head(title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"ui-sans-serif, 'DejaVu Sans', sans-serif\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <defs><clipPath id=\"plot\"><rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{}\" height=\"{}\"/></clipPath></defs>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\" font-weight=\"600\" fill=\"#0f172a\">{}</text>\n",
        TOP - 4.0,
        WIDTH - LEFT - RIGHT + 4.0,
        HEIGHT - TOP - BOTTOM + 8.0,
        escaped(title)
    )
}

/// What the two colors mean, with the last figure of each.
fn legend(out: &mut String, updates: &[&Update], step: usize, last: Option<&Point>, heldout: &[(f64, f64)]) {
    let terms: BTreeSet<&str> = updates.iter().flat_map(|u| u.losses.keys().map(String::as_str)).collect();
    let terms: Vec<&str> = terms.into_iter().collect();
    let of = if terms.is_empty() { String::new() } else { format!(" ({})", terms.join(" + ")) };
    let mean = if step > 1 { format!(", means of {step} updates") } else { String::new() };
    let mut entries = Vec::new();
    if let Some(last) = last {
        entries.push((TRAINING, format!("training loss{of}{mean}: {}", shown(last.mean))));
    }
    if let Some((_, loss)) = heldout.last() {
        entries.push((HELDOUT, format!("held-out loss: {}", shown(*loss))));
    }
    let mut x = LEFT;
    for (color, text) in entries {
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1},40 h18\" stroke=\"{color}\" stroke-width=\"3\"/><text x=\"{:.1}\" y=\"44\" \
             font-size=\"11.5\" fill=\"#334155\">{}</text>",
            x + 24.0,
            escaped(&text)
        );
        x += 24.0 + 6.2 * text.chars().count() as f64 + 22.0;
    }
}

/// Distances between hidden states and logits are no nats.
fn unit(updates: &[&Update]) -> &'static str {
    let distance = |term: &String| matches!(term.as_str(), "mse" | "cosine");
    if updates.iter().any(|u| u.losses.keys().any(distance)) { "loss" } else { "loss, nats per token" }
}
