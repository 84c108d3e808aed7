//! Small charts as standalone SVG documents: panels side by side, each with its axes. No dependency.
//!
//! Colors are attributes, so that a file shows them anywhere; the classes beside them (`paper`, `title`, `label`,
//! `axis`, `grid`, and `s0` to `s5` with `fill` or `line`) let the style sheet of a page overrule them.

pub use minic_compiler::text::escaped;
use std::fmt::Write;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 50.0;
/// Values that span a greater factor are drawn over a logarithmic axis.
const LINEAR_SPAN: f64 = 5.0;
/// Colors that are told apart without red and green.
pub const COLORS: [&str; 6] = ["#0284c7", "#d97706", "#7c3aed", "#0f766e", "#be185d", "#64748b"];
const LABEL: &str = "class=\"label\" font-size=\"11\" fill=\"#475569\"";

/// A picture of one or more panels under one title.
pub struct Chart {
    pub title: String,
    pub panels: Vec<Panel>,
}

pub struct Panel {
    pub title: String,
    pub x: String,
    pub y: String,
    /// The first one lies at the bottom.
    pub series: Vec<Series>,
}

pub struct Series {
    pub name: String,
    /// Among [`COLORS`].
    pub color: usize,
    pub mark: Mark,
    pub points: Vec<Point>,
}

pub struct Point {
    pub x: f64,
    pub y: f64,
    /// Shown where a reader points at it.
    pub told: String,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Mark {
    /// Small and light, for many.
    Dot,
    Disc,
    /// Around what is drawn already.
    Ring,
    Cross,
    /// Discs on a line.
    Line,
    /// A line with a corner at each point: from each point on nothing better is known until the next.
    Steps,
    /// Dashed over the whole width, at the y of its first point.
    Level,
}

impl Chart {
    pub fn svg(&self) -> String {
        let width = WIDTH * self.panels.len().max(1) as f64;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" \
             height=\"{HEIGHT}\" font-family=\"ui-sans-serif, 'DejaVu Sans', sans-serif\" role=\"img\" \
             aria-label=\"{title}\">\n<rect class=\"paper\" width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"22\" font-size=\"14\" font-weight=\"600\" fill=\"#0f172a\">{title}</text>\n",
            title = escaped(&self.title)
        );
        for (i, panel) in self.panels.iter().enumerate() {
            let _ = writeln!(out, "<g transform=\"translate({:.1} 0)\">", WIDTH * i as f64);
            panel.draw(&mut out);
            out += "</g>\n";
        }
        out + "</svg>\n"
    }
}

/// The place of a plot within its picture.
pub struct Frame {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

impl Frame {
    /// Both axes with their ticks, each with its place, and with what they show.
    pub fn draw(&self, out: &mut String, across: &[(f64, String)], up: &[(f64, String)], x: &str, y: &str) {
        let Frame { left, right, top, bottom } = self;
        for (at, tick) in across {
            let _ = writeln!(
                out,
                "<path class=\"axis\" d=\"M{at:.1},{bottom:.1} v5\" stroke=\"#94a3b8\"/><text x=\"{at:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\" {LABEL}>{tick}</text>",
                bottom + 18.0
            );
        }
        for (at, tick) in up {
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{left:.1},{at:.1} H{right:.1}\" stroke=\"#e2e8f0\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\" {LABEL}>{tick}</text>",
                left - 7.0,
                at + 3.8
            );
        }
        let _ = writeln!(
            out,
            "<path class=\"axis\" d=\"M{left:.1},{top:.1} V{bottom:.1} H{right:.1}\" fill=\"none\" stroke=\"#94a3b8\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" {LABEL}>{}</text>\n\
             <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\" {LABEL}>{}</text>",
            (left + right) / 2.0,
            bottom + 38.0,
            escaped(x),
            (top + bottom) / 2.0,
            escaped(y),
        );
    }
}

/// Where values lie on an axis.
#[derive(Clone, Copy)]
pub struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    pub logarithmic: bool,
}

impl Scale {
    /// Around all finite values. Positive ones of which the greatest is more than `span` times the least are shown
    /// by their logarithm.
    pub fn around(values: impl Iterator<Item = f64>, from: f64, to: f64, span: f64) -> Scale {
        let (low, high) = values
            .filter(|v| v.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return Scale { low: 0.0, high: 1.0, from, to, logarithmic: false };
        }
        if low > 0.0 && high > span * low {
            return Scale { low: low / 1.15, high: high * 1.15, from, to, logarithmic: true };
        }
        let margin = if high > low { 0.06 * (high - low) } else { 0.05 * high.abs().max(1e-3) };
        Scale { low: low - margin, high: high + margin, from, to, logarithmic: false }
    }

    /// From 0 on.
    pub fn counting(high: f64, from: f64, to: f64) -> Scale {
        Scale { low: 0.0, high, from, to, logarithmic: false }
    }

    /// Far outside of the axis, but a number, for what a logarithm cannot show.
    pub fn at(&self, value: f64) -> f64 {
        let share = match self.logarithmic {
            true => (value.max(1e-30) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        self.from + share * (self.to - self.from)
    }

    /// About so many round values, each with its place and its name.
    pub fn ticks(&self, count: usize, name: fn(f64) -> String) -> Vec<(f64, String)> {
        let values = match self.logarithmic {
            false => ticks(self.low, self.high, count),
            true => {
                let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
                let steps: &[f64] = if self.high / self.low > 1e4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let all = decades.flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d)));
                all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
            }
        };
        values.into_iter().map(|tick| (self.at(tick), name(tick))).collect()
    }
}

impl Panel {
    fn draw(&self, out: &mut String) {
        let points = || self.series.iter().flat_map(|s| &s.points);
        let across = self.series.iter().filter(|s| s.mark != Mark::Level).flat_map(|s| &s.points);
        let x = Scale::around(across.map(|p| p.x), LEFT, WIDTH - RIGHT, f64::INFINITY);
        let y = Scale::around(points().map(|p| p.y), HEIGHT - BOTTOM, TOP, LINEAR_SPAN);
        self.axes(out, x, y);
        self.legend(out);
        for series in &self.series {
            series.draw(out, x, y);
        }
    }

    fn axes(&self, out: &mut String, x: Scale, y: Scale) {
        let frame = Frame { left: LEFT, right: WIDTH - RIGHT, top: TOP, bottom: HEIGHT - BOTTOM };
        frame.draw(out, &x.ticks(5, counted), &y.ticks(6, shown), &self.x, &self.y);
        let title = escaped(&self.title);
        let _ = writeln!(
            out,
            "<text class=\"title\" x=\"{LEFT:.1}\" y=\"44\" font-size=\"12.5\" fill=\"#0f172a\">{title}</text>"
        );
    }

    fn legend(&self, out: &mut String) {
        let (mut x, mut y) = (LEFT, 58.0);
        for series in self.series.iter().filter(|s| !s.points.is_empty()) {
            let width = 16.0 + 6.6 * series.name.chars().count() as f64 + 14.0;
            if x + width > WIDTH && x > LEFT {
                (x, y) = (LEFT, y + 14.0);
            }
            series.mark(out, x + 5.0, y, "");
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" {LABEL}>{}</text>",
                x + 14.0,
                y + 3.8,
                escaped(&series.name)
            );
            x += width;
        }
    }
}

impl Series {
    fn draw(&self, out: &mut String, x: Scale, y: Scale) {
        let finite: Vec<&Point> = self.points.iter().filter(|p| p.x.is_finite() && p.y.is_finite()).collect();
        let at = |p: &Point| (x.at(p.x), y.at(p.y));
        let path = match (self.mark, finite.as_slice()) {
            (Mark::Level, [first, ..]) => format!("M{LEFT:.1},{:.1} H{:.1}", y.at(first.y), WIDTH - RIGHT),
            (Mark::Line, [_, _, ..]) => {
                let corners: Vec<String> =
                    finite.iter().map(|p| format!("{:.1},{:.1}", at(p).0, at(p).1)).collect();
                format!("M{}", corners.join(" L"))
            }
            (Mark::Steps, [first, rest @ ..]) => {
                let corners = rest.iter().map(|p| format!(" H{:.1} V{:.1}", at(p).0, at(p).1));
                format!("M{:.1},{:.1}{}", at(first).0, at(first).1, corners.collect::<String>())
            }
            _ => String::new(),
        };
        if !path.is_empty() {
            let dashes = if self.mark == Mark::Level { " stroke-dasharray=\"5 4\"" } else { "" };
            let told = finite.first().filter(|_| self.mark == Mark::Level).map_or("", |p| p.told.as_str());
            let _ = writeln!(
                out,
                "<path class=\"s{} line\" d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.4\"{dashes}>\
                 <title>{}</title></path>",
                self.color,
                COLORS[self.color],
                escaped(told)
            );
        }
        if !matches!(self.mark, Mark::Level | Mark::Steps) {
            finite.iter().for_each(|p| self.mark(out, at(p).0, at(p).1, &p.told));
        }
    }

    fn mark(&self, out: &mut String, x: f64, y: f64, told: &str) {
        let (series, color) = (self.color, COLORS[self.color]);
        let shape = match self.mark {
            Mark::Dot => format!(
                "<circle class=\"s{series} fill\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.4\" fill=\"{color}\" fill-opacity=\"0.45\""
            ),
            Mark::Disc | Mark::Line => {
                format!(
                    "<circle class=\"s{series} fill\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.4\" fill=\"{color}\""
                )
            }
            Mark::Ring => format!(
                "<circle class=\"s{series} line\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6.5\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\""
            ),
            Mark::Cross => format!(
                "<path class=\"s{series} line\" d=\"M{:.1},{:.1} l8,8 m0,-8 l-8,8\" stroke=\"{color}\" stroke-width=\"2\"",
                x - 4.0,
                y - 4.0
            ),
            Mark::Steps | Mark::Level => {
                let dashes = if self.mark == Mark::Level { " stroke-dasharray=\"4 3\"" } else { "" };
                format!(
                    "<path class=\"s{series} line\" d=\"M{:.1},{y:.1} h12\" stroke=\"{color}\" stroke-width=\"1.6\"{dashes}",
                    x - 6.0
                )
            }
        };
        let _ = match told {
            "" => writeln!(out, "{shape}/>"),
            told => {
                let end = if shape.starts_with("<circle") { "circle" } else { "path" };
                writeln!(out, "{shape}><title>{}</title></{end}>", escaped(told))
            }
        };
    }
}

/// Round numbers from `low` to `high`, about `count` of them.
pub fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|s| s * power).find(|s| *s >= rough);
    let step = step.unwrap_or(rough);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// `250K`, `1.5M`, as recipes write them.
pub fn counted(tokens: f64) -> String {
    let units = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")];
    match units.into_iter().find(|(size, _)| tokens >= *size) {
        Some((size, unit)) => format!("{}{unit}", trimmed(format!("{:.2}", tokens / size))),
        None => trimmed(format!("{tokens:.1}")),
    }
}

/// Four digits that matter.
pub fn shown(loss: f64) -> String {
    match loss.abs() {
        0.0 => "0".into(),
        size if (1e-3..1e4).contains(&size) => {
            trimmed(format!("{loss:.*}", (3 - size.log10().floor() as i32).clamp(0, 6) as usize))
        }
        _ => format!("{loss:.1e}"),
    }
}

/// Without zeros at the end of a fraction.
fn trimmed(text: String) -> String {
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_draws_every_finite_point_with_its_words() {
        let point = |x, y| Point { x, y, told: format!("{x} < {y}") };
        let series = |mark, points| Series { name: "some & others".into(), color: 0, mark, points };
        let panel = Panel {
            title: "a panel".into(),
            x: "parameters".into(),
            y: "loss".into(),
            series: vec![
                series(Mark::Dot, vec![point(1.0, 2.0), point(2.0, f64::NAN), point(3.0, 1.0)]),
                series(Mark::Level, vec![point(0.0, 1.5)]),
                series(Mark::Steps, vec![point(1.0, 2.0), point(3.0, 1.0)]),
                series(Mark::Cross, Vec::new()),
            ],
        };
        let svg = Chart { title: "one".into(), panels: vec![panel] }.svg();
        assert_eq!(svg.matches("r=\"2.4\"").count(), 2 + 1, "two points and the legend");
        assert_eq!(svg.matches("1 &lt; 2").count(), 1);
        assert!(
            !svg.contains("NaN") && svg.contains("some &amp; others") && svg.contains("stroke-dasharray")
        );
        // An empty series is in no legend.
        assert_eq!(svg.matches("some &amp; others").count(), 3);
    }

    #[test]
    fn values_of_many_sizes_are_shown_by_their_logarithm() {
        let scale = Scale::around([0.1, 10.0].into_iter(), 0.0, 100.0, 20.0);
        assert!(scale.logarithmic && (scale.at(1.0) - 50.0).abs() < 1e-9);
        let names: Vec<String> = scale.ticks(5, shown).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["0.1", "0.2", "0.5", "1", "2", "5", "10"]);
        assert!(scale.at(0.0) < 0.0 && scale.at(-1.0).is_finite());
        for values in [&[0.0, 10.0][..], &[3.0], &[1.0, 19.0], &[]] {
            assert!(!Scale::around(values.iter().copied(), 0.0, 1.0, 20.0).logarithmic, "{values:?}");
        }
    }

    #[test]
    fn ticks_are_round_and_within_the_axis() {
        assert_eq!(ticks(0.0, 1_000_000.0, 7), [0.0, 2e5, 4e5, 6e5, 8e5, 1e6]);
        assert_eq!(ticks(0.31, 0.52, 7).len(), 4);
        assert_eq!(ticks(-1.0, 1.0, 4), [-1.0, -0.5, 0.0, 0.5, 1.0]);
    }

    #[test]
    fn numbers_are_short() {
        let counts: Vec<String> = [0.0, 512.0, 2048.0, 250e3, 1.5e6, 330e9].map(counted).into();
        assert_eq!(counts, ["0", "512", "2.05K", "250K", "1.5M", "330B"]);
        let losses: Vec<String> = [0.0, 0.42667, 12.3456, 0.00123456, 1e-5, 2.5, 100.0].map(shown).into();
        assert_eq!(losses, ["0", "0.4267", "12.35", "0.001235", "1.0e-5", "2.5", "100"]);
    }
}
