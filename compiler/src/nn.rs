//! Blocks that families are made of. Each reads like its paper.

pub mod attention;
pub mod mamba2;
pub mod mlp;

use crate::dim::Extent;
use crate::graph::{Builder, ValueId};
use crate::model::{Role, Weight};

/// Where a block's weights are: `backbone.layers.3.mixer.` of layer 3.
pub struct Scope {
    pub layer: usize,
    pub prefix: String,
}

impl Scope {
    fn weight(&self, name: &str, role: Role, shape: Vec<Extent>) -> Weight {
        Weight { name: format!("{}{name}", self.prefix), role, layer: Some(self.layer), shape }
    }

    fn load(&self, b: &mut Builder, name: &str, shape: &[&Extent]) -> ValueId {
        let shape = shape.iter().map(|&e| e.clone()).collect();
        b.weight(&format!("{}{name}", self.prefix), shape)
    }
}
