//! Importance within layers: a row for each layer, a cell for each member or for some neighbours, and below it what
//! the cut kept.

use super::html::Html;
use super::importance::{kind_name, made};
use minic_runtime::chart::{escaped, shown, ticks};
use minic_runtime::provenance::{AxisRecord, Step};
use minic_runtime::run::Summary;
use minic_runtime::run::ranking::{AxisRanking, Place, RankedBy};
use std::fmt::Write;

const LEFT: f64 = 108.0;
const WIDTH: f64 = 720.0;
const CELL: f64 = 13.0;
const STRIPE: f64 = 4.0;
const ROW: f64 = 22.0;
const TOP: f64 = 6.0;
/// Cells of a row at most, where rows are few and where they are many.
const CELLS: usize = 128;
const CELLS_OF_MANY: usize = 64;
const MANY: usize = 12;
const LEVELS: usize = 8;
/// Scores that span a greater factor are coloured by their logarithm.
const LINEAR_SPAN: f64 = 20.0;

pub fn section(summary: &Summary) -> Html {
    let mut html = Html::new();
    for (stage, rankings) in &summary.rankings {
        let Some(step) = summary.cuts.get(stage) else { continue };
        for ranking in rankings {
            if let RankedBy::Members { places } = &ranking.by {
                axis(&mut html, step, made(summary, stage, step), ranking, places);
            }
        }
    }
    html
}

fn axis(html: &mut Html, step: &Step, made: &str, ranking: &AxisRanking, places: &[Place]) {
    let record = step.axes.iter().find(|axis| axis.axis == ranking.axis);
    let rows: Vec<Row> = places.iter().filter_map(|place| Row::of(place, step, record)).collect();
    let Some(scale) = Scale::of(&rows) else { return };
    let (from, to) = record.map_or((0, 0), |record| (record.from, record.to));
    html.leaf("h3", "", &format!("{} of {} by {}", ranking.axis, step.from, ranking.metric));
    html.element("figure", &[], |html| {
        let label = format!("Importance of {} in {}", ranking.axis, step.from);
        html.scroll("div", &label, |html| html.markup(&draw(&label, ranking, &rows, scale)));
        html.element("p", &[("class", "legend")], |html| legend(html, scale));
        let each = places.iter().find_map(|place| place.each);
        let each = each.map(|dim| format!(" Every one of {} ranks its own.", dim.name())).unwrap_or_default();
        let few = match rows.iter().map(|row| row.span).max() {
            None | Some(0 | 1) => String::new(),
            Some(span) => format!(" A cell is the mean of up to {span} neighbours."),
        };
        let reverse = if ranking.reverse { "the least important" } else { "the most important" };
        html.leaf(
            "figcaption",
            "",
            &format!(
                "For {made}, {from} were cut to {to}: {reverse} stay.{each}{few} Members stand in the order of {}; the stripe \
                 below a row shows what was kept.",
                step.from
            ),
        );
    });
}

struct Row {
    name: String,
    members: usize,
    /// Members of a cell; the last one may have fewer.
    span: usize,
    cells: Vec<Cell>,
}

struct Cell {
    /// The mean.
    score: f64,
    kept: usize,
    members: usize,
}

impl Row {
    /// `None` for a place without scores.
    fn of(place: &Place, step: &Step, record: Option<&AxisRecord>) -> Option<Row> {
        let span = place.span.max(1);
        let last = place.scores.len().checked_sub(1)?;
        let members = place.members.min((last + 1).saturating_mul(span));
        let mut counts = vec![0; last + 1];
        for member in kept(place, step, record) {
            if let Some(count) = counts.get_mut(member / span) {
                *count += 1;
            }
        }
        let layers = step.before.pattern.len();
        let group = (last + 1).div_ceil(if layers > MANY { CELLS_OF_MANY } else { CELLS });
        let whole = span.saturating_mul(group);
        let cell = |(i, scores): (usize, &[f32])| Cell {
            score: scores.iter().map(|s| f64::from(*s)).sum::<f64>() / scores.len() as f64,
            kept: counts[i * group..i * group + scores.len()].iter().sum(),
            members: whole.min(members.saturating_sub(whole.saturating_mul(i))),
        };
        let cells = place.scores.chunks(group).enumerate().map(cell).collect();
        let kind = |layer: usize| step.before.pattern.chars().nth(layer).map_or("", kind_name);
        let name = place.layer.map_or("whole model".into(), |layer| format!("layer {layer} {}", kind(layer)));
        Some(Row { name, members, span: whole, cells })
    }
}

/// The members of a place that a cut kept.
fn kept(place: &Place, step: &Step, record: Option<&AxisRecord>) -> Vec<usize> {
    // What a cut leaves whole is not ranked.
    let Some(record) = record else { return Vec::new() };
    let Some(layer) = place.layer else { return record.kept.clone().unwrap_or_default() };
    let of =
        |record: &AxisRecord| record.kept_by_layer.as_ref().and_then(|layers| layers.get(&layer).cloned());
    if let Some(flat) = of(record) {
        return flat;
    }
    let lists = record.kept_by_head.as_ref().and_then(|layers| layers.get(&layer));
    let Some((lists, each)) = lists.zip(place.each) else { return Vec::new() };
    // One list for each member that survives; which these are is another axis.
    let outer = step.axes.iter().find(|axis| axis.axis == each.name()).and_then(of);
    let outer = |at: usize| outer.as_ref().map_or(Some(at), |outer| outer.get(at).copied());
    let own = |(at, list): (usize, &Vec<usize>)| {
        let first = outer(at).map(|member| member.saturating_mul(record.from));
        list.iter().filter_map(|i| first?.checked_add(*i)).collect::<Vec<_>>()
    };
    lists.iter().enumerate().flat_map(own).collect()
}

/// From scores to colors: most of them lie between two values.
#[derive(Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    fn of(rows: &[Row]) -> Option<Scale> {
        let mut scores: Vec<f64> =
            rows.iter().flat_map(|row| row.cells.iter().map(|cell| cell.score)).collect();
        scores.sort_by(f64::total_cmp);
        let last = scores.len().checked_sub(1)?;
        let (low, high) = (scores[last * 2 / 100], scores[last - last * 2 / 100]);
        Some(Scale { low, high, logarithmic: low > 0.0 && high > LINEAR_SPAN * low })
    }

    fn level(&self, score: f64) -> usize {
        let of = |v: f64| if self.logarithmic { v.max(f64::MIN_POSITIVE).ln() } else { v };
        let share = (of(score) - of(self.low)) / (of(self.high) - of(self.low));
        // One that is no number is where all scores are equal.
        let share = if share.is_nan() { 0.5 } else { share };
        ((share * LEVELS as f64) as usize).min(LEVELS - 1)
    }
}

fn draw(label: &str, ranking: &AxisRanking, rows: &[Row], scale: Scale) -> String {
    let (bottom, right) = (TOP + ROW * rows.len() as f64, LEFT + WIDTH);
    let mut out = format!(
        "<svg class=\"heat\" viewBox=\"0 0 {} {}\" width=\"{}\" height=\"{}\" role=\"img\" aria-label=\"{}\">\n",
        right + 12.0,
        bottom + 36.0,
        right + 12.0,
        bottom + 36.0,
        escaped(label)
    );
    for (i, row) in rows.iter().enumerate() {
        let top = TOP + ROW * i as f64;
        let _ = writeln!(
            out,
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\">{}</text>",
            LEFT - 8.0,
            top + 11.0,
            escaped(row.name.trim_start_matches("layer "))
        );
        row.draw(&mut out, top, scale);
    }
    let members = rows.iter().map(|row| row.members).max().unwrap_or(1).max(1);
    for tick in ticks(0.0, members as f64, 8) {
        let x = LEFT + WIDTH * tick / members as f64;
        let _ = writeln!(
            out,
            "<text class=\"label\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\">{tick}</text>",
            bottom + 13.0
        );
    }
    let _ = writeln!(
        out,
        "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\">{}</text>",
        LEFT + WIDTH / 2.0,
        bottom + 30.0,
        escaped(&format!("member of {}", ranking.axis))
    );
    out + "</svg>\n"
}

impl Row {
    fn draw(&self, out: &mut String, top: f64, scale: Scale) {
        let all = self.members.max(1) as f64;
        let mut first = 0usize;
        for cell in &self.cells {
            let (x, width) = (LEFT + WIDTH * first as f64 / all, WIDTH * cell.members as f64 / all);
            let last = first.saturating_add(cell.members).saturating_sub(1).max(first);
            let which = if first == last { first.to_string() } else { format!("{first} to {last}") };
            let kept = match (cell.kept, cell.members) {
                (1, 1) => "kept".to_string(),
                (0, _) => "cut".to_string(),
                (kept, of) => format!("{kept} of {of} kept"),
            };
            let _ = writeln!(
                out,
                "<g><title>{}, {which}: {}, {kept}</title><rect class=\"h{}\" x=\"{x:.1}\" y=\"{top:.1}\" \
                 width=\"{width:.2}\" height=\"{CELL}\"/>",
                escaped(&self.name),
                shown(cell.score),
                scale.level(cell.score)
            );
            if cell.kept > 0 {
                let share = cell.kept as f64 / cell.members.max(1) as f64;
                let opacity = if share < 1.0 { format!(" opacity=\"{share:.2}\"") } else { String::new() };
                let _ = write!(
                    out,
                    "<rect class=\"kept\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"{STRIPE}\"{opacity}/>",
                    top + CELL + 1.0
                );
            }
            out.push_str("</g>\n");
            first += cell.members;
        }
    }
}

fn legend(html: &mut Html, scale: Scale) {
    html.element("span", &[], |html| {
        html.text(&shown(scale.low));
        html.element("span", &[("class", "ramp")], |html| {
            (0..LEVELS).for_each(|level| html.element("i", &[("class", &format!("h{level}"))], |_| {}));
        });
        html.text(&format!(
            "{} score{}",
            shown(scale.high),
            if scale.logarithmic { ", logarithmic" } else { "" }
        ));
    });
    html.leaf("span", "key kept", "kept");
}

#[cfg(test)]
mod tests {
    use super::*;
    use minic_runtime::gate::CutProof;
    use minic_runtime::provenance::ModelRecord;
    use std::collections::BTreeMap;

    fn step(axes: Vec<AxisRecord>) -> Step {
        let model = |params| ModelRecord {
            family: "f".into(),
            params,
            pattern: "M-M*".into(),
            dims: BTreeMap::new(),
        };
        let proof = CutProof {
            compared: "logits".into(),
            difference: 0.0,
            magnitude: 1.0,
            tolerance: 1e-5,
            positions: 1,
            params_before: 2,
            params_after: 1,
        };
        let (name, from) = ("half".to_string(), "parent".to_string());
        Step { name, from, before: model(2), after: model(1), rotation: None, axes, proof, repair: None }
    }

    fn place(each: Option<minic_compiler::dim::Dim>, scores: &[f32]) -> Place {
        Place { layer: Some(0), each, members: scores.len(), span: 1, scores: scores.to_vec() }
    }

    #[test]
    fn what_every_head_keeps_is_found_among_all_heads() {
        let by_layer = |list: &[usize]| Some(BTreeMap::from([(0, list.to_vec())]));
        let heads = AxisRecord {
            axis: "mamba_num_heads".into(),
            from: 3,
            to: 2,
            kept_by_layer: by_layer(&[0, 2]),
            ..AxisRecord::default()
        };
        let channels = AxisRecord {
            axis: "mamba_head_dim".into(),
            from: 4,
            to: 2,
            kept_by_head: Some(BTreeMap::from([(0, vec![vec![0, 1], vec![2, 3]])])),
            ..AxisRecord::default()
        };
        let step = step(vec![heads.clone(), channels.clone()]);
        let each = place(Some(minic_compiler::dim::Dim::MambaNumHeads), &[1.0; 12]);
        assert_eq!(kept(&each, &step, Some(&channels)), [0, 1, 10, 11]);
        assert_eq!(kept(&place(None, &[1.0; 3]), &step, Some(&heads)), [0, 2]);
    }

    #[test]
    fn many_members_share_cells_and_are_counted_in_them() {
        let scores: Vec<f32> = (0..512).map(|i| i as f32).collect();
        let wide = Place { members: 21_504, span: 42, ..place(None, &scores) };
        let record = AxisRecord {
            axis: "ffn_hidden_size".into(),
            kept_by_layer: Some(BTreeMap::from([(0, (0..10_000).collect())])),
            ..AxisRecord::default()
        };
        let row = Row::of(&wide, &step(Vec::new()), Some(&record)).unwrap();
        assert_eq!((row.cells.len(), row.span, row.members), (128, 168, 21_504));
        assert_eq!(row.cells.iter().map(|cell| cell.kept).sum::<usize>(), 10_000);
        assert_eq!(row.cells.iter().map(|cell| cell.members).sum::<usize>(), 21_504);
        assert_eq!(row.cells[0].score, 1.5);
    }

    #[test]
    fn colors_follow_scores_whatever_these_are() {
        let row = |scores: &[f32]| vec![Row::of(&place(None, scores), &step(Vec::new()), None).unwrap()];
        let levels = |scores: &[f32]| -> Vec<usize> {
            let scale = Scale::of(&row(scores)).unwrap();
            scores.iter().map(|score| scale.level(f64::from(*score))).collect()
        };
        assert_eq!(levels(&[0.0, 1.0, 2.0, 4.0]), [0, 2, 4, 7]);
        assert_eq!(levels(&[1e-4, 2e-2, 1.0]), [0, 4, 7]);
        assert_eq!(levels(&[3.0, 3.0]), [4, 4]);
        assert!(Scale::of(&[]).is_none());
    }
}
