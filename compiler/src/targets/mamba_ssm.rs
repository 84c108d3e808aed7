//! `mamba_ssm`: the fused kernels of mamba_ssm and causal_conv1d, which transformers runs as well where they are
//! installed.

use super::{HEADS, Origin, Rule, Sizes, Target};
use crate::dim::Dim;

pub const TARGET: Target = Target {
    name: "mamba_ssm",
    also: &["kernels", "mamba", "causal_conv1d"],
    arguments: &[],
    rules: &[CONVOLUTION_CHANNELS, CONVOLUTION_TAPS, ROW_STRIDE, STREAM_WIDTH, NEURON_WIDTH, HEAD_WIDTH],
    doc: "the fused kernels of mamba_ssm and causal_conv1d",
};

/// Channels of the convolution, and rows that it reads, come in multiples of this.
const CHANNELS: usize = 8;

/// Widths in multiples of this run at the speed of the hardware.
const FAST: usize = 64;
const ODD: Origin = Origin { name: "LLM-Pruner#33", url: "https://github.com/horseee/LLM-Pruner/issues/33" };
const NOTHING: &str = "nothing has to be done: it runs, and tensor cores are partly idle";

const CONVOLUTION_CHANNELS: Rule = Rule {
    name: "convolution_channels",
    origin: Origin { name: "mamba#345", url: "https://github.com/state-spaces/mamba/issues/345" },
    refuses: true,
    asks: "the convolution must have channels in multiples of 8",
    dims: HEADS,
    holds: |s| s.convolved().is_multiple_of(CHANNELS),
    found: |s| format!("{} channels: {}, and B and C", s.convolved(), s.inner_shown()),
    otherwise: "leave out `mamba_ssm`",
};

const CONVOLUTION_TAPS: Rule = Rule {
    name: "convolution_taps",
    origin: Origin {
        name: "causal-conv1d, causal_conv1d.cpp",
        url: "https://github.com/Dao-AILab/causal-conv1d/blob/main/csrc/causal_conv1d.cpp",
    },
    refuses: true,
    asks: "the convolution must have 2, 3 or 4 taps",
    dims: &[],
    holds: |s| (2..=4).contains(&s.of(Dim::ConvKernel)),
    found: |s| s.shown(Dim::ConvKernel),
    otherwise: "`conv_kernel` is the parent's, and no cut changes it: leave out `mamba_ssm`",
};

const ROW_STRIDE: Rule = Rule {
    name: "row_stride",
    origin: Origin { name: "mamba#351", url: "https://github.com/state-spaces/mamba/issues/351" },
    // Versions since mamba#713 copy such rows.
    refuses: false,
    asks: "older versions refuse an in_proj whose rows are no multiple of 8, newer ones copy what it writes",
    dims: HEADS,
    holds: |s| s.projected().is_multiple_of(CHANNELS),
    found: |s| format!("{} rows: z, x, B, C and dt", s.projected()),
    otherwise: "use a version of mamba_ssm with mamba#713",
};

/// A width that is slow unless it is a multiple of [`FAST`].
const fn fast(
    name: &'static str,
    asks: &'static str,
    dims: &'static [Dim],
    holds: fn(&Sizes) -> bool,
    found: fn(&Sizes) -> String,
) -> Rule {
    Rule { name, origin: ODD, refuses: false, asks, dims, holds, found, otherwise: NOTHING }
}

const STREAM_WIDTH: Rule = fast(
    "stream_width",
    "hidden_size runs at full speed in multiples of 64",
    &[Dim::HiddenSize],
    |s| s.divides(Dim::HiddenSize, FAST),
    |s| s.shown(Dim::HiddenSize),
);

const NEURON_WIDTH: Rule = fast(
    "neuron_width",
    "ffn_hidden_size runs at full speed in multiples of 64",
    &[Dim::FfnHiddenSize],
    |s| s.divides(Dim::FfnHiddenSize, FAST),
    |s| s.shown(Dim::FfnHiddenSize),
);

const HEAD_WIDTH: Rule = fast(
    "head_width",
    "heads x head_dim runs at full speed in multiples of 64",
    HEADS,
    |s| s.inner().is_multiple_of(FAST),
    |s| s.inner_shown(),
);
