//! `schedule NAME { .. }`: losses, optimizer, learning rate, and how many updates they make.

use super::Checker;
use super::arguments::{Accepts, Argument, Arguments, Default, call_of};
use super::fields::Fields;
use super::named::{self, Named, call, word};
use super::names::{legible, suggestion};
use super::value::{Number, count};
use crate::hir::{self, LossTerm};
use crate::losses;
use minic_grammar::ast::{self, Expr, ExprKind, Unit};
use minic_grammar::{Diagnostic, Help, Span};

pub(crate) const KEYS: &[Named] = &[
    word(
        "loss",
        "what is made small: a loss, or a weighted sum, `0.9 * forward_kl() + 0.1 * cross_entropy()`",
    ),
    word("optimizer", "`adamw(..)`"),
    word("rate", "the learning rate over the updates, `cosine(peak = 1.6e-4, warmup = 60 steps)`"),
    word("batch", "sequences of one update"),
    word("tokens", "batch times sequence over all updates; a last partial update is not made"),
    word("sequence", "tokens of one sequence; the data's by default"),
    word("data", "what this phase is trained on, instead of the data of the training"),
];

/// Fewer updates than this are hardly meant.
const FEW: u64 = 20;

const fn argument(name: &'static str, accepts: Accepts, default: Default, doc: &'static str) -> Argument {
    Argument { name, accepts, default, doc }
}

const ADAMW: &[Argument] = &[
    argument("beta1", Accepts::Fraction, Default::Is(0.9), "decay of the mean of the gradients"),
    argument("beta2", Accepts::Fraction, Default::Is(0.95), "decay of the mean of their squares"),
    argument("eps", Accepts::Positive, Default::Is(1e-8), "added to the root of the squares"),
    argument("weight_decay", Accepts::NotNegative, Default::Is(0.0), "decoupled, times the learning rate"),
    argument("clip", Accepts::Positive, Default::Absent, "largest norm of all gradients together"),
];

const PEAK: Argument = argument("peak", Accepts::Positive, Default::Required, "the largest learning rate");
const FLOOR: Argument = argument("floor", Accepts::NotNegative, Default::Is(0.0), "the last learning rate");
const WARMUP: Argument = argument("warmup", Accepts::Updates, Default::Is(0.0), "updates of linear growth");
const DECAY: Argument = argument("decay", Accepts::Updates, Default::Required, "updates of the final decay");

/// Shapes of the learning rate over the updates.
pub(crate) const RATES: &[Named] = &[
    call(
        "cosine",
        &[PEAK, FLOOR, WARMUP],
        "half a cosine from `peak` to `floor` at the last update of the phase",
    ),
    call("linear", &[PEAK, FLOOR, WARMUP], "a straight line from `peak` to `floor`"),
    call("constant", &[PEAK, WARMUP], "`peak` throughout"),
    call(
        "wsd",
        &[PEAK, FLOOR, WARMUP, DECAY],
        "`peak`, and a straight line to `floor` over the last `decay` updates",
    ),
];

pub(crate) const OPTIMIZERS: &[Named] =
    &[call("adamw", ADAMW, "Adam with decoupled weight decay, which falls on matrices alone")];

/// What is known of one phase of a declared schedule, with the places of what it says.
#[derive(Clone, Debug)]
pub(super) struct KnownPhase<'a> {
    pub batch: Option<(usize, Span)>,
    pub tokens: Option<(u64, Span)>,
    pub sequence: Option<usize>,
    pub warmup: Option<(u64, Span)>,
    /// With the place at which the phase names it.
    pub data: Option<(&'a str, Span)>,
    pub loss: Option<(Vec<LossTerm>, Span)>,
}

#[derive(Clone, Debug)]
pub(super) struct Known<'a> {
    pub phases: Vec<KnownPhase<'a>>,
    pub span: Span,
}

impl KnownPhase<'_> {
    /// Tokens of one optimizer update on windows of `sequence`, or of the phase's own length.
    pub fn update(&self, sequence: Option<usize>) -> Option<u64> {
        let (batch, _) = self.batch?;
        (batch as u64).checked_mul(self.sequence.or(sequence)? as u64)
    }

    /// Tokens of all its updates; a last partial update is not made. As many as are asked for, where the
    /// size of an update is not known.
    pub fn trained(&self, sequence: Option<usize>) -> u64 {
        let wanted = self.tokens.map_or(0, |(tokens, _)| tokens);
        self.update(sequence).map_or(wanted, |update| wanted - wanted % update.max(1))
    }
}

impl<'a> Known<'a> {
    /// Of all phases; `None` where one of them could not be understood.
    pub fn tokens(&self) -> Option<u64> {
        let tokens = self.phases.iter().map(|phase| phase.tokens.map(|(tokens, _)| tokens));
        tokens.reduce(|sum, tokens| sum?.checked_add(tokens?)).flatten()
    }

    /// Its first part, of so many tokens.
    pub fn until(&self, tokens: u64) -> Known<'a> {
        let mut left = tokens;
        let mut part = self.clone();
        for (tokens, _) in part.phases.iter_mut().filter_map(|phase| phase.tokens.as_mut()) {
            *tokens = left.min(*tokens);
            left -= *tokens;
        }
        part
    }

    /// Some loss compares with a teacher.
    pub fn reads_teacher(&self) -> bool {
        let terms = self.phases.iter().flat_map(|phase| &phase.loss).flat_map(|(terms, _)| terms);
        terms.into_iter().any(reads_teacher)
    }
}

/// So many tokens, rounded up to what is shown.
fn at_least(tokens: u64) -> Number {
    Number::new(tokens as f64, Unit::Count).outward(true)
}

/// `adam`, or what stands where a name is wanted.
fn shown_as(expr: &Expr) -> String {
    call_of(expr).map_or(format!("`{expr}`"), |call| format!("`{}`", call.name))
}

fn reads_teacher(term: &LossTerm) -> bool {
    losses::find(term.loss).is_some_and(|loss| loss.needs_teacher)
}

impl<'a> Checker<'a> {
    pub(super) fn schedule(&mut self, schedule: &'a ast::Schedule) {
        let name = &schedule.name;
        let outer = |checker: &mut Self, owner: String, place| {
            checker.fields(owner, place, &schedule.settings, schedule.span, KEYS)
        };
        let mut phases: Vec<(Option<hir::Phase>, KnownPhase<'a>)> = Vec::new();
        if schedule.phases.is_empty() {
            let fields = outer(self, format!("schedule `{}`", name.node), name.span);
            phases.push(self.phase(&name.node, schedule.span, &fields));
        }
        for (i, phase) in schedule.phases.iter().enumerate() {
            if let Some(first) = schedule.phases[..i].iter().find(|p| p.name == phase.name) {
                let other = format!("\"{}2\"", legible(&phase.name.node));
                self.report(
                    Diagnostic::new(
                        "E0201",
                        phase.name.span,
                        format!("two phases are called \"{}\"", phase.name.node),
                    )
                    .label("again here")
                    .also(first.name.span, "first here")
                    .help(Help::instead(format!("give the second another name: `phase {other}`"), [other])),
                );
            }
            let owner = format!("phase \"{}\" of schedule `{}`", phase.name.node, name.node);
            let shared = outer(self, format!("schedule `{}`", name.node), name.span);
            let fields = self.fields(owner, phase.name.span, &phase.settings, phase.span, KEYS).over(&shared);
            phases.push(self.phase(&phase.name.node, phase.span, &fields));
        }
        let (items, known): (Vec<_>, Vec<_>) = phases.into_iter().unzip();
        for phase in &known {
            if phase.sequence.is_some() {
                self.enough_updates(phase, None);
            }
        }
        if !self.is_first(name) {
            return;
        }
        self.schedules.insert(&name.node, Known { phases: known, span: name.span });
        if let Some(phases) = items.into_iter().collect::<Option<Vec<hir::Phase>>>() {
            self.out.schedules.insert(name.node.clone(), hir::Schedule { phases, span: schedule.span });
        }
    }

    fn phase(&mut self, name: &str, span: Span, fields: &Fields<'a>) -> (Option<hir::Phase>, KnownPhase<'a>) {
        let at = |value: Option<u64>, expr: Option<&Expr>| value.zip(expr.map(|e| e.span));
        let loss_expr = self.required(fields, "loss", "forward_kl()");
        let loss = loss_expr.and_then(|e| self.loss(e));
        let optimizer = self.required(fields, "optimizer", "adamw()").and_then(|e| self.optimizer(e));
        let rate_expr = self.required(fields, "rate", "cosine(peak = 1e-4, warmup = 60 steps)");
        let rate = rate_expr.and_then(|e| self.rate(e));
        let batch_expr = self.required(fields, "batch", "768");
        let batch = batch_expr.and_then(|e| self.size(e, "a batch", 1));
        let tokens_expr = self.required(fields, "tokens", "1B");
        let tokens = tokens_expr.and_then(|e| self.at_least(e, "the number of tokens", 1));
        let sequence = fields.get("sequence").map(|e| self.size(e, "a sequence", 2));
        let data = fields.get("data").map(|e| {
            let ident = self.named(e, "data")?;
            self.resolve_text(ident).map(|name| (name, ident.span))
        });
        let known = KnownPhase {
            batch: batch.zip(batch_expr.map(|e| e.span)),
            tokens: at(tokens, tokens_expr),
            sequence: sequence.flatten(),
            warmup: at(rate.as_ref().map(|r| r.warmup + r.decay.unwrap_or(0)), rate_expr),
            data: data.flatten(),
            loss: loss.clone().zip(loss_expr.map(|e| e.span)),
        };
        let sound = sequence != Some(None) && data != Some(None);
        let parts = (loss, optimizer, rate, batch, tokens);
        let (Some(loss), Some(optimizer), Some(rate), Some(batch), Some(tokens)) = parts else {
            return (None, known);
        };
        let (name, sequence, data) =
            (name.to_string(), known.sequence, known.data.map(|(n, _)| n.to_string()));
        let item = hir::Phase { name, loss, optimizer, rate, batch, tokens, sequence, data, span };
        (sound.then_some(item), known)
    }

    fn optimizer(&mut self, expr: &Expr) -> Option<hir::Optimizer> {
        let call = call_of(expr).filter(|c| c.name == "adamw");
        let Some(call) = call else {
            let adamw = "adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1, clip = 1.0)";
            self.report(
                Diagnostic::new("E0702", expr.span, format!("there is no optimizer {}", shown_as(expr)))
                    .label("unknown optimizer")
                    .help(Help::instead(format!("write `{adamw}`"), [adamw.to_string()])),
            );
            return None;
        };
        let read = self.arguments(&call, ADAMW)?;
        Some(hir::Optimizer {
            beta1: read.number("beta1"),
            beta2: read.number("beta2"),
            eps: read.number("eps"),
            weight_decay: read.number("weight_decay"),
            clip: read.get("clip"),
        })
    }

    fn rate(&mut self, expr: &Expr) -> Option<hir::Rate> {
        let call = call_of(expr);
        let known = call.as_ref().and_then(|c| named::find(RATES, &c.name));
        let (Some(call), Some(&Named { name: shape, arguments: signature, .. })) = (&call, known) else {
            let names = named::names(RATES);
            let name = call.as_ref().map_or(expr.span, |c| c.name_span);
            let shown = call.map_or(String::new(), |c| c.name);
            self.report(
                Diagnostic::new("E0702", name, format!("there is no rate {}", shown_as(expr)))
                    .label("unknown shape of the learning rate")
                    .help(match &expr.kind {
                        ExprKind::Number(n) => {
                            let constant = format!("constant(peak = {})", n.text);
                            Help::instead(format!("write `{constant}`"), [constant])
                        }
                        _ => suggestion(&shown, "shapes", &names),
                    }),
            );
            return None;
        };
        let read = self.arguments(call, signature)?;
        self.floor_below_peak(&read);
        Some(hir::Rate {
            shape,
            peak: read.number("peak"),
            // A constant rate ends where it stands.
            floor: read.get("floor").unwrap_or(read.number("peak")),
            warmup: read.whole("warmup"),
            decay: read.get("decay").map(|d| d as u64),
        })
    }

    fn floor_below_peak(&mut self, read: &Arguments) {
        let (Some(floor), Some(peak)) = (read.span("floor"), read.span("peak")) else { return };
        if read.number("floor") > read.number("peak") {
            self.report(
                Diagnostic::new("E0304", floor, "the last learning rate is above the largest")
                    .label(format!("this is {}", read.number("floor")))
                    .also(peak, format!("this is {}", read.number("peak")))
                    .help(format!("write `floor = {}` or less", read.number("peak"))),
            );
        }
    }

    /// Whether a phase makes updates, and enough of them, on windows of `sequence` where it names no length.
    pub(super) fn enough_updates(&mut self, phase: &KnownPhase, sequence: Option<usize>) {
        let (Some(update), Some((tokens, place))) = (phase.update(sequence), phase.tokens) else { return };
        let (batch, batch_span) = phase.batch.unwrap_or((1, place));
        let length = update / batch as u64;
        let updates = tokens / update.max(1);
        if updates == 0 {
            self.report(
                Diagnostic::new("E0703", place, "no optimizer update would be made")
                    .label(format!("{} tokens", count(tokens as f64)))
                    .also(batch_span, format!("one update takes {batch} x {length} = {update} tokens"))
                    .help(format!("at least {update} tokens, or a smaller `batch`")),
            );
            return;
        }
        if updates < FEW {
            self.report(
                Diagnostic::new("W0701", place, format!("only {updates} optimizer updates would be made"))
                    .label(format!("{} tokens", count(tokens as f64)))
                    .also(batch_span, format!("one update takes {batch} x {length} = {update} tokens"))
                    .help(format!(
                        "for {FEW} updates: `tokens = {}`, or a smaller `batch`",
                        at_least(FEW * update)
                    )),
            );
        }
        if let Some((warmup, span)) = phase.warmup.filter(|(w, _)| *w >= updates && *w > 0) {
            self.report(
                Diagnostic::new(
                    "W0703",
                    span,
                    "the schedule ends before its learning rate has run its course",
                )
                .label(format!("{warmup} updates of warm-up and decay"))
                .also(place, format!("{updates} updates in all"))
                .help(format!(
                    "a shorter `warmup`, or `tokens = {}` or more",
                    at_least((warmup + 1).saturating_mul(update))
                )),
            );
        }
    }

    /// Losses against whether there is a teacher.
    pub(super) fn teacher_for(&mut self, schedule: &Known, used: Span, teacher: bool) {
        for phase in &schedule.phases {
            let Some((terms, span)) = &phase.loss else { return };
            if !teacher && let Some(term) = terms.iter().find(|t| reads_teacher(t)) {
                self.report(
                    Diagnostic::new(
                        "E0705",
                        used,
                        format!("`{}` compares with a teacher, and `train` has none", term.loss),
                    )
                    .label("trained without a teacher")
                    .also(*span, "the loss of this schedule")
                    .help("use `distill` with a `teacher`, or `cross_entropy()` as the loss"),
                );
                return;
            }
        }
        if teacher && !schedule.reads_teacher() {
            let place =
                schedule.phases.iter().find_map(|p| p.loss.as_ref()).map_or(schedule.span, |(_, s)| *s);
            self.report(
                Diagnostic::new("W0702", used, "no loss of this schedule looks at the teacher")
                    .label("beside a teacher")
                    .also(place, "the loss")
                    .help("use `train`, or add `forward_kl()` to the loss"),
            );
        }
    }
}
