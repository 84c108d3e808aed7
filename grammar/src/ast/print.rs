//! The syntax tree as text: one line a statement, indented, every operation in parentheses, numbers in the
//! unit that [`Unit`] names. It is what snapshots and `--emit ast` hold; spans are left out.

use super::*;
use std::fmt::{Display, Formatter, Result};

impl Display for Recipe {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.version {
            Some(version) => writeln!(f, "mrecipe {}", version.node)?,
            None => writeln!(f, "mrecipe ?")?,
        }
        for declaration in &self.declarations {
            writeln!(f, "{declaration}")?;
        }
        let (named, nameless): (Vec<_>, Vec<_>) = self.broken.iter().partition(|b| b.name.is_some());
        for name in named.iter().filter_map(|b| b.name.as_ref()) {
            writeln!(f, "unread {}", name.node)?;
        }
        if !nameless.is_empty() {
            writeln!(f, "unread statements: {}", nameless.len())?;
        }
        Ok(())
    }
}

impl Display for Declaration {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Declaration::Use(u) => write!(f, "use {:?}{}", u.file.node, Block(&u.settings, 1)),
            Declaration::Param(p) => write!(f, "param {} = {}", p.name.node, p.value),
            Declaration::Model(m) => write!(f, "model {}{}", m.name.node, Block(&m.settings, 1)),
            Declaration::Data(d) => write!(f, "data {}{}", d.name.node, Block(&d.settings, 1)),
            Declaration::Metric(m) => {
                write!(f, "metric {}({}) = {}", m.name.node, Names(&m.parameters), m.body)
            }
            Declaration::Group(g) => write!(f, "group {}{}", g.name.node, Block(&g.rules, 1)),
            Declaration::Prune(p) => {
                write!(f, "prune {} from {}{}", p.name.node, p.from.node, Block(&p.items, 1))
            }
            Declaration::Search(s) => {
                write!(f, "search {} in {}{}", s.name.node, s.space.node, Block(&s.items, 1))
            }
            Declaration::Schedule(s) => {
                write!(f, "schedule {}{}{}", s.name.node, Block(&s.settings, 1), Block(&s.phases, 1))
            }
            Declaration::Distill(d) => {
                let word = if d.teacherless { "train" } else { "distill" };
                write!(f, "{word} {} from {}{}", d.name.node, d.from.node, Block(&d.settings, 1))
            }
            Declaration::Evaluate(e) => {
                write!(f, "evaluate {}", e.model.node)?;
                clause(f, "against", e.against.as_ref().map(|a| &a.node))?;
                write!(f, " on {} {{{}}}", e.on.node, Names(&e.quantities))
            }
            Declaration::Sensitivity(s) => {
                let quantities = Commas(&s.quantities);
                write!(f, "sensitivity {} of {} on {} {{{quantities}}}", s.name.node, s.space.node, s.on.node)
            }
            Declaration::Deploy(d) => write!(f, "deploy {} for {}", d.model.node, Commas(&d.targets)),
            Declaration::Export(e) => {
                write!(f, "export {} to {:?}{}", e.model.node, e.to.node, Block(&e.settings, 1))
            }
        }
    }
}

impl Display for Setting {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} = {}", self.key.node, self.value)
    }
}

impl Display for Phase {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "phase {:?}{}", self.name.node, Block(&self.settings, 2))
    }
}

impl Display for GroupRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.kind {
            GroupRuleKind::Within { dim, outer, equal } => {
                write!(f, "{} within {}{}", dim.node, outer.node, if *equal { " equal" } else { "" })
            }
            GroupRuleKind::Shared { dim, across } => write!(f, "{} shared across {}", dim.node, across.node),
            GroupRuleKind::Per { dim, per } => write!(f, "{} per {}", dim.node, per.node),
            GroupRuleKind::MultipleOf { dim, factor } => write!(f, "{} multiple_of {factor}", dim.node),
            GroupRuleKind::Protect { what, members } => write!(f, "protect {} {members}", what.node),
            GroupRuleKind::Keep { what, count } => write!(f, "keep {} {count}", what.node),
            GroupRuleKind::Order { first, then } => write!(f, "order {} before {}", first.node, then.node),
        }
    }
}

impl Display for PruneItem {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            PruneItem::Calibrate { data, .. } => write!(f, "calibrate on {}", data.node),
            PruneItem::Under { groups, .. } => write!(f, "under {}", Names(groups)),
            PruneItem::Axis(axis) => write!(f, "{axis}"),
            PruneItem::Repair(repair) => write!(f, "{repair}"),
        }
    }
}

impl Display for Axis {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "axis {} {} {}", self.name.node, if self.fixed { "=" } else { "in" }, self.domain)?;
        clause(f, "by", self.by.as_ref())?;
        clause(f, "at", self.at.as_ref())
    }
}

impl Display for Repair {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "repair {}", self.what.node)?;
        for modifier in &self.modifiers {
            write!(f, " {}", modifier.node)?;
        }
        clause(f, "by", self.by.as_ref())
    }
}

impl Display for SearchItem {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            SearchItem::Require { condition, .. } => write!(f, "require {condition}"),
            SearchItem::Rank(rank) => write!(f, "{rank}"),
            SearchItem::BreakTies { within, by, .. } => write!(f, "break ties within {within} by {by}"),
            SearchItem::Control { controls, .. } => write!(f, "control {}", Commas(controls)),
        }
    }
}

impl Display for Rank {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "rank by {}{}", self.by, if self.descending { " descending" } else { "" })?;
        clause(f, "on", self.on.as_ref().map(|o| &o.node))?;
        clause(f, "after", self.after.as_ref().map(|a| &a.node))?;
        clause(f, "for", self.tokens.as_ref())?;
        write!(f, " keep {}", self.keep)
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let segments: Vec<&str> = self.segments.iter().map(|s| s.node.as_str()).collect();
        f.write_str(&segments.join("."))
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.kind {
            ExprKind::Number(number) => write!(f, "{number}"),
            ExprKind::String(text) => write!(f, "{text:?}"),
            ExprKind::Bool(value) => write!(f, "{value}"),
            ExprKind::Path(path) => write!(f, "{path}"),
            ExprKind::List(items) => write!(f, "[{}]", Commas(items)),
            ExprKind::Set(items) => write!(f, "{{{}}}", Commas(items)),
            ExprKind::Record(settings) => {
                let settings: Vec<String> = settings.iter().map(Setting::to_string).collect();
                write!(f, "{{ {} }}", settings.join("; "))
            }
            ExprKind::Range { start, end, step } => {
                write!(f, "({start} ..= {end}")?;
                clause(f, "step", step.as_ref())?;
                write!(f, ")")
            }
            ExprKind::Unary { op: UnaryOp::Negate, operand } => write!(f, "(-{operand})"),
            ExprKind::Unary { op: UnaryOp::Not, operand } => write!(f, "(not {operand})"),
            ExprKind::Binary { op, left, right } => write!(f, "({left} {} {right})", op.node),
            ExprKind::In { value, domain } => write!(f, "({value} in {domain})"),
            ExprKind::Call { callee, arguments } => write!(f, "{callee}({})", Commas(arguments)),
        }
    }
}

impl Display for Argument {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.name {
            Some(name) => write!(f, "{} = {}", name.node, self.value),
            None => write!(f, "{}", self.value),
        }
    }
}

impl Display for BinaryOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            BinaryOp::Add => "+",
            BinaryOp::Subtract => "-",
            BinaryOp::Multiply => "*",
            BinaryOp::Divide => "/",
            BinaryOp::Equal => "==",
            BinaryOp::NotEqual => "!=",
            BinaryOp::Less => "<",
            BinaryOp::LessEqual => "<=",
            BinaryOp::Greater => ">",
            BinaryOp::GreaterEqual => ">=",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
        })
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let unit = match self.unit {
            Unit::Integer => return write!(f, "{}", self.value),
            // Always with a point or an exponent.
            Unit::Float => return write!(f, "{:?}", self.value),
            Unit::Count => "count",
            Unit::Bytes => "bytes",
            Unit::Percent => "of one",
            Unit::Duration => "seconds",
            Unit::Updates => "updates",
        };
        write!(f, "{} {unit}", self.value)
    }
}

/// ` word value`, where there is a value.
fn clause(f: &mut Formatter<'_>, word: &str, value: Option<impl Display>) -> Result {
    match value {
        Some(value) => write!(f, " {word} {value}"),
        None => Ok(()),
    }
}

/// Lines of a block, each on a line of its own, indented so many steps.
struct Block<'a, T>(&'a [T], usize);

impl<T: Display> Display for Block<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let indent = "  ".repeat(self.1);
        self.0.iter().try_for_each(|line| write!(f, "\n{indent}{line}"))
    }
}

struct Commas<'a, T>(&'a [T]);

impl<T: Display> Display for Commas<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let items: Vec<String> = self.0.iter().map(T::to_string).collect();
        f.write_str(&items.join(", "))
    }
}

struct Names<'a>(&'a [Ident]);

impl Display for Names<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let names: Vec<&str> = self.0.iter().map(|n| n.node.as_str()).collect();
        f.write_str(&names.join(", "))
    }
}
