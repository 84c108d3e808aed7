//! `group NAME { .. }`: its rules read once, and proved against the parent of every prune they stand under.

use super::Checker;
use super::names::{Known, Want, list, suggestion, suggestion_of};
use super::outline::{LayerRules, Outline};
use super::prune::twice;
use crate::axes::{self, AXES};
use crate::dim::Dim;
use crate::hir;
use crate::model::LayerKind;
use minic_grammar::ast::{Group, GroupRule, GroupRuleKind, Ident};
use minic_grammar::{Diagnostic, Span, Spanned};

/// A rule that could be read.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub kind: RuleKind,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub(super) enum RuleKind {
    /// Restates what always holds.
    Structural(Dim),
    /// The channels of a head: one ranking for all heads (`false`) or one for each (`true`).
    PerHead(bool),
    MultipleOf(Dim, usize),
    Protect(Vec<Spanned<usize>>),
    Keep(LayerKind, usize),
    /// `order mamba_num_heads before mamba_head_dim` (`true`), or the other way round.
    HeadsFirst(bool),
}

/// The rules that hold for one prune.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub rules: Vec<Rule>,
    pub layers: LayerRules,
    pub constraints: hir::Constraints,
}

impl Rules {
    /// The factor of a dimension and the rule that states it, the largest factor first.
    pub fn factors(&self, dim: Dim) -> Vec<(usize, Span)> {
        let stated = self.rules.iter().filter_map(|r| match r.kind {
            RuleKind::MultipleOf(d, factor) if d == dim => Some((factor, r.span)),
            _ => None,
        });
        stated.collect()
    }
}

impl<'a> Checker<'a> {
    pub(super) fn group(&mut self, group: &'a Group) {
        let rules: Vec<Option<Rule>> = group.rules.iter().map(|rule| self.rule(rule)).collect();
        if self.is_first(&group.name) {
            self.groups.insert(&group.name.node, rules.into_iter().flatten().collect());
        }
    }

    fn rule(&mut self, rule: &GroupRule) -> Option<Rule> {
        let kind = match &rule.kind {
            GroupRuleKind::Within { dim, outer, .. } => {
                let (inner, outer) = self.pair(dim, outer, "within", Dim::within)?;
                RuleKind::Structural(if inner == outer { outer } else { inner })
            }
            GroupRuleKind::Shared { dim, across } => {
                self.pair(dim, across, "shared across", Dim::shared_across)?;
                RuleKind::PerHead(false)
            }
            GroupRuleKind::Per { dim, per } => {
                self.pair(dim, per, "per", Dim::shared_across)?;
                RuleKind::PerHead(true)
            }
            GroupRuleKind::MultipleOf { dim, factor } => {
                let size = self.size(factor, "a factor", 1);
                let dim = self.axis_dim(dim)?;
                RuleKind::MultipleOf(dim, size?)
            }
            GroupRuleKind::Protect { what, members } => {
                let layers = self.sizes(members, false);
                self.word(what, &["layers"], "protect")?;
                RuleKind::Protect(layers?)
            }
            GroupRuleKind::Keep { what, count } => {
                let count = self.size(count, "the number of layers kept", 0);
                let names: Vec<&str> = LayerKind::ALL.iter().map(|k| k.name()).collect();
                let index = self.word(what, &names, "keep")?;
                RuleKind::Keep(LayerKind::ALL[index], count?)
            }
            GroupRuleKind::Order { first, then } => self.order_rule(first, then, rule.span)?,
        };
        Some(Rule { kind, span: rule.span })
    }

    fn known_dim(&mut self, ident: &Ident) -> Option<Dim> {
        let dims = Dim::ALL.iter().filter(|d| **d != Dim::One);
        let known: Vec<Known> = dims.map(|d| (d.name(), axes::also(*d))).collect();
        let dim = Dim::from_name(&ident.node).filter(|d| *d != Dim::One);
        if dim.is_none() {
            self.report(
                Diagnostic::new("E0501", ident.span, format!("there is no dimension `{}`", ident.node))
                    .label("unknown dimension")
                    .help(suggestion_of(&ident.node, "dimensions", &known)),
            );
        }
        dim
    }

    /// A pair of dimensions that `relation` knows; others are refused with those that there are.
    fn pair(
        &mut self,
        dim: &Ident,
        outer: &Ident,
        words: &str,
        relation: fn(Dim) -> Option<Dim>,
    ) -> Option<(Dim, Dim)> {
        let (a, b) = (self.known_dim(dim), self.known_dim(outer));
        let (a, b) = (a?, b?);
        if relation(a) == Some(b) {
            return Some((a, b));
        }
        let legal: Vec<String> = Dim::ALL
            .iter()
            .filter_map(|&d| relation(d).map(|outer| format!("`{d} {words} {outer}`")))
            .collect();
        self.report(
            Diagnostic::new("E0502", dim.span.to(outer.span), format!("`{a}` is not {words} `{b}`"))
                .label("no model has such a group")
                .help(format!("legal: {}", legal.join(", "))),
        );
        None
    }

    fn axis_dim(&mut self, ident: &Ident) -> Option<Dim> {
        let dim = self.known_dim(ident)?;
        if AXES.iter().any(|a| a.dim == dim) {
            return Some(dim);
        }
        let axes: Vec<&str> = AXES.iter().map(|a| a.name).collect();
        self.report(
            Diagnostic::new(
                "E0502",
                ident.span,
                format!("`{dim}` is never cut, so a rule for its size is void"),
            )
            .help(format!("sizes that are cut: {}", list(&axes))),
        );
        None
    }

    /// The position of a word among those that a rule knows.
    fn word(&mut self, ident: &Ident, words: &[&str], rule: &str) -> Option<usize> {
        let index = words.iter().position(|w| *w == ident.node);
        if index.is_none() {
            self.report(
                Diagnostic::new("E0501", ident.span, format!("`{rule}` knows no `{}`", ident.node))
                    .help(suggestion(&ident.node, "it knows", words)),
            );
        }
        index
    }

    fn order_rule(&mut self, first: &Ident, then: &Ident, span: Span) -> Option<RuleKind> {
        let (a, b) = (self.known_dim(first), self.known_dim(then));
        match (a?, b?) {
            (Dim::MambaHeadDim, Dim::MambaNumHeads) => Some(RuleKind::HeadsFirst(false)),
            (Dim::MambaNumHeads, Dim::MambaHeadDim) => Some(RuleKind::HeadsFirst(true)),
            (a, b) => {
                self.report(
                    Diagnostic::new("E0502", span, format!("the order of `{a}` and `{b}` makes no difference"))
                        .help("only `mamba_head_dim` and `mamba_num_heads` are ranked one on what survives of the other"),
                );
                None
            }
        }
    }

    /// Puts the groups of a prune together: contradictions, and layers that the parent does not have.
    pub(super) fn rules_under(&mut self, groups: &[&'a Ident], parent: Option<&Outline>) -> Rules {
        let mut out = Rules::default();
        for ident in groups {
            let Some(name) = self.resolve(ident, Want::Group) else { continue };
            if let Some(first) = groups.iter().find(|g| g.node == ident.node && g.span != ident.span)
                && out.constraints.groups.iter().any(|g| g == name)
            {
                self.report(twice(&format!("`{name}`"), ident.span, first.span));
                continue;
            }
            out.constraints.groups.push(name.to_string());
            for rule in self.groups.get(name).cloned().unwrap_or_default() {
                self.contradiction(&out.rules, &rule);
                if let Some(parent) = parent {
                    self.rule_fits(&rule, parent);
                }
                merge(&mut out, rule);
            }
        }
        out
    }

    fn contradiction(&mut self, earlier: &[Rule], rule: &Rule) {
        let clash = earlier.iter().find(|other| match (&other.kind, &rule.kind) {
            (RuleKind::PerHead(a), RuleKind::PerHead(b)) => a != b,
            (RuleKind::HeadsFirst(a), RuleKind::HeadsFirst(b)) => a != b,
            (RuleKind::Keep(a, n), RuleKind::Keep(b, m)) => a == b && n != m,
            _ => false,
        });
        if let Some(other) = clash {
            self.report(
                Diagnostic::new("E0504", rule.span, "two rules of this prune contradict each other")
                    .label("this rule")
                    .also(other.span, "contradicts this one")
                    .help("remove one of the two, or put them in groups for different prunes")
                    .fix("remove this rule", rule.span, ""),
            );
        }
    }

    fn rule_fits(&mut self, rule: &Rule, parent: &Outline) {
        let total = parent.layers.total;
        match &rule.kind {
            RuleKind::Protect(layers) => {
                if let Some(beyond) = layers.iter().find(|l| l.node >= total) {
                    self.report(
                        Diagnostic::new("E0505", beyond.span, format!("there is no layer {}", beyond.node))
                            .label(format!("the parent has {total} layers"))
                            .help(format!("layers are numbered from 0 to {}", total.saturating_sub(1))),
                    );
                }
            }
            RuleKind::Keep(kind, count) => {
                let (_, most) = parent.layers.range(*kind);
                if *count > most {
                    self.report(
                        Diagnostic::new(
                            "E0505",
                            rule.span,
                            format!("{count} {} layers cannot be kept, the parent has {most}", kind.name()),
                        )
                        .help(format!("keep at most {most}")),
                    );
                }
            }
            RuleKind::Structural(dim) | RuleKind::MultipleOf(dim, _) => {
                if parent.dim(*dim).is_none() {
                    self.absent(*dim, rule.span, parent);
                }
            }
            RuleKind::PerHead(_) | RuleKind::HeadsFirst(_) => {
                if parent.dim(Dim::MambaHeadDim).is_none() {
                    self.absent(Dim::MambaHeadDim, rule.span, parent);
                }
            }
        }
    }

    fn absent(&mut self, dim: Dim, span: Span, parent: &Outline) {
        self.report(
            Diagnostic::new("E0505", span, format!("the parent has no `{dim}`"))
                .label(format!("its family is {}", parent.desc.family))
                .help(format!("remove the rule, or keep its group for prunes of models that have `{dim}`"))
                .fix("remove the rule", span, ""),
        );
    }
}

fn merge(out: &mut Rules, rule: Rule) {
    let constraints = &mut out.constraints;
    match &rule.kind {
        RuleKind::Structural(_) => {}
        RuleKind::PerHead(per) => constraints.channels_per_head |= per,
        RuleKind::HeadsFirst(first) => constraints.heads_before_channels |= first,
        RuleKind::Protect(layers) => {
            constraints.protect.extend(layers.iter().map(|l| l.node));
            out.layers.protect.extend(layers.iter().map(|l| l.node));
        }
        RuleKind::Keep(kind, count) => {
            constraints.keep.insert(*kind, *count);
            out.layers.keep.insert(*kind, *count);
        }
        RuleKind::MultipleOf(dim, factor) => {
            let slot = constraints.multiple_of.entry(dim.name().to_string()).or_insert(1);
            *slot = least_common_multiple(*slot, *factor);
        }
    }
    out.rules.push(rule);
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1)).saturating_mul(b)
}

#[cfg(test)]
mod tests {
    use super::least_common_multiple;

    #[test]
    fn factors_join_in_their_least_common_multiple() {
        assert_eq!(least_common_multiple(1, 256), 256);
        assert_eq!(least_common_multiple(8, 12), 24);
        assert_eq!(least_common_multiple(7, 7), 7);
    }
}
