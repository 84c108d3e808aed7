//! What an editor asks, without the protocol. In the texts `|` is where the cursor stands.
#![allow(clippy::disallowed_methods, reason = "the corpus is read here")]

#[path = "corpus/environment.rs"]
mod environment;

use environment::{Corpus, checked, corpus};
use minic_compiler::assist::{Draft, rename, symbols, uses};
use minic_compiler::check::Environment;
use std::fs;

/// A recipe before and after the line that is being written.
const BEFORE: &str = "mrecipe 1
param budget = 4.5B
model parent { checkpoint = \"models/tiny-hybrid\"; dt_floor = 0 }
model other { checkpoint = \"models/tiny-mamba2\" }
data text { files = [\"a.txt\"]; sequence = 64; samples = 8 }
metric activation(x) = l2(mean(abs(x), over = sequence), over = batch)
group ssm { ffn_hidden_size multiple_of 16 }
prune half from parent { calibrate on text; axis ffn_hidden_size = 240 by activation }
prune space from parent { calibrate on text; axis ffn_hidden_size in {240, 360} by activation }
search best in space { require params <= 1B; rank by loss on text keep 1 }
schedule full { loss = forward_kl(); optimizer = adamw(); rate = constant(peak = 1e-3); batch = 8; tokens = 1M }
";

/// The draft of a recipe whose last lines these are, and the offset of the cursor.
fn draft(lines: &str) -> (Draft, usize) {
    let text = format!("{BEFORE}{lines}");
    let cursor = text.rfind('|').expect("a cursor");
    let text = format!("{}{}", &text[..cursor], &text[cursor + 1..]);
    (Draft::new("recipe.mrecipe", &text, &Corpus), cursor)
}

fn offered(lines: &str) -> Vec<String> {
    let (draft, cursor) = draft(lines);
    let (words, span) = draft.complete(cursor);
    let typed = &draft.text()[span.start..span.end];
    words.into_iter().map(|word| word.label).filter(|label| label.starts_with(typed)).collect()
}

#[test]
fn every_place_is_offered_what_may_stand_there() {
    let cases: &[(&str, &[&str])] = &[
        ("pr|", &["prune"]),
        ("prune p |", &["from"]),
        ("prune p from |", &["parent", "other", "half", "space", "best"]),
        ("prune p from pa|", &["parent"]),
        ("prune p from parent { | }", &["calibrate", "under", "axis", "repair"]),
        ("prune p from parent {\n    calibrate on text\n    |\n}", &["under", "axis", "repair"]),
        ("prune p from parent { calibrate on | }", &["text"]),
        ("prune p from parent { under |", &["ssm"]),
        (
            "prune p from other {\n    axis |",
            &["num_layers", "mamba_head_dim", "mamba_num_heads", "hidden_size"],
        ),
        ("prune p from parent {\n    axis num_layers = 4 by kld\n    axis num|", &[]),
        (
            "prune p from parent {\n    axis num_layers = 4 by |",
            &["kld", "mse", "cosine", "random", "reverse", "iterative", "contiguous"],
        ),
        (
            "prune p from parent { axis num_layers = 4 by iterative(|",
            &["kld", "mse", "cosine", "random", "reverse", "iterative", "contiguous"],
        ),
        ("prune p from parent { axis hidden_size = 80 by p|", &["pca"]),
        ("prune p from parent { axis hidden_size = 80 by pca |", &["at"]),
        ("prune p from parent { axis ffn_hidden_size = 80 by activation at |", &["ffn.up", "ffn.act"]),
        ("prune p from parent { axis ffn_hidden_size = 80 by activation at ffn.|", &["ffn.up", "ffn.act"]),
        ("prune p from parent { axis ffn_hidden_size = 80 |", &["by", "at", "step"]),
        ("prune p from parent { axis mamba_num_heads in {4, 1|", &["12"]),
        ("prune p from parent { repair |", &["norms", "outputs"]),
        ("prune p from parent { repair outputs by |", &["least_squares"]),
        ("prune p from parent { repair outputs by least_squares(|", &["damping"]),
        ("group g { keep |", &["mamba", "mlp", "attention"]),
        ("group g { mamba_num_heads |", &["within", "shared", "per", "multiple_of"]),
        ("group g { mamba_head_dim shared |", &["across"]),
        ("group g { p|", &["protect"]),
        ("search s in |", &["half", "space"]),
        ("search s in space { r|", &["require", "rank"]),
        ("search s in space { require m|", &["memory"]),
        ("search s in space { require memory(|", &["batch", "sequence"]),
        ("search s in space { require params <= b|", &["budget"]),
        ("search s in space { rank by l|", &["latency", "loss"]),
        ("search s in space { rank by loss + 0.2 * l|", &["latency", "loss"]),
        ("search s in space { rank by loss |", &["descending", "on", "after", "for", "keep"]),
        ("search s in space { rank by loss on |", &["text"]),
        ("search s in space { rank by loss on text after |", &["full"]),
        ("search s in space { control random(seed = 1), |", &["random", "reverse", "group_unaware"]),
        ("model m { | }", &["checkpoint", "dt_floor"]),
        ("data d { files = [\"a\"]; se| }", &["sequence", "seed"]),
        ("data d { mix = [{ | }] }", &["files", "weight"]),
        (
            "schedule s {\n    loss = |\n}",
            &["forward_kl", "reverse_kl", "js", "cross_entropy", "mse", "cosine"],
        ),
        ("schedule s { loss = 0.9 * forward_kl(|", &["temperature", "top_k"]),
        ("schedule s { rate = cosine(|", &["peak", "floor", "warmup"]),
        ("schedule s { rate = cosine(peak = 1, w|", &["warmup"]),
        ("schedule s { optimizer = |", &["adamw"]),
        ("schedule s { p|", &["phase"]),
        ("schedule s { phase \"a\" { tok|", &["tokens"]),
        ("distill d from half { teacher = | }", &["parent", "other", "half", "space", "best"]),
        ("distill d from half { schedule = | }", &["full"]),
        ("train d from half { t|", &[]),
        ("evaluate |", &["parent", "other", "half", "space", "best"]),
        ("evaluate half |", &["against", "on"]),
        ("evaluate half against |", &["parent", "other", "half", "space", "best"]),
        ("evaluate half against parent on |", &["text"]),
        ("evaluate half on text { loss, t|", &["top1"]),
        ("sensitivity f of |", &["half", "space"]),
        ("sensitivity f of space on text { loss, thr|", &["throughput"]),
        ("deploy half for hf, |", &["hf", "vllm", "llama_cpp", "tensorrt_llm", "mamba_ssm"]),
        ("deploy half for vllm(|", &["tensor_parallel"]),
        ("export |", &["parent", "other", "half", "space", "best"]),
        ("export half to \"out\" { dtype = | }", &["f32", "bf16", "f16"]),
        ("metric m(x) = l2(mean(ab|", &["abs"]),
        ("metric m(x) = l2(x, over = |", &["sequence", "batch", "tokens"]),
        ("param p = parent.hid|", &["parent.hidden_size"]),
        ("# a comment |", &[]),
        ("model m { checkpoint = \"par|\" }", &[]),
    ];
    for (text, wanted) in cases {
        assert_eq!(offered(text), *wanted, "{text}");
    }
}

/// A file in which one bracket is open: what is written below is still offered what belongs there.
#[test]
fn an_open_bracket_above_spoils_only_its_own_declaration() {
    assert_eq!(offered("prune p from parent { axis ffn_hidden_size in {\nsearch s in sp|"), ["space"]);
    assert_eq!(offered("prune p from parent { axis ffn_hidden_size in (1\nexport ha|"), ["half"]);
}

#[test]
fn settings_are_put_in_with_their_mark_and_calls_with_their_bracket() {
    let (draft, cursor) = draft("schedule s { ra|");
    let inserted = |draft: &Draft, cursor| draft.complete(cursor).0.into_iter().find_map(|word| word.insert);
    assert_eq!(inserted(&draft, cursor).as_deref(), Some("loss = "));
    let (draft, cursor) = self::draft("schedule s { loss = for|");
    assert_eq!(inserted(&draft, cursor).as_deref(), Some("forward_kl("));
}

fn hovered(lines: &str) -> String {
    let (draft, cursor) = draft(lines);
    draft.hover(cursor).map(|hover| hover.text).unwrap_or_default()
}

#[test]
fn data_show_their_tokens_however_many_they_are() {
    let shown = hovered("data lar|ge { files = [\"a\"]; sequence = 4096; samples = 9000000B }");
    assert!(shown.ends_with("9000000000000000 windows of 4096 tokens, 36864000T tokens"), "{shown}");
}

#[test]
fn a_model_shows_its_sizes_beside_those_of_its_parent() {
    let text = hovered("export ha|lf to \"out\"");
    for part in [
        "prune half from parent",
        "| nemotron_h | `parent` | `half` |",
        "| ffn_hidden_size | 480 | **240** |",
        "| hidden_size | 160 | 160 |",
        "| parameters |",
        "| memory, a sequence of 64 |",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let space = hovered("sensitivity f of spa|ce on text { loss }");
    assert!(space.contains("**2** points") && space.contains("**240 ..= 360**"), "{space}");
    let best = hovered("export be|st to \"out\"");
    assert!(best.contains("The best of **2** points that meet the requirements, of 2"), "{best}");
    let unknown = hovered("model lost { checkpoint = \"models/nowhere\" }\nexport lo|st to \"out\"");
    assert!(unknown.contains("Its sizes are not known"), "{unknown}");
}

#[test]
fn words_of_the_language_numbers_and_registries_say_what_they_mean() {
    for (text, part) in [
        ("pr|une p from half { }", "Where to cut"),
        ("prune p from parent { axis ffn_hid|den_size = 8 by activation }", "neurons"),
        ("prune p from parent { axis ffn_hidden_size = 8 b|y activation }", "What ranks"),
        ("prune p from parent { axis ffn_hidden_size = 8 by activation at ffn.a|ct }", "input of down_proj"),
        ("prune p from parent { axis num_layers = 8 by k|ld }", "forward KL"),
        ("schedule s { loss = forw|ard_kl(temperature = 2) }", "top_k"),
        ("schedule s { loss = forward_kl(temper|ature = 2) }", "temperature"),
        ("schedule s { bat|ch = 8 }", "sequences of one update"),
        ("deploy half for vl|lm(tensor_parallel = 2)", "tensor_parallel"),
        ("evaluate half on text { perp|lexity }", "power of the loss"),
        ("param p = bud|get", "4500000000"),
        ("param p = 4.|5B", "4,500,000,000"),
        ("param p = 40|GiB", "42,949,672,960 bytes"),
        ("param p = parent.hidden|_size", "**160**"),
        ("metric m(x) = vari|ance(x, over = tokens)", "mean of (v - mean)^2"),
        ("train t from half { data = te|xt; schedule = full }", "8 windows of 64 tokens"),
    ] {
        let shown = hovered(text);
        assert!(shown.contains(part), "{text}: {part:?} is not in {shown:?}");
    }
    assert_eq!(hovered("param p = 1|2"), "");
    assert_eq!(hovered("# prune| p"), "");
}

#[test]
fn names_are_found_wherever_they_stand_and_words_of_registries_are_none() {
    let (draft, cursor) =
        draft("evaluate half on te|xt { loss }\ndata loss { files = [\"b\"]; sequence = 64 }");
    let places = uses(&draft.checked.ast, cursor);
    assert_eq!(places.len(), 5, "{places:?}");
    assert!(places[0].declares && places.iter().skip(1).all(|used| !used.declares));
    assert!(places.iter().all(|used| &draft.text()[used.span.start..used.span.end] == "text"));
    assert_eq!(draft.definition(cursor), Some(places[0].span));
    let loss = draft.text().find("data loss").expect("it is there") + 5;
    assert_eq!(uses(&draft.checked.ast, loss).len(), 1, "`rank by loss` is the quantity");
    assert_eq!(uses(&draft.checked.ast, 0), []);
}

#[test]
fn a_name_is_changed_everywhere_or_not_at_all() {
    let (draft, cursor) = draft("evaluate ha|lf on text { loss }\nmetric m(x) = x * budget");
    let ast = &draft.checked.ast;
    let mut text = draft.text().to_string();
    let mut places = rename(ast, cursor, "smaller").expect("a good name");
    places.sort_by_key(|span| std::cmp::Reverse(span.start));
    for span in places {
        text.replace_range(span.start..span.end, "smaller");
    }
    assert!(text.contains("prune smaller from parent") && text.contains("evaluate smaller on text"));
    assert_eq!(checked("recipe.mrecipe", &text).found.len(), draft.checked.found.len());
    let refused = |at: usize, to: &str| rename(ast, at, to).expect_err(to).0;
    assert!(refused(cursor, "by").contains("word of the language"));
    assert!(refused(cursor, "a b").contains("ASCII letters"));
    assert!(refused(cursor, "2x").contains("ASCII letters"));
    assert!(refused(cursor, "").contains("ASCII letters"));
    assert!(refused(cursor, "text").contains("a data source"));
    assert!(refused(0, "x").contains("no name"));
    let metric = draft.text().find("activation").expect("it is there");
    assert!(refused(metric, "kld").contains("built-in"));
    let budget = draft.text().find("budget").expect("it is there");
    assert!(refused(budget, "x").contains("parameter"));
    assert_eq!(rename(ast, budget, "budget").map(|places| places.len()), Ok(2));
}

const USES: &str = "mrecipe 1
use \"common.mrecipe\" { peak = 0.01 }
model parent { checkpoint = \"models/tiny-hybrid\"; dt_floor = 0 }
data text { files = [\"a.txt\"]; sequence = 64; samples = 8 }
prune half from parent { calibrate on text; axis ffn_hidden_size = 320 by activation }
distill student from half { teacher = parent; data = text; schedule = recover }
";

#[test]
fn names_of_used_files_are_known_where_they_are_used() {
    let draft = Draft::new("recipe.mrecipe", USES, &Corpus);
    let sources = &draft.checked.sources;
    let at = |word: &str| USES.rfind(word).expect(word) + 1;
    let place = |offset| {
        let (file, span) = sources.locate(draft.definition(offset).expect("a definition"));
        (file.name.as_str(), &file.text[span.start..span.end])
    };
    assert_eq!(place(at("recover")), ("common.mrecipe", "recover"));
    assert_eq!(place(at("activation")), ("common.mrecipe", "activation"));
    assert_eq!(place(at("peak")), ("common.mrecipe", "peak"));
    assert_eq!(place(at("common")), ("common.mrecipe", ""));
    let peak: Vec<&str> = uses(&draft.checked.ast, at("peak"))
        .iter()
        .map(|used| sources.locate(used.span).0.name.as_str())
        .collect();
    assert_eq!(peak, ["common.mrecipe", "common.mrecipe", "recipe.mrecipe"]);
    let shown = draft.hover(at("peak")).expect("a card").text;
    assert!(shown.contains("**0.01**, by a `use` of `recipe.mrecipe`, instead of 0.002"), "{shown}");
    assert!(draft.hover(at("recover")).expect("a card").text.contains("schedule recover"));
    let offered: Vec<String> =
        draft.complete(at("peak = 0.01") - 1).0.into_iter().map(|word| word.label).collect();
    assert_eq!(offered, ["peak"]);
    assert_eq!(symbols(&draft).len(), 5);
}

/// The world of the corpus, with another text of the file that is used.
struct Edited(String);

impl Environment for Edited {
    fn config(&self, checkpoint: &str) -> Result<Option<String>, String> {
        Corpus.config(checkpoint)
    }

    fn module(&self, _path: &str) -> Result<Option<String>, String> {
        Ok(Some(self.0.clone()))
    }
}

#[test]
fn a_name_of_a_used_file_is_renamed_in_every_file_and_means_the_same() {
    let draft = Draft::new("recipe.mrecipe", USES, &Corpus);
    let peak = USES.find("peak").expect("it is set");
    let mut spans = rename(&draft.checked.ast, peak, "highest").expect("a new name");
    spans.sort_by_key(|span| std::cmp::Reverse(span.start));
    let mut texts: Vec<String> = draft.checked.sources.iter().map(|file| file.text.clone()).collect();
    for span in spans {
        let (file, local) = draft.checked.sources.locate(span);
        let index = draft.checked.sources.iter().position(|f| f.base == file.base).expect("a file");
        texts[index].replace_range(local.start..local.end, "highest");
    }
    let renamed = Draft::new("recipe.mrecipe", &texts[0], &Edited(texts[1].clone()));
    // A place that was left behind would be a name that nothing declares.
    let codes = |draft: &Draft| draft.checked.found.iter().map(|found| found.code).collect::<Vec<_>>();
    assert_eq!(codes(&renamed), codes(&draft));
    assert!(texts.iter().all(|text| text.contains("highest")), "{texts:?}");

    let broken = Draft::new("recipe.mrecipe", &format!("{USES}param x =\n"), &Corpus);
    assert!(rename(&broken.checked.ast, peak, "highest").is_err(), "names in what is not read would stay");
}

#[test]
fn the_outline_lists_every_declaration() {
    let (draft, _) = draft("schedule s { loss = mse(); phase \"a\" { batch = 1 } }\nexport half to \"out\"|");
    let all = symbols(&draft);
    let shown: Vec<(&str, &str)> = all.iter().map(|s| (s.name.as_str(), s.detail.as_str())).collect();
    assert_eq!(shown[0], ("budget", "4500000000"));
    assert_eq!(shown.last(), Some(&("export half", "out")));
    assert_eq!(all.len(), draft.checked.ast.declarations.len(), "no file is used");
    let phases = all.iter().find(|s| s.name == "s").map(|s| s.inner.len());
    assert_eq!(phases, Some(1));
    assert!(all.iter().all(|s| s.whole.start <= s.name_span.start && s.name_span.end <= s.whole.end));
}

/// Whatever is written, and wherever the cursor stands.
#[test]
fn nothing_that_is_asked_anywhere_panics() {
    let mut asked = 0;
    for folder in ["good", "bad"] {
        for entry in fs::read_dir(corpus().join(folder)).expect("the corpus") {
            let path = entry.expect("an entry").path();
            let name = path.display().to_string();
            if name.contains("nemotron-h-4b") || name.contains("too-many-points") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a recipe");
            for text in
                [text.clone(), format!("é{}", text.replace('\n', "\r\n")), text[..text.len() / 2].to_string()]
            {
                let draft = Draft::new("recipe.mrecipe", &text, &Corpus);
                for offset in 0..=draft.text().len() + 1 {
                    let (words, span) = draft.complete(offset.min(draft.text().len()));
                    assert!(span.start <= span.end && words.iter().all(|w| !w.label.is_empty()));
                    let hover = draft.hover(offset.min(draft.text().len()));
                    assert!(hover.is_none_or(|h| h.span.end <= draft.text().len() && !h.text.is_empty()));
                    uses(&draft.checked.ast, offset);
                    asked += 1;
                }
                symbols(&draft);
            }
        }
    }
    assert!(asked > 100_000, "{asked}");
}
