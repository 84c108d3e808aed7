//! Questions: what `accuracy` counts is what greedy decoding answers.

use crate::command::{minic, quickstart, repository};
use crate::support::{logits, source};
use minic_compiler::dim::Dim;
use minic_runtime::source::WeightSource;
use minic_runtime::tokens::Tokenizer;
use serde_json::Value;
use std::fs;

/// Enough for some to be answered and some not.
const ASKED: usize = 24;

const RECIPE: &str = r#"mrecipe 1
model parent { checkpoint = "model"; dt_floor = 0.001 }
data recall { files = ["recall.jsonl"]; field = "prompt"; answer = "answer"; sequence = 256 }
metric magnitude(w) = l2(w)
prune half from parent { axis ffn_hidden_size = 192 by magnitude }
evaluate half against parent on recall { accuracy, kl }
"#;

/// The most likely tokens after a prompt, one after the other.
fn greedy(model: &WeightSource, mut ids: Vec<u32>, count: usize) -> Vec<u32> {
    let vocab = model.desc().size(Dim::VocabSize);
    for _ in 0..count {
        let all = logits(model, &ids);
        let last = &all[all.len() - vocab..];
        let best = last.iter().enumerate().fold(0, |best, (i, v)| if *v > last[best] { i } else { best });
        ids.push(best as u32);
    }
    ids.split_off(ids.len() - count)
}

#[test]
fn accuracy_is_the_share_of_questions_that_greedy_decoding_answers() {
    let folder = quickstart(RECIPE);
    let text = fs::read_to_string(repository("examples/quickstart/recall.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().take(ASKED).collect();
    fs::write(folder.path().join("recall.jsonl"), lines.join("\n")).unwrap();
    let tokenizer = Tokenizer::open(&folder.path().join("model")).unwrap();
    let model = source(&folder.path().join("model"));
    let (mut answered, mut tokens) = (0, 0);
    for line in lines {
        let row: Value = serde_json::from_str(line).unwrap();
        let prompt = tokenizer.encode(row["prompt"].as_str().unwrap()).unwrap();
        let answer = tokenizer.encode(row["answer"].as_str().unwrap()).unwrap();
        tokens += answer.len();
        answered += usize::from(greedy(&model, prompt, answer.len()) == answer);
    }
    assert!((1..ASKED).contains(&answered), "{answered} of {ASKED} are answered: these show nothing");
    let share = answered as f64 / ASKED as f64;

    let evaluated = minic(
        folder.path(),
        &["eval", "model", "--data", "recall.jsonl", "--field", "prompt", "--answer", "answer", "--json"],
    );
    let figures = evaluated.json();
    assert_eq!((figures["accuracy"].as_f64(), figures["questions"].as_u64()), (Some(share), Some(24)));
    assert_eq!(figures["tokens"].as_u64(), Some(tokens as u64), "of the answers alone");

    let done = minic(folder.path(), &["run", "recipe.mrecipe", "--json"]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    let result = &done.json()["evaluations"]["evaluate half"];
    assert_eq!(result["against_figures"]["accuracy"].as_f64(), Some(share));
    assert_eq!(result["figures"]["questions"].as_u64(), Some(24));
    assert!(result["figures"]["kl"].as_f64().is_some_and(|kl| kl > 0.0));
    let table = minic(folder.path(), &["run", "recipe.mrecipe"]).stdout;
    assert!(table.lines().any(|l| l.ends_with("accuracy")), "{table}");
    assert!(table.contains(&format!("{:.1} %", share * 100.0)), "{table}");
}
