#![allow(clippy::disallowed_methods, reason = "the recipes of the repository are read here")]

use super::*;
use std::fs;
use std::path::Path;

#[track_caller]
fn check(source: &str, wanted: &str) {
    let found = format(source).unwrap_or_else(|e| panic!("{e:?}\n{}", layout(source)));
    assert_eq!(found, wanted, "\n{found}");
    assert_eq!(format(&found).expect("it is read again"), wanted, "again");
}

#[test]
fn blanks_and_line_ends_are_put_right() {
    check(
        "\u{feff}mrecipe   1\r\nmodel\tparent{checkpoint=\"m\";dt_floor=-0.5;}\r\n\r\n\r\nparam x=f( 1 ,y = [ 2,3, ] )*( 4-a )",
        "mrecipe 1\n\nmodel parent { checkpoint = \"m\"; dt_floor = -0.5 }\n\nparam x = f(1, y = [2, 3]) * (4 - a)\n",
    );
    check("mrecipe 1", "mrecipe 1\n");
    check("# only\nmrecipe 1\n\n\n", "# only\nmrecipe 1\n");
}

#[test]
fn a_block_over_several_lines_has_a_setting_on_each() {
    check(
        "mrecipe 1\ndata d {\nfiles = [\"a\"]; sequence = 8; mix = [{ files = [\"b\"]\n weight = 1 }] }\nmodel m {\n}\ngroup g { }\n",
        "mrecipe 1\n\ndata d {\n    files    = [\"a\"]\n    sequence = 8\n    mix = [{\n        files  = [\"b\"]\n        weight = 1\n    }]\n}\nmodel m { }\ngroup g { }\n",
    );
}

#[test]
fn consecutive_lines_of_a_form_are_aligned() {
    check(
        "mrecipe 1
data a { sequence = 1 }
data long { sequence = 1 }
metric m(x) = x
metric flap(x, w) = x
param a = 1

param long = 2
prune p from a {
    calibrate on a
    axis mamba_head_dim in {1, 2} by m at mamba.x
    # between
    axis hidden_size = 3072 by m
    axis num_layers = 5
}
group g {
    mamba_num_heads within n_groups
    mamba_head_dim shared across mamba_num_heads
    keep attention 4
}
schedule s { phase \"8k\" { tokens = 1 }
    phase \"128k\" { tokens = 1 } }
evaluate p against a on a { loss }
evaluate long on a { loss, kl, }
sensitivity s of p on a { loss, latency(input=2), }
sensitivity long of space on a {loss}
",
        "mrecipe 1

data a    { sequence = 1 }
data long { sequence = 1 }
metric m(x)       = x
metric flap(x, w) = x
param a = 1

param long = 2
prune p from a {
    calibrate on a
    axis mamba_head_dim in {1, 2} by m at mamba.x
    # between
    axis hidden_size    = 3072    by m
    axis num_layers     = 5
}
group g {
    mamba_num_heads within n_groups
    mamba_head_dim  shared across mamba_num_heads
    keep attention 4
}
schedule s {
    phase \"8k\"   { tokens = 1 }
    phase \"128k\" { tokens = 1 }
}
evaluate p    against a on a { loss }
evaluate long on a { loss, kl }
sensitivity s    of p     on a { loss, latency(input = 2) }
sensitivity long of space on a { loss }
",
    );
}

#[test]
fn comments_stay_where_they_are() {
    check(
        "# head
mrecipe 1 # one
# two

#three
model m { # four
  # five
  checkpoint = \"m\" # six

  # seven
  } # eight
param x = [ # nine
1 # ten
, 2, # eleven

# twelve
3
# thirteen
]
param sum = 1 + # fourteen
  # fifteen
  2
deploy m for hf, # sixteen
vllm
# seventeen
",
        "# head
mrecipe 1  # one

# two

#three
model m {  # four
    # five
    checkpoint = \"m\"  # six

    # seven
}  # eight
param x = [  # nine
    1,  # ten
    2,  # eleven

    # twelve
    3,
    # thirteen
]
param sum = 1 +  # fourteen
    # fifteen
    2
deploy m for hf,  # sixteen
    vllm
# seventeen
",
    );
}

#[test]
fn line_ends_inside_of_values_are_kept_where_they_part_members_or_operands() {
    check(
        "mrecipe 1
param rows = {1, 2,
3, 4}
param sum = (1
+ 2 * 3)
param nested = f(g(
a, b =
3), 2)
metric long(x, w) = mean(square(x),
over = tokens) *
square(l2(w))
",
        "mrecipe 1

param rows = {
    1, 2,
    3, 4,
}
param sum = (
    1
    + 2 * 3
)
param nested = f(g(
    a, b = 3,
), 2)
metric long(x, w) = mean(
    square(x),
    over = tokens,
) *
    square(l2(w))
",
    );
}

#[test]
fn ranges_and_signs() {
    check(
        "mrecipe 1\nparam a = 64 ..= 128 step 8\nparam b=4.3B..=c\nparam c = 2*8..=3\nparam d = - - 1\nparam e = not ( a and not b )\n",
        "mrecipe 1\n\nparam a = 64..=128 step 8\nparam b = 4.3B ..= c\nparam c = 2 * 8 ..= 3\nparam d = --1\nparam e = not (a and not b)\n",
    );
}

#[test]
fn what_has_faults_is_left_alone() {
    match format("mrecipe 1\nmodel parent { checkpoint = }\n") {
        Err(FormatError::Unread(faults)) => assert_eq!(faults.len(), 1),
        other => panic!("{other:?}"),
    }
}

/// Every recipe of the repository that is without faults.
fn recipes() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = [
        "recipes",
        "examples/quickstart",
        "grammar/tests/corpus/good",
        "compiler/tests/corpus/good",
        "compiler/tests/corpus/bad",
    ];
    let mut found = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(root.join(folder)).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|e| e == "mrecipe") {
                let text = fs::read_to_string(&path).expect("a recipe");
                if parse(&text).1.is_empty() {
                    found.push((path.display().to_string(), text));
                }
            }
        }
    }
    assert!(found.len() > 150, "found only {}", found.len());
    found
}

/// That the tree and the comments are the same is what [`format`] itself checks.
#[test]
fn every_recipe_has_one_layout() {
    for (name, text) in recipes() {
        let once = format(&text).unwrap_or_else(|e| panic!("{name}: {e:?}\n{}", layout(&text)));
        assert_eq!(format(&once).expect("it is read again"), once, "{name} is laid out in two ways");
        assert!(!once.lines().any(|l| l.ends_with(' ')) && !once.contains("\n\n\n"), "{name}:\n{once}");
    }
}

#[test]
fn the_shipped_recipes_are_laid_out() {
    for (name, text) in recipes().into_iter().filter(|(n, _)| !n.contains("corpus")) {
        assert_eq!(format(&text).ok(), Some(text), "run `minic fmt {name}`");
    }
}

#[test]
fn blanks_within_lines_mean_nothing() {
    let mut random = Random(7);
    for (name, text) in recipes() {
        let wanted = format(&text).expect("a layout");
        for _ in 0..3 {
            let spread = respaced(&text, |token| {
                let blanks = [" ", "   ", "\t", " \t "];
                match token.lines_before {
                    0 => blanks[random.below(blanks.len())].to_string(),
                    lines => " \n".repeat(lines) + &" ".repeat(random.below(9)),
                }
            });
            assert_eq!(format(&spread).ok(), Some(wanted.clone()), "{name}:\n{spread}");
        }
    }
}

/// Line ends, comments, blank lines and `;` anywhere: where it is still a recipe, it is laid out.
#[test]
fn line_ends_and_comments_anywhere() {
    let mut random = Random(11);
    let mut tried = 0;
    for (name, text) in recipes() {
        for _ in 0..30 {
            let changed = shaken(&text, &mut random);
            if !parse(&changed).1.is_empty() {
                continue;
            }
            let once = format(&changed)
                .unwrap_or_else(|e| panic!("{name}: {e:?}\n{changed}\n---\n{}", layout(&changed)));
            assert_eq!(format(&once).ok().as_ref(), Some(&once), "{name}:\n{changed}");
            tried += 1;
        }
    }
    assert!(tried > 2000, "only {tried} were recipes");
}

/// Mostly where a line may go on or end, seldom anywhere.
fn shaken(text: &str, random: &mut Random) -> String {
    let mut number = 0;
    let mut goes_on = false;
    respaced(text, |token| {
        number += 1;
        let kept = if token.lines_before > 0 { "\n".repeat(token.lines_before) } else { " ".into() };
        let line_may_end = goes_on || token.lines_before > 0;
        goes_on = token.is_operator() || token.is(",") || (goes_on && token.is_comment());
        goes_on |= ["(", "[", "{"].iter().any(|open| token.is(open));
        match random.below(if line_may_end { 8 } else { 800 }) {
            0 => format!(" # {number}\n"),
            1 => format!("\n\n\n  # {number}\n# again\n"),
            2 => format!("{kept}\n"),
            3 if token.lines_before > 0 => format!(" ;{kept}"),
            _ => kept,
        }
    })
}

/// The tokens of a recipe with other blanks before each.
fn respaced(text: &str, mut blank: impl FnMut(&Token) -> String) -> String {
    let mut out = String::new();
    let mut after_comment = false;
    for (at, token) in tokens(text).iter().enumerate() {
        if at > 0 {
            let blank = blank(token);
            // Nothing can follow a comment on its line.
            out.push_str(if after_comment && !blank.contains('\n') { "\n" } else { &blank });
        }
        out.push_str(token.text);
        after_comment = token.is_comment();
    }
    out
}

/// Knuth's linear congruential generator: the same changes on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }
}
