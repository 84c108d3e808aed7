//! Writes the quickstart's corpus: small English-like stories whose later sentences depend on earlier ones.
//!
//! ```text
//! cargo run --example stories -- OUT [--train N] [--heldout N] [--recall N] [--seed N]
//! ```
//!
//! A story is one paragraph of about 350 bytes. Three children each own a colored thing, each puts it somewhere, one of them moves
//! it, and four questions with their answers close the paragraph:
//!
//! ```text
//! Leo has a red drum. Anna has a pink kite. .. Leo put the red drum in the barn. .. Then Leo moved the drum to the mill. ..
//! Where is the drum? In the mill. Who has the kite? Anna. ..
//! ```
//!
//! Nothing but the story itself tells the answers: names, things, colors and places are drawn afresh for each story. `OUT` gets
//! `train.txt`, `heldout.txt` (no story of which is in the training text) and `recall.jsonl`, one `{"prompt", "answer"}` per line
//! made from held-out stories. The same seed gives the same bytes on every machine.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The words of a kind start with different letters, so that a byte-level model settles a word with its first byte.
const NAMES: [&str; 12] =
    ["Anna", "Ben", "Cora", "Dan", "Ella", "Finn", "Gus", "Hana", "Ivan", "Jane", "Kim", "Leo"];
const THINGS: [&str; 12] =
    ["ball", "cup", "drum", "flag", "hat", "kite", "lamp", "map", "net", "rope", "sled", "top"];
const COLORS: [&str; 8] = ["red", "blue", "green", "white", "pink", "yellow", "silver", "violet"];
const PLACES: [&str; 12] =
    ["barn", "cave", "den", "forest", "garden", "hall", "kitchen", "lake", "mill", "park", "shed", "tent"];
/// Every story begins with one of these, so that all words that matter follow a space and are one token each.
const OPENINGS: [&str; 6] = [
    "The sun was warm.",
    "It was a cold day.",
    "A dog ran by.",
    "They sang a song.",
    "Soon it began to rain.",
    "All of them were happy.",
];

const CHILDREN: usize = 3;
const QUESTIONS: usize = 4;
/// Colored things in a rhyme, and one paragraph in how many is a rhyme.
const RHYME: usize = 6;
const RHYME_EVERY: usize = 4;

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

/// What a story says of one child.
struct Child {
    name: &'static str,
    thing: &'static str,
    color: &'static str,
    place: &'static str,
    moved_to: Option<&'static str>,
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
        let mut children = cast(random);
        let mut sentences = vec![OPENINGS[random.below(OPENINGS.len())].to_string()];
        sentences.extend(about_each(random, &mut children, owns));
        sentences.extend(about_each(random, &mut children, colored));
        sentences.extend(about_each(random, &mut children, |c| placed(c.thing, c.place)));
        sentences.extend(children.iter().filter_map(moving));
        Story { body: sentences.join(" "), questions: questions(random, &children) }
    }

    /// A rhyme said twice: words in an arbitrary order, which only the first saying tells.
    fn rhyme(random: &mut Random) -> Story {
        let (things, colors) = (random.draw(&THINGS, RHYME), random.draw(&COLORS, RHYME));
        let lines: Vec<String> =
            colors.iter().zip(&things).map(|(color, thing)| format!("{color} {thing}")).collect();
        let rhyme = lines.join(", ");
        let name = NAMES[random.below(NAMES.len())];
        let body = format!("This is how {name} sang: {rhyme}. Then {name} sang again: {rhyme}.");
        Story { body, questions: Vec::new() }
    }

    fn paragraph(&self) -> String {
        let mut text = self.body.clone();
        for question in &self.questions {
            text.push_str(&format!(" {} {}", question.ask, question.answer));
        }
        text
    }

    /// The prompt of question `asked`: the story, the questions before it, and the question up to its answer.
    fn prompt(&self, asked: usize) -> String {
        let mut text = self.body.clone();
        for question in &self.questions[..asked] {
            text.push_str(&format!(" {} {}", question.ask, question.answer));
        }
        format!("{text} {}", self.questions[asked].ask)
    }
}

fn cast(random: &mut Random) -> Vec<Child> {
    let names = random.draw(&NAMES, CHILDREN);
    let things = random.draw(&THINGS, CHILDREN);
    let colors = random.draw(&COLORS, CHILDREN);
    let places = random.draw(&PLACES, CHILDREN + 1);
    let mover = random.below(CHILDREN);
    (0..CHILDREN)
        .map(|i| Child {
            name: names[i],
            thing: things[i],
            color: colors[i],
            place: places[i],
            moved_to: (i == mover).then_some(places[CHILDREN]),
        })
        .collect()
}

/// One sentence about each child, the children in a fresh order.
fn about_each(
    random: &mut Random,
    children: &mut [Child],
    sentence: impl Fn(&Child) -> String,
) -> Vec<String> {
    random.shuffle(children);
    children.iter().map(sentence).collect()
}

fn owns(child: &Child) -> String {
    format!("{} has a {}.", child.name, child.thing)
}

fn colored(child: &Child) -> String {
    format!("The {} is {}.", child.thing, child.color)
}

fn placed(thing: &str, place: &str) -> String {
    format!("The {thing} is in the {place}.")
}

fn moving(child: &Child) -> Option<String> {
    let place = child.moved_to?;
    Some(format!("Then {} moved the {}. {}", child.name, child.thing, placed(child.thing, place)))
}

/// `QUESTIONS` different questions out of four kinds for each child.
fn questions(random: &mut Random, children: &[Child]) -> Vec<Question> {
    let mut all: Vec<Question> = children.iter().flat_map(ask).collect();
    random.shuffle(&mut all);
    all.truncate(QUESTIONS);
    all
}

fn ask(child: &Child) -> [Question; 4] {
    let (name, thing) = (child.name, child.thing);
    let question = |ask: String, answer: &str| Question { ask, answer: format!("{answer}.") };
    [
        question(
            format!("Where is the {thing}? The {thing} is in the"),
            child.moved_to.unwrap_or(child.place),
        ),
        question(format!("What does {name} have? {name} has a"), thing),
        question(format!("What color is the {thing}? The {thing} is"), child.color),
        question(format!("Who has the {thing}? It is"), name),
    ]
}

struct Options {
    out: PathBuf,
    train: usize,
    heldout: usize,
    recall: usize,
    seed: u64,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options { out: PathBuf::new(), train: 1000, heldout: 130, recall: 200, seed: 1 };
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
        let rhyming = stories.len() % RHYME_EVERY == RHYME_EVERY - 1;
        let story = if rhyming { Story::rhyme(random) } else { Story::tell(random) };
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
    let stories: Vec<&Story> = stories.iter().filter(|story| !story.questions.is_empty()).collect();
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

fn write_corpus(options: &Options) -> io::Result<()> {
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
