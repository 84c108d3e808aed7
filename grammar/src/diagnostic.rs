//! What is wrong with a recipe, and where.

use crate::span::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// A second place that helps to understand the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

/// An edit of the recipe that mends a finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Fix {
    /// What it does, as a user reads it: "write `hidden_size`".
    pub title: String,
    /// What goes; empty where something is only put in.
    pub span: Span,
    pub replacement: String,
}

/// How a finding is mended: in words, and where these name what should stand at the place at fault, that as well.
pub struct Help {
    text: String,
    instead: Vec<String>,
}

impl Help {
    /// Words that name one or several texts, any of which may stand in the place of what is at fault.
    pub fn instead(text: impl Into<String>, instead: impl IntoIterator<Item = String>) -> Self {
        Help { text: text.into(), instead: instead.into_iter().collect() }
    }

    /// The words alone.
    pub fn text(self) -> String {
        self.text
    }

    /// Did you mean `near`?
    pub fn meant(near: &str) -> Self {
        Help::instead(format!("did you mean `{near}`?"), [near.to_owned()])
    }
}

impl From<String> for Help {
    fn from(text: String) -> Self {
        Help { text, instead: Vec::new() }
    }
}

impl From<&str> for Help {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// One finding: a stable code, one cause, the place at fault, and a line that says how to mend it.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// `E....` for errors, `W....` for warnings; listed in [`crate::codes::CODES`]. Empty for an error in a file that
    /// is no recipe.
    pub code: &'static str,
    pub message: String,
    pub span: Span,
    /// Text drawn under the place at fault; may be empty.
    pub label: String,
    pub secondary: Vec<Label>,
    pub help: Option<String>,
    /// Edits that mend it, the likeliest first; each by itself.
    pub fixes: Vec<Fix>,
}

impl Diagnostic {
    pub fn new(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Diagnostic {
            code,
            message: message.into(),
            span,
            label: String::new(),
            secondary: Vec::new(),
            help: None,
            fixes: Vec::new(),
        }
    }

    pub fn label(mut self, text: impl Into<String>) -> Self {
        self.label = text.into();
        self
    }

    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.secondary.push(Label { span, text: text.into() });
        self
    }

    pub fn help(mut self, help: impl Into<Help>) -> Self {
        let Help { text, instead } = help.into();
        self.help = Some(text);
        instead.into_iter().fold(self, |this, word| {
            let span = this.span;
            this.fix(format!("write `{word}`"), span, word)
        })
    }

    /// An edit that mends it: `replacement` in the place of `span`.
    pub fn fix(mut self, title: impl Into<String>, span: Span, replacement: impl Into<String>) -> Self {
        self.fixes.push(Fix { title: title.into(), span, replacement: replacement.into() });
        self
    }

    pub fn severity(&self) -> Severity {
        if self.code.starts_with('W') { Severity::Warning } else { Severity::Error }
    }
}

/// Puts diagnostics in the order of their places: by line and column, then by code.
pub fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by_key(|d| (d.span.start, d.span.end, d.code));
}
