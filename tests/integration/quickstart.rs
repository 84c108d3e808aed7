//! The quickstart's committed corpus is what its generator writes, and its questions can be answered.

#[allow(dead_code)]
#[path = "../../examples/stories.rs"]
mod stories;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

const QUICKSTART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/quickstart");

fn committed(file: &str) -> String {
    fs::read_to_string(Path::new(QUICKSTART).join(file)).expect(file)
}

#[test]
fn the_generator_writes_the_committed_corpus() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arguments = [folder.path().display().to_string()];
    let options = stories::Options::parse(arguments.into_iter()).expect("options");
    stories::write_corpus(&options).expect("a corpus");
    for file in ["train.txt", "heldout.txt", "recall.jsonl"] {
        let written = fs::read_to_string(folder.path().join(file)).expect(file);
        assert!(written == committed(file), "{file} differs from what the generator writes");
    }
}

#[test]
fn another_seed_tells_other_stories() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arguments = [folder.path().display().to_string(), "--seed".to_string(), "2".to_string()];
    let options = stories::Options::parse(arguments.into_iter()).expect("options");
    stories::write_corpus(&options).expect("a corpus");
    let other = fs::read_to_string(folder.path().join("heldout.txt")).expect("heldout.txt");
    assert_ne!(other, committed("heldout.txt"));
}

#[test]
fn no_held_out_story_is_in_the_training_text() {
    let facts = |story: &str| story.split_once(" It was so.").expect("a second telling").0.to_string();
    let of = |file: &str| -> Vec<String> {
        committed(file).split("\n\n").filter(|story| !story.is_empty()).map(facts).collect()
    };
    let told: HashSet<String> = of("train.txt").into_iter().collect();
    for story in of("heldout.txt") {
        assert!(!told.contains(&story), "told twice: {story}");
    }
}

#[test]
fn every_question_has_its_answer_in_the_story() {
    for line in committed("recall.jsonl").lines() {
        let question: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let (prompt, answer) = (question["prompt"].as_str(), question["answer"].as_str());
        let (prompt, answer) = (prompt.expect("a prompt"), answer.expect("an answer"));
        let word =
            answer.strip_prefix(' ').and_then(|rest| rest.strip_suffix('.')).expect("a word and a full stop");
        let story = prompt.rsplit_once('?').map(|(before, _)| before).expect("a question");
        assert!(
            story.split([' ', '.', '!', '?']).any(|told| told == word),
            "`{word}` is not told in: {prompt}"
        );
        assert!(
            !prompt.ends_with(' '),
            "a prompt ends with a word, so that its tokens stay when the answer follows"
        );
    }
}

#[test]
fn unusable_options_are_refused() {
    let refused = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|a| a.to_string()).collect();
        stories::Options::parse(arguments.into_iter()).err()
    };
    assert!(refused(&[]).is_some_and(|text| text.starts_with("usage")));
    assert!(refused(&["out", "--train"]).is_some_and(|text| text.contains("needs a number")));
    assert!(refused(&["out", "--train", "many"]).is_some_and(|text| text.contains("`many`")));
    assert!(refused(&["out", "--trian", "1"]).is_some_and(|text| text.contains("--trian")));
    assert!(refused(&["out", "more"]).is_some_and(|text| text.contains("more")));
}
