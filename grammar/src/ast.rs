//! The syntax tree: what was written, unresolved, every node with its span.

mod print;

use crate::span::{Span, Spanned};

/// A whole file. Statements that did not parse are absent here and present as diagnostics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recipe {
    /// The number after `mrecipe`; absent when the header is missing.
    pub version: Option<Spanned<u64>>,
    pub declarations: Vec<Declaration>,
    /// What could not be read, declarations and lines of blocks: already reported.
    pub broken: Vec<Broken>,
}

impl Recipe {
    /// The lines that name other files.
    pub fn uses(&self) -> impl Iterator<Item = &Use> {
        self.declarations
            .iter()
            .filter_map(|d| if let Declaration::Use(line) = d { Some(line) } else { None })
    }

    /// Would a statement that could not be read have declared this name?
    pub fn is_unread(&self, name: &str) -> bool {
        self.broken.iter().any(|b| b.name.as_ref().is_some_and(|n| n.node == name))
    }

    /// Is a line of this declaration missing, because it could not be read?
    pub fn has_hole(&self, declaration: Span) -> bool {
        self.broken.iter().any(|b| declaration.start <= b.span.start && b.span.end <= declaration.end)
    }
}

/// A statement that is missing from the tree. Uses of its name, and holes that it leaves in a block, are not
/// faults of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    /// What it would have declared.
    pub name: Option<Ident>,
    pub span: Span,
}

/// The first words of declarations, in the order of [`Declaration`].
pub const DECLARATIONS: &[&str] = &[
    "use",
    "param",
    "model",
    "data",
    "metric",
    "group",
    "prune",
    "search",
    "schedule",
    "distill",
    "train",
    "evaluate",
    "sensitivity",
    "deploy",
    "export",
];

pub type Ident = Spanned<String>;

#[derive(Clone, Debug, PartialEq)]
pub enum Declaration {
    Use(Use),
    Param(Param),
    Model(Settings),
    Data(Settings),
    Metric(Metric),
    Group(Group),
    Prune(Prune),
    Search(Search),
    Schedule(Schedule),
    /// `distill` and `train`.
    Distill(Distill),
    Evaluate(Evaluate),
    Sensitivity(Sensitivity),
    Deploy(Deploy),
    Export(Export),
}

impl Declaration {
    /// From its first word to its end.
    pub fn span(&self) -> Span {
        match self {
            Declaration::Use(d) => d.span,
            Declaration::Param(d) => d.span,
            Declaration::Model(d) | Declaration::Data(d) => d.span,
            Declaration::Metric(d) => d.span,
            Declaration::Group(d) => d.span,
            Declaration::Prune(d) => d.span,
            Declaration::Search(d) => d.span,
            Declaration::Schedule(d) => d.span,
            Declaration::Distill(d) => d.span,
            Declaration::Evaluate(d) => d.span,
            Declaration::Sensitivity(d) => d.span,
            Declaration::Deploy(d) => d.span,
            Declaration::Export(d) => d.span,
        }
    }
}

/// `use "common.mrecipe" { recovery = 500K }`: the declarations of another file, with other values of its params.
#[derive(Clone, Debug, PartialEq)]
pub struct Use {
    pub file: Spanned<String>,
    pub settings: Vec<Setting>,
    pub span: Span,
}

/// `param NAME = VALUE`
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    pub name: Ident,
    pub value: Expr,
    pub span: Span,
}

/// `model NAME { .. }`, `data NAME { .. }`
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub name: Ident,
    pub settings: Vec<Setting>,
    pub span: Span,
}

/// `key = value`
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub key: Ident,
    pub value: Expr,
}

/// `metric NAME(x, w) = EXPR`
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub name: Ident,
    pub parameters: Vec<Ident>,
    pub body: Expr,
    pub span: Span,
}

/// `group NAME { .. }`
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: Ident,
    pub rules: Vec<GroupRule>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GroupRule {
    pub kind: GroupRuleKind,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum GroupRuleKind {
    /// `DIM within OUTER [equal]`
    Within { dim: Ident, outer: Ident, equal: bool },
    /// `DIM shared across OUTER`
    Shared { dim: Ident, across: Ident },
    /// `DIM per OUTER`
    Per { dim: Ident, per: Ident },
    /// `DIM multiple_of N`
    MultipleOf { dim: Ident, factor: Expr },
    /// `protect layers {0, 51}`
    Protect { what: Ident, members: Expr },
    /// `keep attention 4`
    Keep { what: Ident, count: Expr },
    /// `order FIRST before THEN`
    Order { first: Ident, then: Ident },
}

/// `prune NAME from MODEL { .. }`
#[derive(Clone, Debug, PartialEq)]
pub struct Prune {
    pub name: Ident,
    pub from: Ident,
    pub items: Vec<PruneItem>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PruneItem {
    /// `calibrate on DATA`
    Calibrate {
        data: Ident,
        span: Span,
    },
    /// `under GROUP, ..`
    Under {
        groups: Vec<Ident>,
        span: Span,
    },
    Axis(Axis),
    Repair(Repair),
}

impl PruneItem {
    pub fn span(&self) -> Span {
        match self {
            PruneItem::Calibrate { span, .. } | PruneItem::Under { span, .. } => *span,
            PruneItem::Axis(axis) => axis.span,
            PruneItem::Repair(repair) => repair.span,
        }
    }
}

/// `axis NAME = VALUE by METRIC at TAP` or `axis NAME in SET_OR_RANGE ..`
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub name: Ident,
    /// `true` for `= VALUE`, `false` for `in DOMAIN`.
    pub fixed: bool,
    pub domain: Expr,
    /// `by activation`, `by iterative(mse)`, `by pca`: a name or a call. Absent only where it was left out.
    pub by: Option<Expr>,
    /// `at mamba.x`
    pub at: Option<Path>,
    pub span: Span,
}

/// `repair norms [fitted]`, `repair outputs [sequential] by least_squares(damping = 1%) [sequential]`
#[derive(Clone, Debug, PartialEq)]
pub struct Repair {
    pub what: Ident,
    pub modifiers: Vec<Ident>,
    pub by: Option<Expr>,
    pub span: Span,
}

/// `search NAME in SPACE { .. }`
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    pub name: Ident,
    pub space: Ident,
    pub items: Vec<SearchItem>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SearchItem {
    /// `require QUANTITY in A ..= B`, `require QUANTITY <= A`: see [`ExprKind::In`].
    Require {
        condition: Expr,
        span: Span,
    },
    Rank(Rank),
    /// `break ties within 0.002 by throughput(..)`
    BreakTies {
        within: Expr,
        by: Expr,
        span: Span,
    },
    /// `control random(seed = 1), reverse, group_unaware`
    Control {
        controls: Vec<Expr>,
        span: Span,
    },
}

/// `rank by QUANTITY [descending] [on DATA] [after SCHEDULE [for TOKENS]] keep N`, or by a weighted sum of quantities
#[derive(Clone, Debug, PartialEq)]
pub struct Rank {
    pub by: Expr,
    pub descending: bool,
    pub on: Option<Ident>,
    pub after: Option<Ident>,
    pub tokens: Option<Expr>,
    pub keep: Expr,
    pub span: Span,
}

/// `schedule NAME { settings; phase "x" { .. } }`
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub name: Ident,
    pub settings: Vec<Setting>,
    pub phases: Vec<Phase>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    pub name: Spanned<String>,
    pub settings: Vec<Setting>,
    pub span: Span,
}

/// `distill NAME from MODEL { .. }`; `train` when `teacherless`.
#[derive(Clone, Debug, PartialEq)]
pub struct Distill {
    pub teacherless: bool,
    pub name: Ident,
    pub from: Ident,
    pub settings: Vec<Setting>,
    pub span: Span,
}

/// `evaluate MODEL [against MODEL] on DATA { loss, perplexity, .. }`
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluate {
    pub model: Ident,
    pub against: Option<Ident>,
    pub on: Ident,
    pub quantities: Vec<Ident>,
    pub span: Span,
}

/// `sensitivity NAME of SPACE on DATA { loss, throughput(input = 1024, output = 64), .. }`
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity {
    pub name: Ident,
    pub space: Ident,
    pub on: Ident,
    /// Names or calls.
    pub quantities: Vec<Expr>,
    pub span: Span,
}

/// `deploy MODEL for hf, vllm(tensor_parallel = 4)`
#[derive(Clone, Debug, PartialEq)]
pub struct Deploy {
    pub model: Ident,
    pub targets: Vec<Expr>,
    pub span: Span,
}

/// `export MODEL to "DIR" { .. }`
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    pub model: Ident,
    pub to: Spanned<String>,
    pub settings: Vec<Setting>,
    pub span: Span,
}

/// `mamba.x`, `parent.hidden_size`, `activation`: one or more identifiers joined by dots.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    pub segments: Vec<Ident>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
}

/// Equality looks at the meaning, not at the place.
impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    Number(Number),
    String(String),
    Bool(bool),
    Path(Path),
    /// `[a, b]`
    List(Vec<Expr>),
    /// `{48, 56, 64}`
    Set(Vec<Expr>),
    /// `{ files = [..]; weight = 70% }`
    Record(Vec<Setting>),
    /// `64..=128 step 8`, `4.3B ..= 4.5B`
    Range {
        start: Box<Expr>,
        end: Box<Expr>,
        step: Option<Box<Expr>>,
    },
    Unary {
        op: UnaryOp,
        operand: Box<Expr>,
    },
    Binary {
        op: Spanned<BinaryOp>,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// `quantity in a ..= b`, only in `require`.
    In {
        value: Box<Expr>,
        domain: Box<Expr>,
    },
    Call {
        callee: Path,
        arguments: Vec<Argument>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    pub name: Option<Ident>,
    pub value: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    Negate,
    Not,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    And,
    Or,
}

/// A literal with its unit applied exactly: `4.5B` is 4_500_000_000 counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    pub value: f64,
    pub unit: Unit,
    /// As written, `4.5B`.
    pub text: String,
}

/// `value` is in the unit named in each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A bare integer: a count, or a plain number where one is wanted.
    Integer,
    /// A bare number with a fraction or an exponent.
    Float,
    /// `22K`, `4.5B`, `64Ki`: things.
    Count,
    /// `40GiB`: bytes.
    Bytes,
    /// `0.1%`: a fraction of one.
    Percent,
    /// `90s`, `6h`: seconds.
    Duration,
    /// `60 steps`: optimizer updates.
    Updates,
}
