//! Writes the quickstart's corpus: small English-like stories whose later sentences depend on earlier ones.
//!
//! ```text
//! cargo run --example stories -- OUT [--train N] [--heldout N] [--recall N] [--seed N]
//! ```
//!
//! A story is one paragraph of about 600 bytes about two children, and closes with four questions and their answers:
//!
//! ```text
//! Leo had a red drum. Anna had a pink kite. They met near Oslo. A goat saw the pink kite and took it. Anna ran after the goat. ..
//! What was pink? It was the pink kite. Where was the drum? The drum was in the chest. Who had the kite? It was Anna. ..
//! ```
//!
//! Nothing but the story itself tells the answers: its eleven words are drawn afresh for each story. `OUT` gets
//! `train.txt`, `heldout.txt` (no story of which is in the training text) and `recall.jsonl`, one `{"prompt", "answer"}` per line
//! made from held-out stories. The same seed gives the same bytes on every machine.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const NAMES: [&str; 12] =
    ["Anna", "Ben", "Cora", "Dan", "Ella", "Finn", "Gus", "Hana", "Ivan", "Jane", "Kim", "Leo"];
const THINGS: [&str; 12] =
    ["ball", "cup", "drum", "flag", "hat", "kite", "lamp", "map", "net", "rope", "sled", "top"];
const COLORS: [&str; 8] = ["red", "blue", "green", "white", "pink", "yellow", "silver", "violet"];
const PLACES: [&str; 12] = [
    "Athens", "Berlin", "Cairo", "Dublin", "Geneva", "Havana", "Lima", "Madrid", "Oslo", "Paris", "Rome",
    "Vienna",
];
const PETS: [&str; 8] = ["cat", "dog", "fox", "goat", "hen", "owl", "pig", "rabbit"];
const FOODS: [&str; 8] = ["apples", "bread", "cheese", "honey", "milk", "nuts", "plums", "soup"];
const BOXES: [&str; 8] = ["bag", "chest", "jar", "nest", "pot", "sack", "trunk", "vase"];
/// Every story begins with one of these, so that all words that matter follow a space and are one token each.
const OPENINGS: [&str; 6] = [
    "The sun was warm.",
    "It was a cold day.",
    "A bird flew by.",
    "They sang a song.",
    "Soon it began to rain.",
    "All of them were happy.",
];

const QUESTIONS: usize = 4;

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
    questions: Vec<Question>,
}

impl Story {
    fn tell(random: &mut Random) -> Story {
        let opening = OPENINGS[random.below(OPENINGS.len())];
        let words = Words::draw(random);
        let body = words.body(random);
        let mut questions = words.questions();
        random.shuffle(&mut questions);
        questions.truncate(QUESTIONS);
        Story { body: format!("{opening} {body}"), questions }
    }

    fn paragraph(&self) -> String {
        self.up_to(self.questions.len())
    }

    /// The story and its first `count` questions with their answers.
    fn up_to(&self, count: usize) -> String {
        let asked = self.questions[..count].iter().map(|q| format!(" {} {}", q.ask, q.answer));
        std::iter::once(self.body.clone()).chain(asked).collect()
    }

    /// The prompt of question `asked`: the story, the questions before it, and the question up to its answer.
    fn prompt(&self, asked: usize) -> String {
        format!("{} {}", self.up_to(asked), self.questions[asked].ask)
    }
}

/// What a story says of one child.
struct Child {
    name: &'static str,
    thing: &'static str,
    color: &'static str,
    /// Where the thing is in the end.
    place: &'static str,
}

impl Child {
    fn toy(&self) -> String {
        format!("{} {}", self.color, self.thing)
    }
}

/// The words that are drawn for one story.
struct Words {
    children: [Child; 2],
    pet: &'static str,
    place: &'static str,
    food: &'static str,
}

impl Words {
    fn draw(random: &mut Random) -> Words {
        let [names, things, colors, boxes] =
            [&NAMES[..], &THINGS, &COLORS, &BOXES].map(|w| random.draw(w, 2));
        let child = |i: usize| Child { name: names[i], thing: things[i], color: colors[i], place: boxes[i] };
        let mut one = |words: &[&'static str]| words[random.below(words.len())];
        Words { children: [child(0), child(1)], pet: one(&PETS), place: one(&PLACES), food: one(&FOODS) }
    }

    /// Which child a sentence is about is drawn anew where the story allows it: its place in the story does not tell.
    fn body(&self, random: &mut Random) -> String {
        let Words { children, pet, place, food } = self;
        let mut pair =
            || if random.below(2) == 0 { [&children[0], &children[1]] } else { [&children[1], &children[0]] };
        let [first, second] = pair();
        let [owner, friend] = pair();
        let [glad, busy] = pair();
        let [left, right] = pair();
        [
            format!("{} had a {}. {} had a {}.", first.name, first.toy(), second.name, second.toy()),
            format!("They met near {place}. A {pet} saw the {} and took it.", owner.toy()),
            format!("{} ran after the {pet}. {} ate {food}.", owner.name, friend.name),
            format!(
                "Then {} looked in a {}. The {} was in the {}!",
                owner.name, owner.place, owner.thing, owner.place
            ),
            format!("{} put the {} in a {}.", friend.name, friend.toy(), friend.place),
            format!("Now the {} was in the {}.", friend.thing, friend.place),
            format!("{} liked the {}. {} liked the {}.", glad.name, glad.toy(), busy.name, busy.toy()),
            format!("They ate {food}. The {} and the {} were good toys.", left.toy(), right.toy()),
            format!("It was dark near {place}."),
        ]
        .join(" ")
    }

    fn questions(&self) -> Vec<Question> {
        let question = |ask: String, answer: &str| Question { ask, answer: format!("{answer}.") };
        let mut all = vec![
            question("Who was the thief? It was the".to_string(), self.pet),
            question("Where did they meet? They met near".to_string(), self.place),
            question("What did they eat? They ate".to_string(), self.food),
        ];
        for child in &self.children {
            all.push(question(format!("Who had the {}? It was", child.thing), child.name));
            all.push(question(format!("What was {0}? It was the {0}", child.color), child.thing));
            all.push(question(format!("Where was the {0}? The {0} was in the", child.thing), child.place));
        }
        all
    }
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
        let mut options = Options { out: PathBuf::new(), train: 700, heldout: 100, recall: 200, seed: 1 };
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

/// `count` paragraphs that differ from each other and from those already `told`.
fn paragraphs(random: &mut Random, count: usize, told: &mut HashSet<String>) -> Vec<Story> {
    let mut stories = Vec::with_capacity(count);
    while stories.len() < count {
        let story = Story::tell(random);
        if told.insert(story.paragraph()) {
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
    let lines: String = (0..QUESTIONS)
        .flat_map(|asked| stories.iter().map(move |story| (story, asked)))
        .take(count)
        .map(|(story, asked)| {
            format!(
                "{{\"prompt\": \"{}\", \"answer\": \" {}\"}}\n",
                story.prompt(asked),
                story.questions[asked].answer
            )
        })
        .collect();
    fs::write(path, lines)
}

pub fn write_corpus(options: &Options) -> io::Result<()> {
    fs::create_dir_all(&options.out)?;
    let mut told = HashSet::new();
    // The held-out stories come first, so that they stay the same whatever the length of the training text.
    let heldout = paragraphs(&mut Random(options.seed), options.heldout, &mut told);
    let train = paragraphs(&mut Random(options.seed ^ 0x5EED), options.train, &mut told);
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
