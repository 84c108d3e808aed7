//! The optimizer: which weights decay, and AdamW's step over arrays of f32 (computed in
//! `runtime/src/kernels/adamw.rs`).

pub use crate::kernels::adamw::{Update, adamw, square_sum, sum_into};

use minic_compiler::model::{Role, Weight};

/// Whether weight decay applies: to the matrices of linears, the embedding, the head and the taps of
/// convolutions; not to norms, biases, nor what a head of Mamba2 has one of (A_log, D, dt_bias).
pub fn decays(weight: &Weight) -> bool {
    match weight.role {
        Role::Norm | Role::GatedNorm | Role::PerHead | Role::Bias => false,
        // The bias of a convolution has its role too; the taps are [channels, 1, taps].
        Role::Conv => weight.shape.len() > 1,
        Role::Embedding
        | Role::InProj
        | Role::OutProj
        | Role::UpProj
        | Role::DownProj
        | Role::QueryProj
        | Role::KeyProj
        | Role::ValueProj
        | Role::OutputProj
        | Role::Head => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn matrices_decay_and_vectors_do_not() {
        let desc = testing::desc(&testing::config());
        for weight in desc.weights() {
            let vector = ["bias", "A_log", ".D", "norm.weight", "norm_f.weight"];
            assert_eq!(decays(&weight), !vector.iter().any(|end| weight.name.ends_with(end)), "{weight}");
        }
    }
}
