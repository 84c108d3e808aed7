//! The operations, each with its formula and its shapes.

use super::loss::{HeadTerm, StreamLoss, TopK};
use crate::dim::Extent;
use crate::metrics::Program;
use std::sync::Arc;

/// Element type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elem {
    U32,
    F32,
    /// Accumulators and losses.
    F64,
}

impl Elem {
    pub fn bytes(self) -> usize {
        match self {
            Elem::U32 | Elem::F32 => 4,
            Elem::F64 => 8,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0)^2
    Relu2,
    /// x * sigmoid(x)
    Silu,
}

/// An operation. Operands are listed in order; L is the sequence, shapes are row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The sample's token ids [L], u32.
    Tokens,
    /// A run-time f32 input: a mask, or the stream that a block starts from.
    Input { name: String },
    /// A parameter, by its name in the checkpoint.
    Weight { name: String },
    /// What is remembered from one run to the next; operations that [`Op::changes`] move it on.
    State { name: String },
    /// (tokens [L], table [V, E]) -> [L, E]
    Embed,
    /// (x [L, E], weight [E]) -> x / sqrt(sum(x^2) / active + eps) * weight. `active` is E, or the number
    /// of unmasked channels of a masked model.
    RmsNorm { eps: f64, active: usize },
    /// (x [L, I], weight [O, I], bias [O] if `bias`, residual [L, O] if `residual`)
    /// -> residual + x weight^T + bias
    Linear { bias: bool, residual: bool },
    /// (x [L, C]) -> the columns of one named part, or of a run of neighbours `x|B|C`; a view.
    Part { name: String },
    /// (x [L, C]) -> its last row [1, C]; a view.
    Last,
    /// (x [L, C], weight [C, 1, K], bias [C] if `bias`) -> silu(causal depthwise convolution), zero left pad:
    /// y[t, c] = silu(b[c] + sum_k w[c, 0, k] x[t - (K-1) + k, c])
    ConvSilu { kernel: usize, bias: bool },
    /// State space duality scan (arXiv:2405.21060), head h uses group h / (heads / groups):
    /// (x [L, H*P], dt [L, H], B [L, G*N], C [L, G*N], dt_bias [H], A_log [H], D [H]) -> y [L, H*P]
    /// dt' = clamp(softplus(dt + dt_bias), lo, hi); S[t] = exp(-exp(A_log) dt') S[t-1] + dt' x B^T;
    /// y = S C + D x
    Ssd { heads: usize, head_dim: usize, groups: usize, state: usize, dt_lo: f64, dt_hi: f64 },
    /// (y [L, I], z [L, I], weight [I]) -> v = y * silu(z), each of the `groups` slices of v divided by
    /// sqrt(sum(v^2) / active + eps), times weight. `active` is the unmasked width of one group.
    GatedNorm { groups: usize, eps: f64, active: usize },
    /// (x [L, C]) -> elementwise.
    Activation(Activation),
    /// (q [L, heads*d], k [L, kv_heads*d], v [L, kv_heads*d]) -> causal softmax(q k^T / sqrt(d)) v; query
    /// head j reads key head j / (heads / kv_heads). No positions.
    Attention { heads: usize, kv_heads: usize, head_dim: usize },
    /// (a, b) of one shape.
    Add,
    /// (x [L, C], mask [C]) -> x * mask
    Mask,
    /// (hidden [L, E], head [V, E], tokens [L]) -> f64 [L-1, 2]: negative log-likelihood of token t+1 at
    /// position t in nats, and 1 where it is the most likely one. Logits are never whole.
    TokenLoss,
    /// (teacher hidden [L, E], teacher head [V, E], student hidden [L, E'], student head [V, E'])
    /// -> f64 [L, 2]: KL(teacher || student) in nats, mean over V of (teacher logit - student logit)^2.
    Divergence,
    /// (hidden [L, E], head [V, E]) -> [L, ids | log_p | rest]: the k likeliest tokens of softmax(logits / T), of
    /// equals those of lower ids, with the logarithms of their probabilities, and the sum of all others'.
    TopK(TopK),
    /// (x [L, E], y [L, E]) -> f64 [L, 1]: 1 - cos(x, y), a block's influence.
    CosineDistance,
    /// (x [L, C]) -> f64 [program.slots(), C]: one sample's partial of a metric.
    Metric { program: Arc<Program> },
    /// (x [L, E], sum [E, E] if `onto`) -> f64 [E, E]: sum + u^T u, u the rows of x divided by
    /// sqrt(mean(x^2) + eps). The lower triangle alone; above it stands zero.
    Covariance { eps: f64, onto: bool },

    // Losses of training, each with its gradient in the same pass. `dv` is the gradient of the loss by `v`, in
    // the shape of `v`.
    /// The sum of a weight's gradient over samples, in the weight's shape: bound before the run, and added to
    /// by operations that [`Op::accumulates`].
    Gradient { name: String },
    /// (hidden [L, E], head [V, E], tokens [L], then teacher hidden [L, E'] and teacher head [V, E'] if a term
    /// reads the teacher's logits, the values of an [`Op::TopK`] for each term that has targets, gradient of the
    /// head [V, E])
    /// -> [L, hidden | losses]: the gradient of `sum over terms and positions of weight * scale * loss` by
    /// hidden, and the losses themselves, one column a term, neither weighed nor scaled. Adds the head's
    /// gradient. Logits are never whole.
    HeadLoss { terms: Vec<HeadTerm> },
    /// (x [L, E], y [L, E]) -> [L, hidden | losses]: the gradient of `scale * loss` by x at every position, and
    /// the losses themselves in one column.
    StreamLoss { loss: StreamLoss, scale: f64 },

    // Reverse mode.
    /// (one matrix [L, Ci] for each part) -> [L, sum Ci], side by side.
    Concat { extent: Extent },
    /// (x [L, C], gradient [C]): adds the sum over the rows.
    ColumnSum,
    /// (dy [L, O], weight [O, I]) -> dx [L, I] = dy weight
    LinearGrad,
    /// (dy [L, O], x [L, I], gradient [O, I]): adds dy^T x.
    LinearWeightGrad,
    /// (x [L, E], weight [E], dy [L, E], d [L, E] if `onto`) -> d + dx of an [`Op::RmsNorm`] over all of E.
    RmsNormGrad { eps: f64, onto: bool },
    /// (x [L, E], dy [L, E], gradient [E]): adds the sum over positions of dy * x / rms(x).
    RmsNormWeightGrad { eps: f64 },
    /// (y [L, I], z [L, I], weight [I], dv [L, I]) -> [L, y | z]: dy and dz of an [`Op::GatedNorm`] over the
    /// whole width of its groups.
    GatedNormGrad { groups: usize, eps: f64 },
    /// (y [L, I], z [L, I], dv [L, I], gradient [I]): adds the sum over positions of dv * v / rms(v), v before
    /// its weight.
    GatedNormWeightGrad { groups: usize, eps: f64 },
    /// (x [L, C], weight [C, 1, K], bias [C] if `bias`, dy [L, C]) -> ds [L, C], s the sum that
    /// [`Op::ConvSilu`] puts into SiLU.
    SiluGrad { kernel: usize, bias: bool },
    /// (ds [L, C], weight [C, 1, K]) -> dx [L, C]: dx[t, c] = sum_k w[c, 0, k] ds[t + (K-1) - k, c]
    ConvGrad { kernel: usize },
    /// (x [L, C], ds [L, C], gradient [C, 1, K]): adds sum_t ds[t, c] x[t - (K-1) + k, c].
    ConvWeightGrad { kernel: usize },
    /// (the operands of [`Op::Ssd`], dy [L, H*P]) -> [L, x | B | C | dt | A_log | D]: dx, dB, dC, ddt, and what
    /// every position contributes to the gradients of A_log and of D [L, H]. That of dt_bias is the sum of ddt.
    SsdGrad { heads: usize, head_dim: usize, groups: usize, state: usize, dt_lo: f64, dt_hi: f64 },
    /// (x [L, C], dy [L, C]) -> dx
    ActivationGrad(Activation),
    /// (q, k, v, y of [`Op::Attention`], dy [L, heads*d]) -> [L, q | k | v]
    AttentionGrad { heads: usize, kv_heads: usize, head_dim: usize },
    /// (tokens [L], dx [L, E], gradient [V, E]): adds row t of dx to the row of token t.
    EmbedGrad,

    // Decoding: S sequences, token by token. `at` [2] are the sequence and the position at which the rows of a run
    // begin, whole numbers; where there is one row a sequence, they begin with sequence 0. Rows are remembered in
    // rings of R rows, one a sequence: that of position t at row t mod R.
    /// (x [n T, C], at [2], ring [S R, C]): row i, of sequence at[0] + i / T at position at[1] + i mod T, is put into
    /// its ring; of more than R rows of a sequence, the last R. T is `positions`, R is `window`.
    Keep { positions: usize, window: usize },
    /// (ring [S K, C], weight [C, 1, K], bias [C] if `bias`, at [2]) -> y [S, C], the rows of an [`Op::ConvSilu`] at
    /// position at[1], whose input is in the ring.
    ConvStep { kernel: usize, bias: bool },
    /// (the operands of [`Op::Ssd`], at [2], states [S, H*N*P]) -> y [L, H*P] of the scan; what it leaves is put into
    /// row at[0], a state [N, P] for each head.
    SsdPrefill { heads: usize, head_dim: usize, groups: usize, state: usize, dt_lo: f64, dt_hi: f64 },
    /// (the operands of [`Op::Ssd`] with a row for each sequence, states [S, H*N*P]) -> y [S, H*P], one position of
    /// the scan; the states are moved on.
    SsdStep { heads: usize, head_dim: usize, groups: usize, state: usize, dt_lo: f64, dt_hi: f64 },
    /// (q [S, heads*d], ring of k [S R, kv_heads*d], ring of v, at [2]) -> [S, heads*d]: [`Op::Attention`] of the query
    /// of each sequence at position at[1] over what its ring holds up to there. R is `window`.
    AttentionStep { heads: usize, kv_heads: usize, head_dim: usize, window: usize },
    /// (x [L, V]) -> [L, 1]: the column of the largest element, of equals the first.
    Argmax,
}

impl Op {
    /// The kernel that computes it; views and inputs have none.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Tokens => "tokens",
            Op::Input { .. } => "input",
            Op::Weight { .. } => "weight",
            Op::State { .. } => "state",
            Op::Embed => "embed",
            Op::RmsNorm { .. } => "rms_norm",
            Op::Linear { .. } => "linear",
            Op::Part { .. } => "part",
            Op::Last => "last",
            Op::ConvSilu { .. } => "conv_silu",
            Op::Ssd { .. } => "ssd",
            Op::GatedNorm { .. } => "gated_norm",
            Op::Activation(Activation::Relu2) => "relu2",
            Op::Activation(Activation::Silu) => "silu",
            Op::Attention { .. } => "attention",
            Op::Add => "add",
            Op::Mask => "mask",
            Op::TokenLoss => "token_loss",
            Op::Divergence => "divergence",
            Op::TopK(_) => "top_k",
            Op::CosineDistance => "cosine_distance",
            Op::Metric { .. } => "metric",
            Op::Covariance { .. } => "covariance",
            Op::Gradient { .. } => "gradient",
            Op::HeadLoss { .. } => "head_loss",
            Op::StreamLoss { .. } => "stream_loss",
            Op::Concat { .. } => "concat",
            Op::ColumnSum => "column_sum",
            Op::LinearGrad => "linear_grad",
            Op::LinearWeightGrad => "linear_weight_grad",
            Op::RmsNormGrad { .. } => "rms_norm_grad",
            Op::RmsNormWeightGrad { .. } => "rms_norm_weight_grad",
            Op::GatedNormGrad { .. } => "gated_norm_grad",
            Op::GatedNormWeightGrad { .. } => "gated_norm_weight_grad",
            Op::SiluGrad { .. } => "silu_grad",
            Op::ConvGrad { .. } => "conv_grad",
            Op::ConvWeightGrad { .. } => "conv_weight_grad",
            Op::SsdGrad { .. } => "ssd_grad",
            Op::ActivationGrad(Activation::Relu2) => "relu2_grad",
            Op::ActivationGrad(Activation::Silu) => "silu_activation_grad",
            Op::AttentionGrad { .. } => "attention_grad",
            Op::EmbedGrad => "embed_grad",
            Op::Keep { .. } => "keep",
            Op::ConvStep { .. } => "conv_step",
            Op::SsdPrefill { .. } => "ssd_prefill",
            Op::SsdStep { .. } => "ssd_step",
            Op::AttentionStep { .. } => "attention_step",
            Op::Argmax => "argmax",
        }
    }

    /// Bound before a run rather than computed by it.
    pub fn is_leaf(&self) -> bool {
        matches!(
            self,
            Op::Tokens | Op::Input { .. } | Op::Weight { .. } | Op::State { .. } | Op::Gradient { .. }
        )
    }

    /// Shows a part of its operand and computes nothing.
    pub fn is_view(&self) -> bool {
        matches!(self, Op::Part { .. } | Op::Last)
    }

    /// Its last operand is a leaf that it changes beside its value: a gradient that it adds to, or a state that it
    /// moves on. Many have an empty value. Such an operation is run for that effect ([`super::Graph::effects`]), in
    /// the order of the graph.
    pub fn changes(&self) -> bool {
        self.accumulates() || self.moves_on()
    }

    /// What it changes is a state.
    pub fn moves_on(&self) -> bool {
        matches!(self, Op::Keep { .. } | Op::SsdPrefill { .. } | Op::SsdStep { .. })
    }

    /// What it changes is a gradient.
    pub fn accumulates(&self) -> bool {
        matches!(
            self,
            Op::HeadLoss { .. }
                | Op::ColumnSum
                | Op::LinearWeightGrad
                | Op::RmsNormWeightGrad { .. }
                | Op::GatedNormWeightGrad { .. }
                | Op::ConvWeightGrad { .. }
                | Op::EmbedGrad
        )
    }

    /// The operand whose buffer the value may take over. Such an operation updates its output in place: the
    /// output holds that operand when the kernel is called, and the kernel is not given it as an argument.
    pub fn in_place_operand(&self) -> Option<usize> {
        match self {
            Op::Activation(_) | Op::Mask | Op::Add => Some(0),
            Op::Linear { bias, residual: true } => Some(2 + usize::from(*bias)),
            Op::ActivationGrad(_) => Some(1),
            Op::RmsNormGrad { onto: true, .. } => Some(3),
            Op::Covariance { onto: true, .. } => Some(1),
            _ => None,
        }
    }

    pub fn elem(&self) -> Elem {
        match self {
            Op::Tokens => Elem::U32,
            Op::TokenLoss
            | Op::Divergence
            | Op::CosineDistance
            | Op::Metric { .. }
            | Op::Covariance { .. } => Elem::F64,
            _ => Elem::F32,
        }
    }
}
