//! `export MODEL to "DIR" { .. }`

use super::Checker;
use super::arguments::call_of;
use super::named::{Named, word};
use super::names::suggestion;
use crate::hir;
use crate::model::DType;
use minic_grammar::Diagnostic;
use minic_grammar::ast::{Declaration, Export, Expr, ExprKind};
use std::collections::BTreeMap;

pub(crate) const KEYS: &[Named] = &[
    word("dtype", "the type of the stored weights, `bf16`, `f16` or `f32`; the checkpoint's by default"),
    word("shard", "the most bytes of one safetensors file, `5GB`"),
];

impl<'a> Checker<'a> {
    pub(super) fn export(&mut self, export: &'a Export) {
        let model = self.weighted_model(&export.model);
        let owner = format!("export of `{}`", export.model.node);
        let fields = self.fields(owner, export.span, &export.settings, export.span, KEYS);
        let dtype = fields.get("dtype").map(|e| self.dtype(e));
        let shard = fields.get("shard").map(|e| self.bytes(e, "a shard"));
        let to = &export.to.node;
        if to.trim().is_empty() {
            self.report(
                Diagnostic::new("E0906", export.to.span, "the folder of the export has no name")
                    .label("nothing between the quotes")
                    .help(format!("name it: `export {0} to \"out/{0}\"`", export.model.node)),
            );
        } else if let Some(cause) = self.environment.occupied(to) {
            self.report(
                Diagnostic::new("E0904", export.to.span, format!("the folder `{to}` is taken"))
                    .label(cause)
                    .help("export to another folder, or run with `--overwrite`"),
            );
        }
        let (dtype, shard) = match (dtype, shard) {
            (Some(None), _) | (_, Some(None)) => return,
            (dtype, shard) => (dtype.flatten(), shard.flatten()),
        };
        if let Some(model) = model {
            let (model, to, span) = (model.to_string(), to.clone(), export.span);
            self.out.exports.push(hir::Export { model, to, dtype, shard, span });
        }
    }

    fn dtype(&mut self, expr: &Expr) -> Option<DType> {
        let name = match (&expr.kind, call_of(expr)) {
            (ExprKind::String(name), _) => Some(name.clone()),
            (ExprKind::Path(_), Some(call)) => Some(call.name),
            _ => None,
        };
        let dtype = name.as_deref().and_then(DType::from_name);
        if dtype.is_none() {
            let known: Vec<&str> = DType::ALL.iter().map(|d| d.recipe_name()).collect();
            let shown = name.unwrap_or_else(|| "this".into());
            self.report(
                Diagnostic::new("E0905", expr.span, format!("there is no element type `{shown}`"))
                    .label("unknown element type")
                    .help(suggestion(&shown, "element types", &known)),
            );
        }
        dtype
    }

    /// No two exports may write to one folder.
    pub(super) fn exports_apart(&mut self) {
        let exports: Vec<&Export> = self
            .recipe
            .declarations
            .iter()
            .filter_map(|d| match d {
                Declaration::Export(e) if !e.to.node.trim().is_empty() => Some(e),
                _ => None,
            })
            .collect();
        let mut folders: BTreeMap<String, &Export> = BTreeMap::new();
        for export in exports {
            let first = *folders.entry(normal(&export.to.node)).or_insert(export);
            if first.to.span != export.to.span {
                self.report(
                    Diagnostic::new("E0903", export.to.span, "two exports write to one folder")
                        .label("written again here")
                        .also(first.to.span, "first written here")
                        .help(format!(
                            "give each a folder of its own: `export {0} to \"out/{0}\"`",
                            export.model.node
                        )),
                );
            }
        }
    }
}

/// A path without `.`, doubled slashes and steps back that can be undone.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.trim().split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let root = if path.trim().starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn spellings_of_one_folder_are_the_same() {
        assert_eq!(normal("out/a/"), normal("./out//b/../a"));
        assert_ne!(normal("/out/a"), normal("out/a"));
        assert_ne!(normal("../a"), normal("a"));
    }
}
