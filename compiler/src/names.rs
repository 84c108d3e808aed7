//! Names that were nearly right.

pub use minic_grammar::nearest;
