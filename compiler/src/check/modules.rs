//! `use "common.mrecipe"`: the declarations of other files as if they stood in the recipe.
//!
//! A used file declares what several recipes share, and nothing that is run: params, metrics, groups, schedules. Each
//! file is read once, however often it is used.

use super::names::{declared, references, suggestion};
use super::overrides::constant;
use super::{Checked, Environment};
use minic_grammar::ast::{self, Broken, Declaration, Setting, Use};
use minic_grammar::{Diagnostic, Sources, Span, parse, parse_at};
use std::path::{Component, Path, PathBuf};

/// More files than any recipe needs: folders that link to themselves have no end.
const MOST_FILES: usize = 64;

/// The value of a param, replaced by a `use`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Of the value that the used file gives it.
    pub default: Span,
    /// Of the value that holds.
    pub value: Span,
}

/// A recipe with the declarations of the files that it uses after its own.
pub(super) struct Loaded {
    pub ast: ast::Recipe,
    pub sources: Sources,
    pub replaced: Vec<Replaced>,
    pub found: Vec<Diagnostic>,
    /// A file could not be read: names may be missing.
    pub lacking: bool,
}

pub(super) fn load(file: &str, text: &str, environment: &dyn Environment) -> Loaded {
    let (ast, found) = parse(text);
    let uses = uses_of(&ast, 0);
    let name = Path::new(file).file_name().map(PathBuf::from).unwrap_or_default();
    let mut loader = Loader {
        environment,
        files: vec![File { path: name, shown: PathBuf::from(file) }],
        edges: Vec::new(),
        out: Loaded { ast, sources: Sources::new(file, text), replaced: Vec::new(), found, lacking: false },
    };
    loader.files_of(uses);
    loader.out
}

/// A file by its path from the recipe's folder.
struct File {
    path: PathBuf,
    shown: PathBuf,
}

struct Loader<'a> {
    environment: &'a dyn Environment,
    /// As in [`Sources::iter`].
    files: Vec<File>,
    /// Which file uses which, by their indices, and where.
    edges: Vec<(usize, usize, Span)>,
    out: Loaded,
}

/// The `use` lines of a file, by its index.
fn uses_of(ast: &ast::Recipe, user: usize) -> Vec<(usize, Use)> {
    ast.uses().map(|line| (user, line.clone())).collect()
}

impl Loader<'_> {
    /// Breadth first; values are set from the end, so that the `use` nearest to the recipe holds.
    fn files_of(&mut self, mut uses: Vec<(usize, Use)>) {
        let mut set: Vec<(usize, Use)> = Vec::new();
        let mut next = 0;
        while let Some((user, line)) = uses.get(next).cloned() {
            next += 1;
            let path = resolved(&self.files[user].path, &line.file.node);
            let known = self.files.iter().position(|f| f.path == path);
            match known {
                Some(used) if self.reaches(used, user) => {
                    self.circle(&line);
                    continue;
                }
                Some(used) => {
                    let before = self.edges.iter().find(|(by, of, _)| (*by, *of) == (user, used));
                    if let Some((_, _, first)) = before.copied() {
                        self.twice(&line, first);
                    }
                    set.push((used, line.clone()));
                    self.edges.push((user, used, line.span));
                }
                None => {
                    let Some(more) = self.read(path, &line) else { continue };
                    let used = self.files.len() - 1;
                    self.edges.push((user, used, line.span));
                    set.push((used, line));
                    uses.extend(more);
                }
            }
        }
        for (used, line) in set.iter().rev() {
            for (number, setting) in line.settings.iter().enumerate() {
                match line.settings[..number].iter().find(|s| s.key.node == setting.key.node) {
                    Some(first) => self.set_twice(first, setting),
                    None => self.set(*used, line, setting),
                }
            }
        }
    }

    /// Is `to` the file `from`, or one that it uses, by whatever way?
    fn reaches(&self, from: usize, to: usize) -> bool {
        let mut seen = vec![from];
        let mut next = 0;
        while let Some(file) = seen.get(next).copied() {
            next += 1;
            let used = self.edges.iter().filter(|(by, ..)| *by == file).map(|(_, used, _)| *used);
            let fresh: Vec<usize> = used.filter(|used| !seen.contains(used)).collect();
            seen.extend(fresh);
        }
        seen.contains(&to)
    }

    /// Takes in a file; gives the files that it uses.
    fn read(&mut self, path: PathBuf, line: &Use) -> Option<Vec<(usize, Use)>> {
        let folder = self.files[0].shown.parent().map(Path::to_path_buf).unwrap_or_default();
        let shown = folder.join(&path);
        let text = if self.files.len() == MOST_FILES {
            Err((
                format!("the recipe uses more than {MOST_FILES} files"),
                "put what they declare into fewer".into(),
            ))
        } else {
            match self.environment.module(&path.to_string_lossy()) {
                Ok(Some(text)) => Ok(text),
                Ok(None) => Err((
                    format!("there is no file {}", shown.display()),
                    format!(
                        "put it there, or mend `{}`: the path is relative to the folder of {}",
                        line.file.node,
                        self.user(line)
                    ),
                )),
                Err(why) => Err((why, format!("mend {}", shown.display()))),
            }
        };
        let text = match text {
            Ok(text) => text,
            Err((why, help)) => {
                self.out.lacking = true;
                let fault = Diagnostic::new("E0210", line.file.span, why).label("used here").help(help);
                self.out.found.push(fault);
                return None;
            }
        };
        let base = self.out.sources.add(shown.display().to_string(), &text).base;
        self.files.push(File { path, shown });
        let (ast, found) = parse_at(&text, base);
        self.out.found.extend(found);
        let uses = uses_of(&ast, self.files.len() - 1);
        self.out.ast.broken.extend(ast.broken);
        for declaration in ast.declarations {
            self.declaration(declaration, line);
        }
        Some(uses)
    }

    /// The file that a line stands in, as it is shown.
    fn user(&self, line: &Use) -> &str {
        &self.out.sources.at(line.span.start).name
    }

    fn declaration(&mut self, declaration: Declaration, line: &Use) {
        if is_shareable(&declaration) {
            self.out.ast.declarations.push(declaration);
            return;
        }
        let span = declaration.span();
        let word: String =
            self.out.sources.text(span).chars().take_while(|c| c.is_ascii_alphabetic()).collect();
        let fault = Diagnostic::new(
            "E0211",
            Span::new(span.start, span.start + word.len()),
            format!("a used file declares no `{word}`"),
        )
        .label("stands in a used file")
        .also(line.span, "used here")
        .help("move it into the recipe: used files declare `param`, `metric`, `group` and `schedule`");
        self.out.found.push(fault);
        let name = declared(&declaration).map(|(_, name)| name.clone());
        self.out.ast.broken.push(Broken { name, span });
    }

    fn circle(&mut self, line: &Use) {
        let message = format!("`{}` uses itself, by way of this line", line.file.node);
        self.out.found.push(removable(Diagnostic::new("E0212", line.file.span, message), line));
    }

    fn twice(&mut self, line: &Use, first: Span) {
        let fault = Diagnostic::new("W0205", line.file.span, format!("`{}` is used already", line.file.node))
            .also(first, "used here first");
        self.out.found.push(removable(fault, line));
    }

    fn set_twice(&mut self, first: &Setting, again: &Setting) {
        let fault = Diagnostic::new("E0207", again.key.span, format!("`{}` is set twice", again.key.node))
            .label("set again here")
            .also(first.key.span, "first set here")
            .help(format!("keep one `{}`", again.key.node))
            .fix("remove this one", again.key.span.to(again.value.span), "");
        self.out.found.push(fault);
    }

    /// Another value for a param of a used file.
    fn set(&mut self, used: usize, line: &Use, setting: &Setting) {
        let sources = &self.out.sources;
        let file = sources.iter().nth(used).unwrap_or(sources.own());
        let (base, end) = (file.base, file.end());
        let params = self.out.ast.declarations.iter_mut().filter_map(|d| match d {
            Declaration::Param(p) if base <= p.span.start && p.span.start < end => Some(p),
            _ => None,
        });
        let mut params: Vec<&mut ast::Param> = params.collect();
        let Some(param) = params.iter_mut().find(|p| p.name.node == setting.key.node) else {
            let names: Vec<&str> = params.iter().map(|p| p.name.node.as_str()).collect();
            let message = format!("`{}` declares no param `{}`", line.file.node, setting.key.node);
            let help = match names.is_empty() {
                true => format!("declare it there: `param {} = ..`", setting.key.node).into(),
                false => suggestion(&setting.key.node, "params", &names),
            };
            self.out.found.push(Diagnostic::new("E0208", setting.key.span, message).help(help));
            return;
        };
        if let (Some(default), Some(value)) = (constant(&param.value), constant(&setting.value))
            && !default.accepts(&value)
        {
            let message =
                format!("`{}`: expected {}, found {}", setting.key.node, default.kind(), value.kind());
            let fault = Diagnostic::new("E0301", setting.value.span, message)
                .also(param.value.span, format!("the default is {}", default.kind()))
                .help("a value has the type of the default that it replaces");
            self.out.found.push(fault);
            return;
        }
        let default = match self.out.replaced.iter().find(|r| r.value == param.value.span) {
            Some(earlier) => earlier.default,
            None => param.value.span,
        };
        self.out.replaced.retain(|r| r.default != default);
        self.out.replaced.push(Replaced { default, value: setting.value.span });
        param.value = setting.value.clone();
    }
}

impl Checked {
    /// The recipe as one file that uses none: what was used stands at its end, with the values that hold.
    pub fn standalone(&self) -> String {
        if self.sources.used().is_empty() {
            return self.sources.own().text.clone();
        }
        let uses = self.ast.uses().map(|line| (line.span, format!("# used: {}", line.file.node)));
        let values = self.replaced.iter().map(|r| (r.default, self.sources.text(r.value).to_string()));
        let mut edits: Vec<(Span, String)> = uses.chain(values).collect();
        edits.sort_by_key(|(span, _)| span.start);
        let files = self.sources.iter().map(|file| {
            let (mut out, mut at) = (String::new(), 0);
            let within = |span: &Span| self.sources.at(span.start).base == file.base;
            for (span, text) in edits.iter().filter(|(span, _)| within(span)) {
                let Span { start, end } = file.local(*span);
                out += file.text.get(at..start).unwrap_or_default();
                out += text;
                at = end;
            }
            out + file.text.get(at..).unwrap_or_default()
        });
        let used = |(number, text): (usize, String)| match number {
            0 => text,
            _ => format!("\n# {}\n\n{}\n", self.sources.used()[number - 1].name, headless(&text)),
        };
        files.enumerate().map(used).collect()
    }

    /// The params that the declaration at a place is made with, its own and those of what it refers to.
    pub fn params_of(&self, declaration: Span) -> Vec<&ast::Param> {
        let all = &self.ast.declarations;
        let mut wanted: Vec<usize> = (0..all.len()).filter(|i| all[*i].span() == declaration).collect();
        let mut next = 0;
        while let Some(at) = wanted.get(next) {
            next += 1;
            for name in references(&all[*at]) {
                let index = all.iter().position(|d| declared(d).is_some_and(|(_, n)| n.node == name.node));
                wanted.extend(index.filter(|index| !wanted.contains(index)));
            }
        }
        wanted.sort_unstable();
        let params = wanted.into_iter().filter_map(|at| match &all[at] {
            Declaration::Param(param) => Some(param),
            _ => None,
        });
        params.collect()
    }
}

/// A file without its header, and without the blank lines around what is left.
fn headless(text: &str) -> String {
    let lines = text
        .trim_start_matches('\u{feff}')
        .lines()
        .filter(|line| line.split_whitespace().next() != Some("mrecipe"));
    lines.collect::<Vec<_>>().join("\n").trim().to_string()
}

/// A fault that is mended by removing a `use`.
fn removable(fault: Diagnostic, line: &Use) -> Diagnostic {
    fault.help(format!("remove `use {:?}`", line.file.node)).fix("remove this line", line.span, "")
}

fn is_shareable(declaration: &Declaration) -> bool {
    use Declaration::{Group, Metric, Param, Schedule, Use};
    matches!(declaration, Use(_) | Param(_) | Metric(_) | Group(_) | Schedule(_))
}

/// Does a recipe declare only what others are to use?
pub(super) fn is_library(recipe: &ast::Recipe) -> bool {
    let params = |d: &Declaration| matches!(d, Declaration::Param(_) | Declaration::Use(_));
    recipe.declarations.iter().all(is_shareable) && !recipe.declarations.iter().all(params)
}

/// `path` as written in the file `user`, from where that one's path begins; `..` is resolved by name.
pub fn resolved(user: &Path, path: &str) -> PathBuf {
    let mut out = PathBuf::new();
    for part in user.parent().unwrap_or(Path::new("")).join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}
