//! What layers are ranked by, and which of them went (arXiv:2504.11409, figure 4).

use super::html::Html;
use super::overview;
use minic_compiler::model::LayerKind;
use minic_runtime::chart::{COLORS, Frame, Scale, escaped, shown};
use minic_runtime::provenance::Step;
use minic_runtime::run::Summary;
use minic_runtime::run::ranking::{AxisRanking, RankedBy};
use std::fmt::Write;

const LEFT: f64 = 66.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 290.0;
const HEIGHT: f64 = 340.0;
/// Of the plot, and of a layer at least.
const WIDTH: f64 = 660.0;
const LAYER: f64 = 15.0;
/// Scores that span a greater factor are drawn over a logarithmic axis.
const LINEAR_SPAN: f64 = 50.0;

pub fn section(summary: &Summary) -> Html {
    let mut html = Html::new();
    for (stage, rankings) in &summary.rankings {
        let Some(step) = summary.cuts.get(stage) else { continue };
        for ranking in rankings {
            layers(&mut html, step, made(summary, stage, step), ranking);
        }
    }
    html
}

/// What the model is called that a cut leads to.
pub fn made<'a>(summary: &'a Summary, stage: &str, step: &'a Step) -> &'a str {
    overview::model_of(summary, stage).unwrap_or(&step.name)
}

fn layers(html: &mut Html, step: &Step, made: &str, ranking: &AxisRanking) {
    let (scores, span) = match &ranking.by {
        RankedBy::Layers { scores } => (scores, 1),
        RankedBy::Blocks { span, scores } => (scores, *span),
        RankedBy::Members { .. } => return,
    };
    let kept = step.axes.iter().find(|axis| axis.axis == ranking.axis).and_then(|axis| axis.kept.as_ref());
    let stays = |layer: usize| kept.is_none_or(|kept| kept.contains(&layer));
    // Of blocks it is the place of the one that went: that of its first layer.
    let first_gone = (0..scores.len()).find(|layer| !stays(*layer));
    let stays = |at: usize| if span > 1 { Some(at) != first_gone } else { stays(at) };
    let chart = Layers {
        scores: scores.iter().map(|score| f64::from(*score)).collect(),
        kinds: step.before.pattern.chars().collect(),
        gone: (0..scores.len()).filter(|at| !stays(*at)).collect(),
        what: if span > 1 { format!("the first of {span} neighbouring layers") } else { "layer".into() },
        metric: ranking.metric.clone(),
    };
    html.leaf("h3", "", &format!("{} by {}", step.from, ranking.metric));
    html.element("figure", &[], |html| {
        let label = format!("Importance of the layers of {}", step.from);
        html.scroll("div", &label, |html| html.markup(&chart.draw(&label)));
        html.element("p", &[("class", "legend")], |html| legend(html, &chart.kinds));
        html.leaf("figcaption", "", &caption(&chart, step, made, span));
    });
}

fn caption(chart: &Layers, step: &Step, made: &str, span: usize) -> String {
    let scale = if chart.scale().logarithmic { ", on a logarithmic scale" } else { "" };
    let (metric, from) = (&chart.metric, &step.from);
    match (span, chart.gone.len(), chart.kinds.len()) {
        (1, 0, all) => format!("{metric} of {from}{scale}: all {all} layers stay."),
        (1, gone, all) => {
            let left = step.after.pattern.len();
            format!(
                "{metric} of {from}{scale}: {gone} of {all} layers, the hollow ones, went for {made}, which has {left}."
            )
        }
        _ => format!(
            "{metric} of {from} without {span} neighbouring layers{scale}; the hollow ones went for {made}."
        ),
    }
}

/// A kind of layer by its letter in a pattern.
fn kind_of(letter: char) -> Option<LayerKind> {
    LayerKind::ALL.iter().copied().find(|kind| kind.letter() == letter)
}

/// As readers call it, and its color.
fn drawn(kind: LayerKind) -> (&'static str, usize) {
    match kind {
        LayerKind::Mamba => ("Mamba2", 0),
        LayerKind::Attention => ("attention", 1),
        LayerKind::Mlp => ("feed-forward", 2),
    }
}

pub fn kind_name(letter: char) -> &'static str {
    kind_of(letter).map_or("layer", |kind| drawn(kind).0)
}

fn color(letter: Option<&char>) -> usize {
    letter.and_then(|letter| kind_of(*letter)).map_or(5, |kind| drawn(kind).1)
}

fn legend(html: &mut Html, letters: &[char]) {
    for kind in LayerKind::ALL.iter().filter(|kind| letters.contains(&kind.letter())) {
        let (name, color) = drawn(*kind);
        html.element("span", &[("class", &format!("key s{color}"))], |html| {
            html.text(&format!("{name} ({})", kind.letter()))
        });
    }
}

struct Layers {
    scores: Vec<f64>,
    kinds: Vec<char>,
    gone: Vec<usize>,
    /// What the horizontal axis counts.
    what: String,
    metric: String,
}

impl Layers {
    fn scale(&self) -> Scale {
        let scores = || self.scores.iter().copied();
        match Scale::around(scores(), BOTTOM, TOP, LINEAR_SPAN) {
            scale if scale.logarithmic => scale,
            // Bars begin at nothing.
            _ => Scale::around(scores().chain([0.0]), BOTTOM, TOP, LINEAR_SPAN),
        }
    }

    fn draw(&self, label: &str) -> String {
        let count = self.scores.len().max(1) as f64;
        let width = WIDTH.max(count * LAYER);
        let (right, y) = (LEFT + width, self.scale());
        let x = |layer: usize| LEFT + (layer as f64 + 0.5) * width / count;
        let mut out = format!(
            "<svg viewBox=\"0 0 {} {HEIGHT}\" width=\"{}\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            right + 14.0,
            right + 14.0,
            escaped(label)
        );
        let every = (self.scores.len() / 30 + 1).max(1);
        let across: Vec<(f64, String)> =
            (0..self.scores.len()).step_by(every).map(|layer| (x(layer), layer.to_string())).collect();
        let frame = Frame { left: LEFT, right, top: TOP, bottom: BOTTOM };
        frame.draw(&mut out, &across, &y.ticks(6, shown), &self.what, &self.metric);
        let base = if y.logarithmic { BOTTOM } else { y.at(0.0) };
        for (layer, score) in self.scores.iter().enumerate() {
            self.bar(&mut out, layer, x(layer), (y.at(*score), base), (width / count * 0.62).min(26.0));
        }
        out + "</svg>\n"
    }

    fn bar(&self, out: &mut String, layer: usize, x: f64, (y, base): (f64, f64), width: f64) {
        let kind = self.kinds.get(layer);
        let (color, gone) = (color(kind), self.gone.contains(&layer));
        let fill = if gone { ("open line", "none") } else { ("fill line", COLORS[color]) };
        let dashes = if gone { " stroke-dasharray=\"3 2\"" } else { "" };
        let told = format!(
            "layer {layer}, {}: {}{}",
            kind.map_or("layer", |kind| kind_name(*kind)),
            shown(self.scores[layer]),
            if gone { "; went" } else { "; stays" }
        );
        let _ = writeln!(
            out,
            "<g><title>{}</title><rect class=\"s{color} {}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" \
             height=\"{:.1}\" fill=\"{}\" stroke=\"{}\"{dashes}/><text class=\"label\" x=\"{x:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\" font-size=\"11\">{}</text></g>",
            escaped(&told),
            fill.0,
            x - width / 2.0,
            y.min(base),
            (base - y).abs().max(0.5),
            fill.1,
            COLORS[color],
            y.min(base) - 5.0,
            kind.map(|kind| escaped(&kind.to_string())).unwrap_or_default()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(scores: &[f64], gone: &[usize]) -> Layers {
        Layers {
            scores: scores.to_vec(),
            kinds: "M-M*".chars().collect(),
            gone: gone.to_vec(),
            what: "layer".into(),
            metric: "kld".into(),
        }
    }

    #[test]
    fn every_layer_has_a_bar_and_those_that_went_are_hollow() {
        let svg = layers(&[0.5, 0.01, 0.2, 0.3], &[1]).draw("layers & more");
        assert_eq!(
            (svg.matches("<rect").count(), svg.matches("fill=\"none\" stroke=\"#7c3aed\"").count()),
            (4, 1)
        );
        assert!(svg.contains("layer 1, feed-forward: 0.01; went") && svg.contains("layers &amp; more"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn scores_of_many_sizes_are_drawn_over_a_logarithm() {
        assert!(layers(&[10.0, 0.01, 0.2, 0.3], &[]).scale().logarithmic);
        for scores in [&[0.0, 0.0][..], &[], &[-1.0, 4.0], &[2.0]] {
            let svg = layers(scores, &[]).draw("");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
