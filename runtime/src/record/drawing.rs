//! Loss over tokens as a drawing. No dependency.

use super::{Curve, CurvePoint, Heldout, Line, Row};
use crate::chart::{self, Scale, counted, escaped, shown};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 50.0;
/// Losses that span a greater factor are drawn over a logarithmic axis.
const LINEAR_SPAN: f64 = 20.0;
const TRAINING: &str = chart::COLORS[0];
const HELDOUT: &str = chart::COLORS[1];

const RATE: &str = chart::COLORS[5];
/// Share of the height below which the learning rate is drawn.
const RATE_SHARE: f64 = 0.2;

/// What the lines of one training say, drawn.
pub fn svg(title: &str, lines: &[Line]) -> String {
    let curve = Curve::of(lines.iter().filter_map(|line| match &line.row {
        Row::Update(update) => Some(update),
        Row::Heldout(_) => None,
    }));
    let heldout = lines.iter().filter_map(|line| match &line.row {
        Row::Heldout(heldout) => Some(heldout.clone()),
        Row::Update(_) => None,
    });
    draw(title, &curve, &heldout.collect::<Vec<_>>())
}

/// A standalone SVG document of one training: the loss of its updates, smoothed, between the least and the
/// greatest of those that a point stands for; the loss on held-out data; the learning rate along the bottom; and
/// where its phases begin.
pub fn draw(title: &str, curve: &Curve, heldout: &[Heldout]) -> String {
    let heldout: Vec<(f64, f64)> = heldout.iter().map(|h| (h.tokens as f64, h.heldout_loss)).collect();
    let frame = Frame::around(&curve.points, &heldout);
    let mut out = head(title);
    frame.axes(&mut out, unit(&curve.terms));
    frame.phases(&mut out, &curve.phases);
    // A drawing of its own, which cuts off what lies outside of the plot.
    let (left, top, width, height) =
        (LEFT, TOP - 4.0, WIDTH - LEFT - RIGHT + 4.0, HEIGHT - TOP - BOTTOM + 8.0);
    let place = format!("{left} {top} {width} {height}");
    let _ = writeln!(
        out,
        "<svg x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" viewBox=\"{place}\">"
    );
    frame.rates(&mut out, &curve.points);
    frame.training(&mut out, &curve.points);
    frame.heldout(&mut out, &heldout);
    out += "</svg>\n";
    legend(&mut out, curve, &heldout);
    out + "</svg>\n"
}

/// The scales of both axes.
struct Frame {
    tokens: Scale,
    loss: Scale,
}

impl Frame {
    /// Holds every mean and every held-out loss; single updates may lie beyond.
    fn around(points: &[CurvePoint], heldout: &[(f64, f64)]) -> Frame {
        let losses = points.iter().map(|p| p.loss).chain(heldout.iter().map(|h| h.1));
        let tokens =
            points.iter().map(|p| p.tokens as f64).chain(heldout.iter().map(|h| h.0)).fold(1.0, f64::max);
        Frame {
            tokens: Scale::counting(tokens, LEFT, WIDTH - RIGHT),
            loss: Scale::around(losses, HEIGHT - BOTTOM, TOP, LINEAR_SPAN),
        }
    }

    fn x(&self, tokens: f64) -> f64 {
        self.tokens.at(tokens)
    }

    fn y(&self, loss: f64) -> f64 {
        self.loss.at(loss)
    }

    fn axes(&self, out: &mut String, unit: &str) {
        let frame = chart::Frame { left: LEFT, right: WIDTH - RIGHT, top: TOP, bottom: HEIGHT - BOTTOM };
        frame.draw(out, &self.tokens.ticks(7, counted), &self.loss.ticks(7, shown), "tokens", unit);
    }

    /// A dashed line where every phase begins, with its name; nothing where there is one.
    fn phases(&self, out: &mut String, phases: &[(String, u64)]) {
        if phases.len() < 2 {
            return;
        }
        for (name, before) in phases {
            let x = self.x(*before as f64);
            let _ = writeln!(
                out,
                "<path class=\"axis\" d=\"M{x:.1},{TOP:.1} V{:.1}\" stroke=\"#94a3b8\" stroke-dasharray=\"4 4\"/>\
                 <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\" fill=\"#64748b\">{}</text>",
                HEIGHT - BOTTOM,
                x + 5.0,
                TOP + 12.0,
                escaped(name)
            );
        }
    }

    /// Between nothing and the greatest one in the lowest part of the plot.
    fn rates(&self, out: &mut String, points: &[CurvePoint]) {
        let most = greatest_rate(points);
        if most <= 0.0 {
            return;
        }
        let bottom = HEIGHT - BOTTOM;
        let y = |rate: f64| bottom - RATE_SHARE * (bottom - TOP) * rate / most;
        let line: Vec<String> =
            points.iter().map(|p| format!("{:.1},{:.1}", self.x(p.tokens as f64), y(p.rate))).collect();
        let _ = writeln!(
            out,
            "<polyline class=\"s5 line\" points=\"{}\" fill=\"none\" stroke=\"{RATE}\" stroke-width=\"1\" \
             stroke-dasharray=\"2 2\"/>",
            line.join(" ")
        );
    }

    fn training(&self, out: &mut String, points: &[CurvePoint]) {
        if points.is_empty() {
            return;
        }
        let at = |p: &CurvePoint, loss: f64| format!("{:.1},{:.1}", self.x(p.tokens as f64), self.y(loss));
        let upper = points.iter().map(|p| at(p, p.greatest));
        let lower = points.iter().rev().map(|p| at(p, p.least));
        let band: Vec<String> = upper.chain(lower).collect();
        let _ = writeln!(
            out,
            "<polygon class=\"s0 fill\" points=\"{}\" fill=\"{TRAINING}\" opacity=\"0.18\"/>",
            band.join(" ")
        );
        let smooth: Vec<String> = points.iter().map(|p| at(p, p.loss)).collect();
        let _ = writeln!(
            out,
            "<polyline class=\"s0 line\" points=\"{}\" fill=\"none\" stroke=\"{TRAINING}\" stroke-width=\"1.6\" \
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
            "<polyline class=\"s1 line\" points=\"{}\" fill=\"none\" stroke=\"{HELDOUT}\" stroke-width=\"1.6\"/>",
            line.join(" ")
        );
        for (tokens, loss) in finite {
            let _ = writeln!(
                out,
                "<circle class=\"s1 fill\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.2\" fill=\"{HELDOUT}\">\
                 <title>{} tokens: {}</title></circle>",
                self.x(tokens),
                self.y(loss),
                counted(tokens),
                shown(loss)
            );
        }
    }
}

fn head(title: &str) -> String {
    let title = escaped(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"ui-sans-serif, 'DejaVu Sans', sans-serif\" role=\"img\" aria-label=\"{title}\">\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"22\" font-size=\"14\" font-weight=\"600\" fill=\"#0f172a\">{title}</text>\n"
    )
}

fn greatest_rate(points: &[CurvePoint]) -> f64 {
    points.iter().map(|point| point.rate).fold(0.0, f64::max)
}

/// What the colors mean, with the last figure of each.
fn legend(out: &mut String, curve: &Curve, heldout: &[(f64, f64)]) {
    let terms = curve.terms.join(" + ");
    let of = if terms.is_empty() { terms } else { format!(" ({terms})") };
    let mean = if curve.each > 1 { format!(", means of {} updates", curve.each) } else { String::new() };
    let mut entries = Vec::new();
    if let Some(last) = curve.points.last() {
        entries.push((0, format!("training loss{of}{mean}: {}", shown(last.loss))));
    }
    if let Some((_, loss)) = heldout.last() {
        entries.push((1, format!("held-out loss: {}", shown(*loss))));
    }
    let most = greatest_rate(&curve.points);
    if most > 0.0 {
        entries.push((5, format!("learning rate: up to {}", shown(most))));
    }
    let mut x = LEFT;
    for (color, text) in entries {
        let _ = writeln!(
            out,
            "<path class=\"s{color} line\" d=\"M{x:.1},40 h18\" stroke=\"{}\" stroke-width=\"3\"/>\
             <text class=\"label\" x=\"{:.1}\" y=\"44\" font-size=\"11.5\" fill=\"#334155\">{}</text>",
            chart::COLORS[color],
            x + 24.0,
            escaped(&text)
        );
        x += 24.0 + 6.2 * text.chars().count() as f64 + 22.0;
    }
}

/// Distances between hidden states and logits are no nats.
fn unit(terms: &[String]) -> &'static str {
    let distance = |term: &String| matches!(term.as_str(), "mse" | "cosine");
    if terms.iter().any(distance) { "loss" } else { "loss, nats per token" }
}
