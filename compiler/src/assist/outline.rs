//! The declarations of a recipe as a list, for the side bar of an editor.

use super::Draft;
use super::cards;
use crate::check::names::{Kind, declared};
use minic_grammar::Span;
use minic_grammar::ast::Declaration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    Value,
    Model,
    Data,
    Function,
    /// Rules, schedules.
    Rules,
    /// What is done with a model: evaluated, deployed, written.
    Action,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Symbol {
    pub name: String,
    pub detail: String,
    pub kind: SymbolKind,
    pub whole: Span,
    /// The name, or the model that something is done with.
    pub name_span: Span,
    /// Phases of a schedule.
    pub inner: Vec<Symbol>,
}

/// Every declaration of the recipe's own file, in its order.
pub fn symbols(draft: &Draft) -> Vec<Symbol> {
    let end = draft.checked.sources.own().end();
    let own = draft.checked.ast.declarations.iter().filter(|declaration| declaration.span().start <= end);
    own.map(|declaration| symbol(draft, declaration)).collect()
}

fn symbol(draft: &Draft, declaration: &Declaration) -> Symbol {
    let whole = declaration.span();
    if let Some((kind, name)) = declared(declaration) {
        let detail =
            cards::short(draft, &name.node).unwrap_or_else(|| kind.noun().trim_start_matches("a ").into());
        let kind = match kind {
            Kind::Param => SymbolKind::Value,
            Kind::Model | Kind::Prune | Kind::Search | Kind::Distill => SymbolKind::Model,
            Kind::Data => SymbolKind::Data,
            Kind::Metric => SymbolKind::Function,
            Kind::Group | Kind::Schedule => SymbolKind::Rules,
            Kind::Sensitivity => SymbolKind::Action,
        };
        let inner = match declaration {
            Declaration::Schedule(schedule) => schedule.phases.iter().map(phase).collect(),
            _ => Vec::new(),
        };
        return Symbol { name: name.node.clone(), detail, kind, whole, name_span: name.span, inner };
    }
    let (name, name_span) = match declaration {
        Declaration::Use(u) => (format!("use {}", u.file.node), u.file.span),
        Declaration::Evaluate(e) => (format!("evaluate {}", e.model.node), e.model.span),
        Declaration::Deploy(d) => (format!("deploy {}", d.model.node), d.model.span),
        Declaration::Export(e) => (format!("export {}", e.model.node), e.model.span),
        named => (String::new(), named.span()),
    };
    let detail = match declaration {
        Declaration::Evaluate(e) => format!("on {}", e.on.node),
        Declaration::Export(e) => e.to.node.clone(),
        _ => String::new(),
    };
    Symbol { name, detail, kind: SymbolKind::Action, whole, name_span, inner: Vec::new() }
}

fn phase(phase: &minic_grammar::ast::Phase) -> Symbol {
    let name = phase.name.node.clone();
    let kind = SymbolKind::Rules;
    Symbol {
        name,
        detail: "phase".into(),
        kind,
        whole: phase.span,
        name_span: phase.name.span,
        inner: Vec::new(),
    }
}
