//! Writes the quickstart's corpus: small English-like stories whose later sentences depend on earlier ones.
//!
//! ```text
//! cargo run --example stories -- OUT [--train N] [--heldout N] [--recall N] [--seed N]
//! ```
//!
//! A story is one paragraph of two to four facts, told twice, and closes with questions and their answers:
//!
//! ```text
//! It was warm. Leo had a red drum. The kite was in Oslo. It was so. Leo had a red drum. The kite was in Oslo.
//! Where was the kite? The kite was in Oslo. What was red? It was the red drum.
//! ```
//!
//! Nothing but the story itself tells the answers: its words are drawn afresh for each story. Telling it twice is what a small
//! model learns to remember from: in the second telling every word can be known. `OUT` gets
//! `train.txt`, `heldout.txt` (no story of which is in the training text) and `recall.jsonl`, one `{"prompt", "answer"}` per line
//! made from held-out stories. The same seed gives the same bytes on every machine.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const NAMES: [&str; 6] = ["Anna", "Ben", "Dan", "Ella", "Hana", "Leo"];
const THINGS: [&str; 6] = ["ball", "cup", "drum", "kite", "map", "rope"];
const COLORS: [&str; 6] = ["red", "blue", "green", "white", "pink", "yellow"];
const PLACES: [&str; 6] = ["Athens", "Berlin", "Cairo", "Lima", "Oslo", "Rome"];

/// SplitMix64 (Steele, Lea and Flood, 2014): eight lines, no dependency, the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, by the high half of a product (its bias is below 2^-60 here).
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// `count` different words of `words`, in random order.
    fn draw(&mut self, words: &[&'static str], count: usize) -> Vec<&'static str> {
        let mut pool = words.to_vec();
        self.shuffle(&mut pool);
        pool.truncate(count);
        pool
    }
}

/// A question up to its answer, and the answer with the full stop that ends it.
struct Question {
    ask: String,
    answer: String,
}

struct Story {
    body: String,
    /// All that can be asked of it, in random order.
    questions: Vec<Question>,
    /// Those that its paragraph asks. It may ask one twice.
    asked: Vec<usize>,
}

impl Story {
    fn tell(random: &mut Random) -> Story {
        let facts = facts(random);
        let told: String = facts.iter().map(|fact| format!(" {}", fact.told)).collect();
        let body = format!("It was warm.{told} It was so.{told}");
        let asked = facts.len();
        let mut questions: Vec<Question> = facts.into_iter().flat_map(|fact| fact.questions).collect();
        random.shuffle(&mut questions);
        let asked = (0..asked).map(|_| random.below(questions.len())).collect();
        Story { body, questions, asked }
    }

    fn paragraph(&self) -> String {
        let asked =
            self.asked.iter().map(|&i| &self.questions[i]).map(|q| format!(" {} {}", q.ask, q.answer));
        std::iter::once(self.body.clone()).chain(asked).collect()
    }

    /// The prompt of a question: the story, and the question up to its answer.
    fn prompt(&self, question: &Question) -> String {
        format!("{} {}", self.body, question.ask)
    }
}

/// What a story says of one child.
struct Child {
    name: &'static str,
    thing: &'static str,
    color: &'static str,
    /// Where the thing is.
    place: &'static str,
}

/// A sentence of a story, and what can be asked of it.
struct Fact {
    told: String,
    questions: Vec<Question>,
}

impl Child {
    fn facts(&self) -> [Fact; 2] {
        let Child { name, thing, color, place } = self;
        let question = |ask: String, answer: &str| Question { ask, answer: format!("{answer}.") };
        [
            Fact {
                told: format!("{name} had a {color} {thing}."),
                questions: vec![
                    question(format!("Who had the {thing}? It was"), name),
                    question(format!("What was {color}? It was the {color}"), thing),
                ],
            },
            Fact {
                told: format!("The {thing} was in {place}."),
                questions: vec![question(format!("Where was the {thing}? The {thing} was in"), place)],
            },
        ]
    }
}

/// Some facts of up to three children, in random order: where a sentence stands tells nothing.
fn facts(random: &mut Random) -> Vec<Fact> {
    let [names, things, colors, places] =
        [&NAMES, &THINGS, &COLORS, &PLACES].map(|words| random.draw(words, 3));
    let child = |i: usize| Child { name: names[i], thing: things[i], color: colors[i], place: places[i] };
    let mut facts: Vec<Fact> = (0..3).flat_map(|i| child(i).facts()).collect();
    random.shuffle(&mut facts);
    facts.truncate(2 + random.below(3));
    facts
}

pub struct Options {
    out: PathBuf,
    train: usize,
    heldout: usize,
    recall: usize,
    seed: u64,
}

impl Options {
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options { out: PathBuf::new(), train: 5000, heldout: 100, recall: 300, seed: 1 };
        let mut out = None;
        while let Some(arg) = args.next() {
            let mut number = || -> Result<u64, String> {
                let value = args.next().ok_or(format!("{arg} needs a number"))?;
                value.parse().map_err(|_| format!("{arg} needs a whole number, got `{value}`"))
            };
            match arg.as_str() {
                "--train" => options.train = number()? as usize,
                "--heldout" => options.heldout = number()? as usize,
                "--recall" => options.recall = number()? as usize,
                "--seed" => options.seed = number()?,
                flag if flag.starts_with('-') => return Err(format!("there is no option `{flag}`")),
                _ if out.is_some() => return Err(format!("unexpected `{arg}`: one output folder is enough")),
                _ => out = Some(PathBuf::from(&arg)),
            }
        }
        options.out = out.ok_or("usage: stories OUT [--train N] [--heldout N] [--recall N] [--seed N]")?;
        Ok(options)
    }
}

/// `count` stories that tell something else than each other and those already `told`, whatever they ask.
fn stories(random: &mut Random, count: usize, told: &mut HashSet<String>) -> Vec<Story> {
    let mut stories = Vec::with_capacity(count);
    while stories.len() < count {
        let story = Story::tell(random);
        if told.insert(story.body.clone()) {
            stories.push(story);
        }
    }
    stories
}

fn write_text(path: &Path, stories: &[Story]) -> io::Result<()> {
    let text: String = stories.iter().map(|story| story.paragraph() + "\n\n").collect();
    fs::write(path, text)
}

/// One question of each story in turn, until there are `count`. The words need no JSON escapes.
fn write_recall(path: &Path, stories: &[Story], count: usize) -> io::Result<()> {
    let most = stories.iter().map(|story| story.questions.len()).max().unwrap_or(0);
    let lines: String = (0..most)
        .flat_map(|i| stories.iter().filter_map(move |story| Some((story, story.questions.get(i)?))))
        .take(count)
        .map(|(story, question)| {
            format!("{{\"prompt\": \"{}\", \"answer\": \" {}\"}}\n", story.prompt(question), question.answer)
        })
        .collect();
    fs::write(path, lines)
}

pub fn write_corpus(options: &Options) -> io::Result<()> {
    fs::create_dir_all(&options.out)?;
    let mut told = HashSet::new();
    // The held-out stories come first, so that they stay the same whatever the length of the training text.
    let heldout = stories(&mut Random(options.seed), options.heldout, &mut told);
    let train = stories(&mut Random(options.seed ^ 0x5EED), options.train, &mut told);
    write_text(&options.out.join("train.txt"), &train)?;
    write_text(&options.out.join("heldout.txt"), &heldout)?;
    write_recall(&options.out.join("recall.jsonl"), &heldout, options.recall)
}

#[allow(clippy::print_stderr)]
fn main() -> ExitCode {
    let failed = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => match write_corpus(&options) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => format!("cannot write the corpus to {}: {error}", options.out.display()),
        },
        Err(usage) => usage,
    };
    eprintln!("{failed}");
    ExitCode::FAILURE
}
