//! The recipe language: text to syntax tree, with spans and diagnostics.
//!
//! This crate knows identifiers only. Names of axes, metrics, families, losses and targets are looked up
//! by the compiler.

pub mod ast;
pub mod codes;
pub mod diagnostic;
pub mod format;
pub mod forms;
pub mod pages;
mod parse;
pub mod render;
pub mod source;
pub mod span;
mod suggest;

/// The grammar, a document of its own.
pub const GRAMMAR: &str = include_str!("../mrecipe.pest");

pub use diagnostic::{Diagnostic, Fix, Help, Label, Severity};
pub use parse::layout::MAX_DEPTH;
pub use parse::{parse, parse_at, quantity, units};
pub use source::{Source, Sources};
pub use span::{Span, Spanned};
pub use suggest::nearest;
