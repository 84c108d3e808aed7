//! README.md: the model card.

use super::{
    AxisRecord, EvaluationRecord, ModelRecord, Parent, Provenance, SearchRecord, Step, TrainingRecord,
};
use minic_compiler::dim::Dim;
use std::fmt::Write;

/// Markdown with the front matter that Hugging Face reads.
pub fn model_card(provenance: &Provenance) -> String {
    let mut card = front_matter(provenance);
    // Writing to a string does not fail.
    let _ = body(&mut card, provenance);
    card
}

fn front_matter(provenance: &Provenance) -> String {
    let mut text = String::from("---\nlibrary_name: transformers\npipeline_tag: text-generation\n");
    let bases: Vec<&str> = provenance.parents.iter().filter_map(hub_name).collect();
    if !bases.is_empty() {
        text.push_str("base_model:\n");
        bases.iter().for_each(|base| text.push_str(&format!("- {base}\n")));
    }
    text.push_str(&format!("tags:\n- {}\n- minic\n", provenance.result.family));
    if !provenance.steps.is_empty() {
        text.push_str("- pruned\n");
    }
    if provenance.trainings.iter().any(|training| training.teacher.is_some()) {
        text.push_str("- distilled\n");
    }
    text.push_str("---\n\n");
    text
}

/// `org/name` of `hf://org/name@revision`; a local path means nothing to a reader elsewhere.
fn hub_name(parent: &Parent) -> Option<&str> {
    let rest = parent.checkpoint.strip_prefix("hf://")?;
    Some(rest.split_once('@').map_or(rest, |(name, _)| name))
}

fn body(card: &mut String, p: &Provenance) -> std::fmt::Result {
    writeln!(card, "# {}\n", p.model)?;
    let parents: Vec<String> = p.parents.iter().map(|m| format!("`{}`", m.checkpoint)).collect();
    let (recipe, params) = (&p.recipe.file, thousands(p.proved_params));
    writeln!(
        card,
        "{params} parameters, made from {} by minic {} and the recipe `{recipe}`.",
        parents.join(", "),
        p.minic
    )?;
    if let Some(parent) = p.parents.first() {
        writeln!(card, "\n## Shape\n")?;
        shape_table(card, &parent.model, &p.result)?;
    }
    if !p.steps.is_empty() {
        writeln!(card, "\n## What was cut")?;
        p.steps.iter().try_for_each(|step| step_table(card, step))?;
        writeln!(card, "\nWhich members were kept of every layer is in `{}`.", super::PROVENANCE_FILE)?;
    }
    if !p.searches.is_empty() {
        writeln!(card, "\n## Search\n")?;
        p.searches.iter().try_for_each(|search| search_lines(card, search))?;
    }
    if !p.trainings.is_empty() {
        writeln!(card, "\n## Training\n")?;
        p.trainings.iter().try_for_each(|training| training_line(card, training))?;
    }
    if !p.evaluations.is_empty() {
        writeln!(card, "\n## Evaluation\n")?;
        evaluation_table(card, &p.evaluations)?;
    }
    writeln!(card, "\n## Use\n\n```python\nfrom transformers import AutoModelForCausalLM\n")?;
    writeln!(card, "model = AutoModelForCausalLM.from_pretrained(\"path/to/this/folder\")\n```")?;
    writeln!(card, "\n`minic verify path/to/this/folder` proves the folder again.")
}

fn shape_table(card: &mut String, before: &ModelRecord, after: &ModelRecord) -> std::fmt::Result {
    writeln!(card, "| | parent | this model |\n|---|--:|--:|")?;
    writeln!(card, "| parameters | {} | {} |", thousands(before.params), thousands(after.params))?;
    for dim in Dim::ALL {
        match (before.dims.get(dim), after.dims.get(dim)) {
            (Some(a), Some(b)) if a == b => writeln!(card, "| {dim} | {a} | {b} |")?,
            (Some(a), Some(b)) => writeln!(card, "| **{dim}** | {a} | **{b}** |")?,
            _ => {}
        }
    }
    writeln!(card, "| layers | `{}` | `{}` |", before.pattern, after.pattern)
}

fn step_table(card: &mut String, step: &Step) -> std::fmt::Result {
    writeln!(card, "\n`{}` from `{}`:\n", step.name, step.from)?;
    if let Some(rotation) = &step.rotation {
        writeln!(
            card,
            "The residual stream was rotated to its principal directions first ({} norms folded); those that are kept hold {:.1} % of its variance.\n",
            rotation.folded,
            100.0 * rotation.variance
        )?;
    }
    writeln!(card, "| axis | from | to | ranked by |\n|---|--:|--:|---|")?;
    for AxisRecord { axis, from, to, metric, tap, .. } in &step.axes {
        let tap = tap.as_ref().map_or(String::new(), |tap| format!(" at `{tap}`"));
        let by = metric.as_ref().map_or(String::new(), |metric| format!("`{metric}`{tap}"));
        writeln!(card, "| {axis} | {from} | {to} | {by} |")?;
    }
    if let Some(repair) = &step.repair {
        writeln!(card, "\nRepaired: {}.", repair.lines.join("; "))?;
    }
    let proof = &step.proof;
    let share = proof.share();
    writeln!(
        card,
        "\nProved: {} of the cut and of the masked parent differ by {share:.1e} of the largest at most ({} positions).",
        proof.compared, proof.positions
    )
}

fn search_lines(card: &mut String, search: &SearchRecord) -> std::fmt::Result {
    let SearchRecord { name, points, feasible, require, rungs, chosen, score, .. } = search;
    let required = if require.is_empty() { String::new() } else { format!(" ({})", require.join(", ")) };
    let scored = score.map(|score| format!(", {score:.4}")).unwrap_or_default();
    writeln!(
        card,
        "`{name}`: {feasible} of {points} architectures{required}; `{chosen}` was chosen{scored}.\n"
    )?;
    rungs.iter().try_for_each(|rung| writeln!(card, "- ranked by {rung}"))
}

fn training_line(card: &mut String, t: &TrainingRecord) -> std::fmt::Result {
    let how = match &t.teacher {
        Some(teacher) => format!("distilled from `{teacher}`"),
        None => "trained".to_string(),
    };
    let (updates, tokens) = (thousands(t.updates), thousands(t.tokens));
    writeln!(card, "- `{}` from `{}`: {how} on {tokens} tokens in {updates} updates.", t.name, t.from)
}

fn evaluation_table(card: &mut String, evaluations: &[EvaluationRecord]) -> std::fmt::Result {
    let asked = evaluations.iter().any(|e| e.figures.accuracy.is_some());
    let (head, rule) = if asked { (" accuracy |", "--:|") } else { ("", "") };
    writeln!(
        card,
        "| model | data | tokens | loss | perplexity | top-1 | KL |{head}\n|---|---|--:|--:|--:|--:|--:|{rule}"
    )?;
    for EvaluationRecord { model, on, figures: f } in evaluations {
        let kl = f.kl.map_or(String::new(), |kl| format!("{kl:.4}"));
        let accuracy = f.accuracy.map_or(String::new(), |share| format!("{:.1}%", 100.0 * share));
        let accuracy = if asked { format!(" {accuracy} |") } else { String::new() };
        writeln!(
            card,
            "| {model} | {on} | {} | {:.4} | {:.3} | {:.1}% | {kl} |{accuracy}",
            thousands(f.tokens),
            f.loss,
            f.perplexity,
            100.0 * f.top1
        )?;
    }
    Ok(())
}

/// `8,100,852,736`
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.char_indices() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
