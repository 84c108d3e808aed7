//! `minic explain [CODE | RECIPE NAME]`

mod stage;

use crate::machine::Wanted;
use crate::output::{Exit, Failure, Output};
use crate::recipe::{folder_of, parse_override};
use crate::table::Table;
use minic_compiler::check::Override;
use minic_grammar::nearest;
use minic_grammar::pages::{self, PAGES, Page};
use serde_json::{Value, json};
use std::path::Path;

#[derive(clap::Args)]
pub struct Args {
    /// A diagnostic code, as E0409, or a recipe; without either, all codes are listed
    #[arg(value_name = "CODE|RECIPE")]
    topic: Option<String>,
    /// With a recipe: a stage or a model of it, as `minic plan` lists them
    name: Option<String>,
    /// With a recipe: override a param, or a setting as in `parent.checkpoint=DIR`
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_override, requires = "name")]
    overrides: Vec<Override>,
}

impl Args {
    /// What it leaves to the machine.
    pub fn wanted(&mut self) -> Wanted<'_> {
        let recipe = self.name.as_ref().and(self.topic.as_deref()).map(Path::new);
        Wanted::at(recipe.map(folder_of).unwrap_or_default())
    }
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    match (&args.topic, &args.name) {
        (None, _) => list(output)?,
        (Some(recipe), Some(name)) => stage::explain(Path::new(recipe), name, &args.overrides, output)?,
        (Some(code), None) => {
            let page = find(code)?;
            if output.json {
                output.document(&to_json(page))?;
            } else {
                output.answer(&to_text(page, output.styled))?;
            }
        }
    }
    Ok(Exit::Done)
}

fn find(code: &str) -> Result<&'static Page, Failure> {
    if let Some(page) = pages::find(&code.to_uppercase()) {
        return Ok(page);
    }
    if Path::new(code).is_file() {
        let message = format!("{code}: which of its stages or models?");
        let help = format!("`minic plan {code}` lists them; write `minic explain {code} NAME`");
        return Err(Failure::new(Exit::Input, message).help(help));
    }
    let help = match nearest(code, PAGES.iter().map(|p| p.id)) {
        Some(near) => format!("did you mean `{near}`? `minic explain` lists all codes"),
        None => "`minic explain` lists all codes".to_string(),
    };
    Err(Failure::new(Exit::Input, format!("there is no diagnostic code `{code}`")).help(help))
}

fn list(output: &Output) -> Result<(), Failure> {
    if output.json {
        let codes =
            PAGES.iter().map(|p| json!({ "code": p.id, "severity": severity(p), "title": p.title() }));
        return output.document(&json!({ "codes": codes.collect::<Vec<_>>() }));
    }
    let mut table = Table::new(&["code", "title"]);
    for page in PAGES {
        table.row(vec![page.id.into(), page.title().into()]);
    }
    output.answer(&table.render(|_, line| line))
}

fn severity(page: &Page) -> &'static str {
    if page.id.starts_with('W') { "warning" } else { "error" }
}

fn to_json(page: &Page) -> Value {
    json!({
        "code": page.id,
        "severity": severity(page),
        "title": page.title(),
        "text": page.text(),
        "failing": page.failing(),
        "mended": page.mended(),
    })
}

fn to_text(page: &Page, styled: bool) -> String {
    let style =
        |code: &str, text: &str| if styled { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() };
    let recipe = |text: &str| {
        text.lines()
            .map(|l| if l.is_empty() { "\n".into() } else { format!("    {l}\n") })
            .collect::<String>()
    };
    let color = if severity(page) == "error" { "1;31" } else { "1;33" };
    let head = format!("{}[{}]", severity(page), page.id);
    format!(
        "{}: {}\n\n{}\n\n{}\n\n{}\n{}\n\n{}",
        style(color, &head),
        style("1", page.title()),
        code_spans(page.text(), |span| style("36", span)),
        style("1", &format!("This draws {}:", page.id)),
        recipe(page.failing()),
        style("1", "Mended:"),
        recipe(page.mended()),
    )
}

/// What stands between backticks goes through `style`, the backticks with it.
fn code_spans(text: &str, style: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    for (number, part) in text.split('`').enumerate() {
        if number % 2 == 0 { out.push_str(part) } else { out.push_str(&style(&format!("`{part}`"))) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_drawn_whole_with_and_without_colors() {
        for page in PAGES {
            let plain = to_text(page, false);
            assert!(plain.contains(page.title()) && plain.contains(page.text()), "{plain}");
            assert!(!plain.contains('\x1b') && !plain.contains("```"), "{plain}");
            assert!(page.failing().lines().all(|line| plain.contains(line)), "{plain}");
            let styled = to_text(page, true);
            let mut bare = String::new();
            for part in styled.split('\x1b') {
                bare += part.split_once('m').filter(|_| part.starts_with('[')).map_or(part, |(_, rest)| rest);
            }
            assert_eq!(bare, plain);
        }
    }

    #[test]
    fn a_code_is_found_in_any_case_and_a_near_one_is_named() {
        assert_eq!(find("e0409").expect("a page").id, "E0409");
        let failure = format!("{:?}", find("E0499").expect_err("no page"));
        assert!(failure.contains("did you mean `E0409`"), "{failure}");
    }
}
