//! How long an editor waits: from a changed letter to the diagnostics of a recipe of 2,000 lines, p50 and p95, and the
//! check of one of 10,000 lines. Both are about Nemotron-H-8B, and hold searches of spaces of thousands of points.
//!
//! `cargo run --release -p minic-compiler --example latency`
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program of its own, that measures")]

use minic_compiler::assist::Draft;
use minic_compiler::check::{DataFacts, Environment};
use std::fmt::Write;
use std::time::{Duration, Instant};

const CONFIG: &str = include_str!("../tests/configs/Nemotron-H-8B-Base-8K.json");

struct Published;

impl Environment for Published {
    fn config(&self, _checkpoint: &str) -> Result<Option<String>, String> {
        Ok(Some(CONFIG.into()))
    }

    fn data(&self, _files: &[String]) -> Option<DataFacts> {
        Some(DataFacts { unmatched: Vec::new(), most_tokens: Some(1 << 50) })
    }
}

/// A recipe of at least so many lines: the same study again and again, each time with other numbers.
fn recipe(lines: usize) -> String {
    let mut text = String::from(
        "mrecipe 1\n\nparam budget = 4.5B\n\nmodel parent { checkpoint = \"8b\"; dt_floor = 0 }\n\n",
    );
    let mut n = 0;
    while text.lines().count() < lines {
        n += 1;
        study(&mut text, n);
    }
    text
}

/// About 60 lines. Writing to a string does not fail.
fn study(text: &mut String, n: usize) {
    let (ffn, heads, steps) = (12288 + 256 * (n % 30), 112 + 8 * (n % 2), 60 + n);
    let _ = write!(
        text,
        r#"# Study {n}: a model of fixed sizes, and one that is searched for.

data calibration{n} {{
    files    = ["data/calibration-{n}/*.jsonl"]
    field    = "text"
    sequence = 8192
    samples  = 512
    seed     = {n}
}}

data corpus{n} {{
    files    = ["data/corpus-{n}/*.parquet"]
    sequence = 8192
    epochs   = 2
}}

metric activation{n}(x) = l2(mean(abs(x), over = sequence), over = batch)
metric flap{n}(x, w)    = variance(x, over = tokens) * l2(w) * l2(w)

group rules{n} {{
    mamba_num_heads within n_groups equal
    ffn_hidden_size multiple_of 256
    protect layers {{0, 51}}
    keep attention 4
}}

prune fixed{n} from parent {{
    calibrate on calibration{n}
    under rules{n}
    axis mamba_num_heads = {heads}   by activation{n} at mamba.x
    axis ffn_hidden_size = {ffn} by flap{n} at ffn.act
    repair norms fitted
}}

prune space{n} from parent {{
    calibrate on calibration{n}
    under rules{n}
    axis mamba_head_dim  in {{48, 56, 64}}              by activation{n}
    axis mamba_num_heads in {{96, 112, 128}}            by activation{n}
    axis ffn_hidden_size in 9984..=21504 step 768 by flap{n}
    axis hidden_size     in {{3072, 3584, 4096}}         by activation{n}
    axis num_layers      in {{44, 48, 52}}              by iterative(mse)
}}

search best{n} in space{n} {{
    require params in 4.3B ..= budget
    require memory(batch = 8, sequence = 64Ki) <= 40GiB
    rank by loss on calibration{n} keep 22
    rank by loss on calibration{n} after full{n} for 1B keep 1
}}

schedule full{n} {{
    loss      = 0.9 * forward_kl(temperature = 1.0) + 0.1 * cross_entropy()
    optimizer = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1, clip = 1.0)
    rate      = cosine(peak = 1.6e-4, floor = 8e-6, warmup = {steps} steps)
    batch     = 768
    phase "8k"  {{ tokens = 330B; sequence = 8192 }}
    phase "32k" {{ tokens = 50B; sequence = 32Ki; batch = 192 }}
}}

distill student{n} from best{n} {{
    teacher  = parent
    data     = corpus{n}
    schedule = full{n}
}}

evaluate student{n} against parent on calibration{n} {{ loss, perplexity, top1, kl }}
evaluate fixed{n} on calibration{n} {{ loss }}
deploy fixed{n} for hf
deploy best{n} for hf
export student{n} to "out/student-{n}" {{ dtype = bf16; shard = 5GB }}
export fixed{n} to "out/fixed-{n}"

"#
    );
}

/// What is typed: a digit, a letter of a name, half a line, and it is taken back.
fn edits(text: &str) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for step in 1..40 {
        let at = lines.len() * step / 40;
        let mut edit = |what, line: String| {
            let mut changed = lines.clone();
            changed[at] = &line;
            all.push((what, changed.join("\n")));
        };
        edit("a digit", lines[at].replacen(['1', '2', '4'], "8", 1));
        edit("a letter", lines[at].replacen('a', "", 1));
        edit("half a line", lines[at][..lines[at].len() / 2].to_string());
        edit("a line", "    axis hidden_size = 3072 by ".to_string());
        edit("nothing", lines[at].to_string());
    }
    all
}

fn main() {
    let text = recipe(2000);
    let first = Instant::now();
    let draft = Draft::new("recipe.mrecipe", &text, &Published);
    let codes: Vec<&str> = draft.checked.found.iter().map(|d| d.code).collect();
    println!("{} lines, opened in {:?}; found {codes:?}", text.lines().count(), first.elapsed());
    let mut times: Vec<(Duration, &str, usize)> = Vec::new();
    let mut draft = draft;
    for (what, text) in edits(&text) {
        let began = Instant::now();
        draft = draft.again("recipe.mrecipe", &text, &Published);
        times.push((began.elapsed(), what, draft.checked.found.len()));
    }
    times.sort();
    let at = |share: usize| times[times.len() * share / 100];
    println!(
        "{} edits: p50 {:?}, p95 {:?}, slowest {:?}",
        times.len(),
        at(50).0,
        at(95).0,
        times[times.len() - 1]
    );
    let offset = text.len() / 2;
    let began = Instant::now();
    let offered = draft.complete(offset).0.len();
    let shown = draft.hover(offset).is_some();
    println!("completion ({offered} words) and hover ({shown}): {:?}", began.elapsed());
    for lines in [2000, 10_000] {
        let text = recipe(lines);
        let began = Instant::now();
        let found = Draft::new("recipe.mrecipe", &text, &Published).checked.found.len();
        println!("check of {} lines: {:?}, {found} findings", text.lines().count(), began.elapsed());
    }
}
