//! A search as a picture: what candidates cost against what they lose, before and after training.

use super::outcome::{RungRecord, SearchSummary};
use crate::chart::{COLORS, Chart, Mark, Panel, Point, Series};

impl SearchSummary {
    /// A panel for the first rung in which candidates were measured on data, and one for the last.
    pub fn chart(&self, name: &str) -> Chart {
        let measured: Vec<&RungRecord> = self.rungs.iter().filter(|rung| rung.on.is_some()).collect();
        let shown: Vec<&RungRecord> = match measured.as_slice() {
            [] => self.rungs.first().into_iter().collect(),
            [one] => vec![one],
            [first, .., last] => vec![first, last],
        };
        let title = format!("{name}: {} candidates of {}", self.feasible, self.space);
        Chart { title, panels: shown.into_iter().map(|rung| self.panel(rung)).collect() }
    }

    fn panel(&self, rung: &RungRecord) -> Panel {
        let is_control = |name: &&String| self.controls.contains_key(*name);
        let names: Vec<&String> = rung.scores.keys().filter(|name| !is_control(name)).collect();
        let series = |label: &str, color, mark, names: Vec<&String>| Series {
            name: label.into(),
            color,
            mark,
            points: names.into_iter().filter_map(|name| self.point(rung, name)).collect(),
        };
        let (stay, go): (Vec<&String>, Vec<&String>) =
            names.iter().copied().partition(|name| rung.kept.contains(name));
        let chosen = names.iter().copied().filter(|name| **name == self.chosen).collect();
        let level = |label: &str, y: Option<f64>| Series {
            name: label.into(),
            color: 5,
            mark: Mark::Level,
            points: y.into_iter().map(|y| Point { x: 0.0, y, told: format!("{label}: {y:.4}") }).collect(),
        };
        let after = match rung.tokens {
            Some(tokens) => format!("after {} tokens", crate::chart::counted(tokens as f64)),
            None => "as cut".to_string(),
        };
        let mut all = vec![
            level("parent", rung.parent.filter(|_| rung.tokens.is_none())),
            series("candidates", 0, Mark::Dot, go),
            series("kept", 0, Mark::Disc, stay),
            series("not beaten", 2, Mark::Steps, rung.front.iter().collect()),
            series("chosen", 1, Mark::Ring, chosen),
        ];
        for (i, (name, told)) in self.controls.iter().enumerate() {
            all.push(series(told, (i + 3) % COLORS.len(), Mark::Cross, vec![name]));
        }
        let on = rung.on.as_ref().map(|data| format!(" on {data}")).unwrap_or_default();
        Panel { title: after, x: "parameters".into(), y: format!("{}{on}", rung.by), series: all }
    }

    fn point(&self, rung: &RungRecord, name: &str) -> Option<Point> {
        let candidate = self.candidates.get(name)?;
        let y = rung.scores.get(name)?.score?;
        let axes = candidate.axes.iter().map(|(axis, size)| format!("{axis} {size}"));
        let told = format!(
            "{name}: {}; {} parameters, {y:.4}",
            axes.collect::<Vec<_>>().join(", "),
            candidate.model.params
        );
        Some(Point { x: candidate.model.params as f64, y, told })
    }
}
