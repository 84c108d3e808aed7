//! Every kernel, every case, against its f64 reference, and the same bits in pools of several sizes.

pub mod differences;

use super::*;
use crate::device::DeviceError;
use crate::device::vulkan::{Gpu, once};
use crate::shader::{self, Caps, Dispatch, Plan, Precision};
use crate::testing;
use minic_compiler::dim::{Dim, Extent, Part};
use minic_compiler::graph::{
    Activation, HeadLoss, HeadTerm, Node, StreamLoss, TopK, reads_teacher, targets_of,
};
use minic_compiler::metrics::{Binary, Expr, Leaf, Program, REDUCERS, Reduction, Unary};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An operand of a case: values drawn evenly from a range, tokens below a bound, or a teacher's targets of a
/// vocabulary.
#[derive(Clone, Copy, Debug)]
enum Given {
    Matrix {
        rows: usize,
        cols: usize,
        low: f64,
        high: f64,
    },
    Tokens {
        count: usize,
        below: u32,
    },
    Targets {
        rows: usize,
        k: usize,
        vocab: usize,
    },
    /// A sequence and a position.
    At(usize, usize),
}

use Given::{At, Tokens};

fn matrix(rows: usize, cols: usize) -> Given {
    between(rows, cols, -1.0, 1.0)
}

fn between(rows: usize, cols: usize, low: f64, high: f64) -> Given {
    Given::Matrix { rows, cols, low, high }
}

type Case = (Op, Vec<Given>);

const SHAPES: &[(usize, usize)] = &[(1, 1), (1, 7), (3, 16), (17, 33), (600, 160), (5, 4097)];
/// More than [`SMALL_BINDING`].
const LONG: (usize, usize) = (8000, 33);

fn cases(kernel: &str) -> Vec<Case> {
    let elementwise = |op: Op, second: fn(usize, usize) -> Option<Given>| {
        let of_shape = |&(r, c): &(usize, usize)| {
            (op.clone(), [Some(between(r, c, -8.0, 8.0)), second(r, c)].into_iter().flatten().collect())
        };
        SHAPES.iter().map(of_shape).collect::<Vec<Case>>()
    };
    match kernel {
        "embed" => vec![(1, 5, 3), (257, 260, 160), (31, 2, 1)]
            .into_iter()
            .map(|(l, v, e)| (Op::Embed, vec![Tokens { count: l, below: v as u32 }, matrix(v, e)]))
            .collect(),
        "rms_norm" => SHAPES
            .iter()
            .map(|&(r, c)| {
                (Op::RmsNorm { eps: 1e-5, active: c.div_ceil(2) }, vec![matrix(r, c), matrix(1, c)])
            })
            .collect(),
        "gated_norm" => GATED_SIZES
            .iter()
            .map(|&(l, groups, width)| {
                let x = between(l, groups * width, -3.0, 3.0);
                let op = Op::GatedNorm { groups, eps: 1e-5, active: width };
                (op, vec![x, x, matrix(1, groups * width)])
            })
            .collect(),
        "linear" => linear_cases(),
        "conv_silu" => conv_cases(|l, c, kernel, bias| {
            let operands = [Some(between(l, c, -3.0, 3.0)), Some(matrix(c, kernel)), bias];
            (Op::ConvSilu { kernel, bias: bias.is_some() }, operands.into_iter().flatten().collect())
        }),
        "ssd" => ssd_cases(),
        "ssd_grad" => ssd_grad_cases(),
        "relu2" => elementwise(Op::Activation(Activation::Relu2), |_, _| None),
        "silu" => elementwise(Op::Activation(Activation::Silu), |_, _| None),
        "mask" => elementwise(Op::Mask, |_, c| Some(matrix(1, c))),
        "add" => elementwise(Op::Add, |r, c| Some(matrix(r, c))),
        "cosine_distance" => elementwise(Op::CosineDistance, |r, c| Some(matrix(r, c))),
        "covariance" => [(1, 1), (7, 33), (300, 160), (5, 520), (8000, 33)]
            .into_iter()
            .flat_map(|(r, c)| {
                [false, true].map(|onto| {
                    let sum = onto.then(|| between(c, c, 0.0, 0.0));
                    let operands = std::iter::once(between(r, c, -3.0, 3.0)).chain(sum);
                    (Op::Covariance { eps: 1e-2, onto }, operands.collect())
                })
            })
            .collect(),
        "attention" => ATTENTION_SIZES
            .iter()
            .map(|&(l, heads, kv_heads, head_dim)| {
                let [q, kv] = [heads, kv_heads].map(|n| between(l, n * head_dim, -2.0, 2.0));
                (Op::Attention { heads, kv_heads, head_dim }, vec![q, kv, kv])
            })
            .collect(),
        "attention_grad" => ATTENTION_SIZES
            .iter()
            .map(|&(l, heads, kv_heads, head_dim)| {
                let [q, kv] = [heads, kv_heads].map(|n| between(l, n * head_dim, -2.0, 2.0));
                let dy = matrix(l, heads * head_dim);
                (Op::AttentionGrad { heads, kv_heads, head_dim }, vec![q, kv, kv, q, dy])
            })
            .collect(),
        "token_loss" => [(2, 3, 1), (65, 20, 260), (130, 37, 1031), (67, 200, 513), (4, 1, MANY)]
            .into_iter()
            .map(|(l, e, v)| {
                (Op::TokenLoss, vec![matrix(l, e), matrix(v, e), Tokens { count: l, below: v as u32 }])
            })
            .collect(),
        "divergence" => [(1, 1, 2, 3), (65, 20, 12, 260), (66, 37, 40, 1031), (3, 1, 2, MANY)]
            .into_iter()
            .map(|(l, e, s, v)| {
                (Op::Divergence, vec![matrix(l, e), matrix(v, e), matrix(l, s), matrix(v, s)])
            })
            .collect(),
        // Few near ties among the best, because f32 may see them the other way round.
        "top_k" => [
            (1, 1, 3, 3),
            (5, 7, 33, 8),
            (66, 1, 1031, 16),
            (13, 37, 260, 64),
            (70, 1, 260, 260),
            (3, 1, MANY, 20),
        ]
        .into_iter()
        .flat_map(|(l, e, v, k)| {
            [1.0, 2.5].map(|temperature| {
                (Op::TopK(TopK { k, temperature }), vec![matrix(l, e), between(v, e, -4.0, 4.0)])
            })
        })
        .collect(),
        "metric" => {
            let of_shape = |&(r, c): &(usize, usize)| {
                let x = between(r, c, -8.0, 8.0);
                metric_programs().into_iter().map(move |program| (Op::Metric { program }, vec![x]))
            };
            SHAPES.iter().chain(&[(1000, 300)]).flat_map(of_shape).collect()
        }
        "concat" => [(1, [1, 1, 1]), (37, [5, 16, 1]), (600, [352, 320, 16])]
            .into_iter()
            .map(|(l, widths)| {
                let part = |n| Part::new(&format!("part {n}"), &[(Dim::One, n)]);
                let extent = Extent::concat(widths.map(part).to_vec());
                (Op::Concat { extent }, widths.map(|n| matrix(l, n)).to_vec())
            })
            .collect(),
        "column_sum" => {
            SHAPES.iter().map(|&(r, c)| (Op::ColumnSum, vec![matrix(r, c), matrix(1, c)])).collect()
        }
        "linear_grad" => {
            LINEAR_SIZES.iter().map(|&(l, i, o)| (Op::LinearGrad, vec![matrix(l, o), matrix(o, i)])).collect()
        }
        "linear_weight_grad" => LINEAR_SIZES
            .iter()
            .map(|&(l, i, o)| (Op::LinearWeightGrad, vec![matrix(l, o), matrix(l, i), matrix(o, i)]))
            .collect(),
        "rms_norm_grad" => {
            let of_shape = |&(r, c): &(usize, usize)| {
                let operands = [matrix(r, c), matrix(1, c), matrix(r, c), matrix(r, c)];
                [false, true].map(|onto| {
                    let op = Op::RmsNormGrad { eps: 1e-2, onto };
                    (op, operands[..3 + usize::from(onto)].to_vec())
                })
            };
            SHAPES.iter().flat_map(of_shape).collect()
        }
        "rms_norm_weight_grad" => SHAPES
            .iter()
            .map(|&(r, c)| {
                let op = Op::RmsNormWeightGrad { eps: 1e-2 };
                (op, vec![matrix(r, c), matrix(r, c), matrix(1, c)])
            })
            .collect(),
        "gated_norm_grad" => GATED_SIZES
            .iter()
            .map(|&(l, groups, width)| {
                let (x, dn) = (between(l, groups * width, -3.0, 3.0), matrix(l, groups * width));
                let op = Op::GatedNormGrad { groups, eps: 1e-2 };
                (op, vec![x, x, matrix(1, groups * width), dn])
            })
            .collect(),
        "gated_norm_weight_grad" => GATED_SIZES
            .iter()
            .map(|&(l, groups, width)| {
                let (x, dn) = (between(l, groups * width, -3.0, 3.0), matrix(l, groups * width));
                let op = Op::GatedNormWeightGrad { groups, eps: 1e-2 };
                (op, vec![x, x, dn, matrix(1, groups * width)])
            })
            .collect(),
        "silu_grad" => conv_cases(|l, c, kernel, bias| {
            let x = between(l, c, -3.0, 3.0);
            let operands = [Some(x), Some(matrix(c, kernel)), bias, Some(matrix(l, c))];
            (Op::SiluGrad { kernel, bias: bias.is_some() }, operands.into_iter().flatten().collect())
        }),
        "conv_grad" => conv_cases(|l, c, kernel, _| {
            (Op::ConvGrad { kernel }, vec![between(l, c, -3.0, 3.0), matrix(c, kernel)])
        }),
        "conv_weight_grad" => conv_cases(|l, c, kernel, _| {
            (Op::ConvWeightGrad { kernel }, vec![matrix(l, c), matrix(l, c), matrix(c, kernel)])
        }),
        "relu2_grad" => elementwise(Op::ActivationGrad(Activation::Relu2), |r, c| Some(matrix(r, c))),
        "silu_activation_grad" => {
            elementwise(Op::ActivationGrad(Activation::Silu), |r, c| Some(matrix(r, c)))
        }
        "embed_grad" => [(1, 5, 3), (257, 260, 160), (31, 2, 1), (600, 3, 65)]
            .into_iter()
            .map(|(l, v, e)| {
                (Op::EmbedGrad, vec![Tokens { count: l, below: v as u32 }, matrix(l, e), matrix(v, e)])
            })
            .collect(),
        "stream_loss" => {
            let of_shape = |&(r, c): &(usize, usize)| {
                // The gradient is of the size of the loss at such a scale.
                let scale = 0.5 * c as f64;
                let mse = Op::StreamLoss { loss: StreamLoss::Mse, scale };
                let cosine = Op::StreamLoss { loss: StreamLoss::Cosine, scale };
                let (x, zeros) = (matrix(r, c), between(r, c, 0.0, 0.0));
                [(mse, [x, x]), (cosine.clone(), [x, x]), (cosine.clone(), [x, zeros]), (cosine, [zeros, x])]
            };
            let cases = SHAPES.iter().chain(&[LONG]).flat_map(of_shape);
            cases.map(|(op, operands)| (op, operands.to_vec())).collect()
        }
        "head_loss" => head_loss_cases(),
        "keep" => [
            // Rows of x, positions of each sequence, rows of a ring, rings, and where they begin.
            (1, 1, 4, 1, At(0, 0)),
            (3, 1, 4, 3, At(0, 7)),
            (5, 5, 4, 3, At(1, 0)),
            (3, 3, 4, 2, At(1, 6)),
            (600, 600, 700, 2, At(1, 0)),
            (8, 4, 3, 6, At(2, 5)),
            (900, 900, 4, 2, At(0, 0)),
        ]
        .into_iter()
        .flat_map(|(rows, positions, window, rings, at)| {
            [1, 37, 400].map(|c| {
                (Op::Keep { positions, window }, vec![matrix(rows, c), at, matrix(rings * window, c)])
            })
        })
        .collect(),
        "conv_step" => [(1, 1, 4, 0), (3, 352, 4, 1), (2, 33, 3, 2), (5, 7, 4, 11), (70, 1030, 1, 5)]
            .into_iter()
            .flat_map(|(s, c, kernel, t)| {
                [None, Some(matrix(1, c))].map(|bias| {
                    let operands = [Some(between(s * kernel, c, -3.0, 3.0)), Some(matrix(c, kernel)), bias];
                    let op = Op::ConvStep { kernel, bias: bias.is_some() };
                    (op, operands.into_iter().flatten().chain([At(0, t)]).collect())
                })
            })
            .collect(),
        "ssd_prefill" => ssd_decoding_cases(|op, mut operands, states| {
            operands.extend([At(10, 0), between(12, states, -1.0, 1.0)]);
            (op, operands)
        }),
        "ssd_step" => ssd_decoding_cases(|op, mut operands, states| {
            let Given::Matrix { rows, .. } = operands[0] else { panic!() };
            operands.push(between(rows, states, -1.0, 1.0));
            let Op::SsdPrefill { heads, head_dim, groups, state, dt_lo, dt_hi } = op else { panic!() };
            (Op::SsdStep { heads, head_dim, groups, state, dt_lo, dt_hi }, operands)
        }),
        "attention_step" => [
            // Sequences, query heads, key heads, columns of a head, rows of a ring, the position.
            (1, 1, 1, 1, 1, 0),
            (3, 5, 1, 32, 40, 36),
            (2, 4, 2, 20, 700, 599),
            (2, 3, 3, 64, 257, 256),
            (4, 2, 1, 7, 64, 3),
            (1, 10, 5, 33, 300, 512),
            (2, 30, 15, 251, 120, 70),
            (9, 2, 1, 64, 700, 650),
        ]
        .into_iter()
        .map(|(s, heads, kv_heads, head_dim, window, t)| {
            let [q, ring] = [(s, heads), (s * window, kv_heads)]
                .map(|(rows, heads)| between(rows, heads * head_dim, -2.0, 2.0));
            (Op::AttentionStep { heads, kv_heads, head_dim, window }, vec![q, ring, ring, At(0, t)])
        })
        .collect(),
        "argmax" => SHAPES.iter().map(|&(r, c)| (Op::Argmax, vec![between(r, c, -8.0, 8.0)])).collect(),
        other => panic!("`{other}` has no cases"),
    }
}

/// Every reducer at every place, of expressions that are no more than a leaf and of deeper ones.
fn metric_programs() -> Vec<Arc<Program>> {
    let reducers = || REDUCERS.iter().map(|r| r.reducer);
    let x = || Expr::Leaf(Leaf::X);
    let deeper = Expr::binary(Binary::Max, Expr::unary(Unary::Silu, x()), Expr::Number(-0.2));
    let all_of = |of: &Expr| reducers().map(|reducer| Reduction { reducer, of: of.clone() }).collect();
    let ratio = Expr::binary(Binary::Divide, Expr::Leaf(Leaf::Sequence(1)), Expr::Leaf(Leaf::Sequence(3)));
    let program = |sequence, batch, tokens| {
        let (weight, score) = (Vec::new(), Expr::Number(0.0));
        Arc::new(Program { name: "case".into(), sequence, batch, tokens, weight, score })
    };
    vec![
        program(all_of(&x()), all_of(&Expr::Leaf(Leaf::Sequence(5))), Vec::new()),
        program(all_of(&Expr::unary(Unary::Abs, x())), all_of(&ratio), all_of(&deeper)),
        program(Vec::new(), Vec::new(), all_of(&Expr::unary(Unary::Square, x()))),
    ]
}

/// Positions, groups, channels of a group.
const GATED_SIZES: &[(usize, usize, usize)] =
    &[(1, 1, 1), (7, 4, 20), (600, 8, 37), (13, 1, 320), (1000, 4, 70)];
/// Tokens of a vocabulary of which a few positions' logits are more than [`SMALL_BINDING`].
const MANY: usize = 140_000;
/// Positions, query heads, key heads, columns of a head.
const ATTENTION_SIZES: &[(usize, usize, usize, usize)] = &[
    (1, 1, 1, 1),
    (37, 5, 1, 32),
    (600, 4, 2, 20),
    (131, 3, 3, 64),
    (49, 2, 1, 7),
    (257, 10, 5, 33),
    (70, 30, 15, 251),
];

/// Positions, inputs, outputs.
const LINEAR_SIZES: &[(usize, usize, usize)] = &[
    (1, 1, 1),
    (1, 160, 260),
    (3, 2050, 70),
    (8, 33, 65),
    (13, 7, 31),
    (257, 193, 129),
    (600, 160, 752),
    (97, 400, 33),
    (12, 192, 64),
];

fn linear_cases() -> Vec<Case> {
    let variants = [(false, false), (true, false), (false, true), (true, true)];
    let case = |((l, i, o), (bias, residual)): ((usize, usize, usize), (bool, bool))| {
        let extra = [bias.then(|| matrix(1, o)), residual.then(|| matrix(l, o))].into_iter().flatten();
        (Op::Linear { bias, residual }, [matrix(l, i), matrix(o, i)].into_iter().chain(extra).collect())
    };
    LINEAR_SIZES.iter().flat_map(|&size| variants.map(|variant| (size, variant))).map(case).collect()
}

/// Cases from positions, channels, taps, and the bias.
fn conv_cases(case: fn(usize, usize, usize, Option<Given>) -> Case) -> Vec<Case> {
    [(1, 1, 4, true), (2, 5, 4, false), (600, 352, 4, true), (97, 33, 3, true), (9, 1030, 1, false)]
        .map(|(l, c, kernel, bias)| case(l, c, kernel, bias.then(|| matrix(1, c))))
        .into()
}

fn ssd_cases() -> Vec<Case> {
    // Tokens, heads, channels, groups, states, and the limits of dt.
    let infinite = f64::INFINITY;
    let sizes = [
        (1, 1, 1, 1, 1, 0.0, infinite),
        (600, 16, 20, 4, 16, 1e-3, infinite),
        (131, 6, 1, 2, 7, 0.0, 0.5),
        (257, 3, 13, 1, 33, 0.0, infinite),
        (200, 4, 64, 2, 128, 1e-3, 0.1),
        (400, 16, 70, 4, 5, 0.0, infinite),
        (64, 2, 40, 2, 16, 0.0, infinite),
        (70, 20, 3, 1, 4, 0.0, infinite),
    ];
    let case =
        |(l, heads, head_dim, groups, state, dt_lo, dt_hi): (usize, usize, usize, usize, usize, f64, f64)| {
            let head = |low, high| between(1, heads, low, high);
            let operands = vec![
                matrix(l, heads * head_dim),
                between(l, heads, -6.0, 3.0),
                matrix(l, groups * state),
                matrix(l, groups * state),
                head(-1.0, 1.0),
                head(-2.0, 2.8),
                head(-1.0, 1.0),
            ];
            (Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi }, operands)
        };
    sizes.into_iter().map(case).collect()
}

/// Cases of a scan that leaves its state, or goes on from one, whose number of elements is given.
fn ssd_decoding_cases(case: fn(Op, Vec<Given>, usize) -> Case) -> Vec<Case> {
    let of = |(op, operands)| match op {
        Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi } => {
            let op = Op::SsdPrefill { heads, head_dim, groups, state, dt_lo, dt_hi };
            case(op, operands, heads * state * head_dim)
        }
        other => panic!("`{}` is no ssd", other.name()),
    };
    ssd_cases().into_iter().map(of).collect()
}

fn head_loss_cases() -> Vec<Case> {
    use HeadLoss::{CrossEntropy, ForwardKl, Js, ReverseKl};
    let top = |k, temperature| HeadLoss::TopK(TopK { k, temperature });
    let cool = [
        (1.0, ForwardKl { temperature: 1.0 }),
        (1.0, ReverseKl { temperature: 1.0 }),
        (1.0, Js { beta: 0.5, temperature: 1.0 }),
        (1.0, CrossEntropy),
    ];
    let alone = cool.map(|term| vec![term]).into_iter();
    let mixed = [
        vec![(0.9, ForwardKl { temperature: 2.0 }), (0.1, CrossEntropy)],
        vec![(0.9, ReverseKl { temperature: 1.5 }), (0.1, Js { beta: 0.1, temperature: 3.0 })],
        vec![(0.4, CrossEntropy), (0.6, Js { beta: 0.0, temperature: 0.7 })],
        cool.to_vec(),
        vec![(1.0, top(2, 1.0))],
        vec![
            (0.5, top(1, 2.0)),
            (0.2, CrossEntropy),
            (0.3, top(3, 1.0)),
            (0.2, ForwardKl { temperature: 1.5 }),
        ],
    ];
    // Positions, width, the teacher's width, vocabulary.
    let sizes = [(1, 1, 1, 3), (2, 5, 7, 3), (65, 20, 12, 260), (66, 37, 40, 1031), (257, 16, 33, 260)];
    let case = |terms: Vec<(f64, HeadLoss)>, (l, e, of_teacher, v): (usize, usize, usize, usize)| {
        let scale = 1.0 / (3 * l) as f64;
        let terms: Vec<HeadTerm> =
            terms.into_iter().map(|(weight, loss)| HeadTerm { weight, scale, loss }).collect();
        let teacher = [between(l, of_teacher, -2.0, 2.0), matrix(v, of_teacher)];
        let teacher = if reads_teacher(&terms) { teacher.to_vec() } else { Vec::new() };
        let student = [between(l, e, -2.0, 2.0), matrix(v, e), Tokens { count: l, below: v as u32 }];
        let targets = targets_of(&terms).map(|targets| Given::Targets { rows: l, k: targets.k, vocab: v });
        let operands = student.into_iter().chain(teacher).chain(targets).chain([matrix(v, e)]).collect();
        (Op::HeadLoss { terms }, operands)
    };
    let large = case(mixed[5].clone(), (3, 1, 2, MANY));
    alone.chain(mixed).flat_map(|terms| sizes.map(|size| case(terms.clone(), size))).chain([large]).collect()
}

fn ssd_grad_cases() -> Vec<Case> {
    let case = |(op, operands): Case| match op {
        Op::Ssd { heads, head_dim, groups, state, dt_lo, dt_hi } => {
            let dy = operands[0];
            let op = Op::SsdGrad { heads, head_dim, groups, state, dt_lo, dt_hi };
            (op, operands.into_iter().chain([dy]).collect())
        }
        other => panic!("`{}` is no ssd", other.name()),
    };
    ssd_cases().into_iter().map(case).collect()
}

/// Numbers in [0, 1), the same in every run.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }
}

/// An operand's f32 or u32 elements. Rows lie `GAP` elements apart, as those of a part do, unless it is a vector.
#[derive(Clone)]
enum Stored {
    F32 { data: Vec<f32>, rows: usize, cols: usize },
    U32(Vec<u32>),
}

const GAP: usize = 5;

impl Stored {
    fn draw(given: Given, draw: &mut Draw) -> Stored {
        match given {
            Given::Matrix { rows, cols, low, high } => {
                let element = |_| (low + draw.next() * (high - low)) as f32;
                Stored::F32 { data: (0..rows * (cols + GAP)).map(element).collect(), rows, cols }
            }
            Given::Targets { rows, k, vocab } => Stored::targets(rows, k, vocab, draw),
            At(sequence, position) => {
                let data = [sequence as f32, position as f32].into_iter().chain([f32::NAN; GAP]).collect();
                Stored::F32 { data, rows: 1, cols: 2 }
            }
            Tokens { count, below } => {
                Stored::U32((0..count).map(|_| (draw.next() * f64::from(below)) as u32).collect())
            }
        }
    }

    /// Of logits in [0, 4), any of whose tokens are the targets.
    fn targets(rows: usize, k: usize, vocab: usize, draw: &mut Draw) -> Stored {
        let mut data = Vec::new();
        for _ in 0..rows {
            let logits: Vec<f64> = (0..vocab).map(|_| 4.0 * draw.next()).collect();
            let total = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            let first = (draw.next() * vocab as f64) as usize;
            let ids: Vec<usize> = (0..k).map(|i| (first + i * (vocab / k)) % vocab).collect();
            let rest = (0..vocab).filter(|v| !ids.contains(v)).map(|v| (logits[v] - total).exp());
            data.extend(ids.iter().map(|v| *v as f32));
            data.extend(ids.iter().map(|v| (logits[*v] - total) as f32));
            data.push(rest.sum::<f64>() as f32);
            data.extend([f32::NAN; GAP]);
        }
        Stored::F32 { data, rows, cols: 2 * k + 1 }
    }

    fn arg(&self) -> Arg<'_> {
        match self {
            Stored::F32 { data, rows, cols } => Arg::F32(View::new(data, *rows, *cols, cols + GAP)),
            Stored::U32(ids) => Arg::U32(ids),
        }
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        match self {
            Stored::F32 { data, rows, cols } => ViewMut::new(data, *rows, *cols, *cols + GAP),
            Stored::U32(_) => panic!("tokens are not changed"),
        }
    }

    fn exact(&self) -> Exact {
        match self.arg() {
            Arg::F32(view) => {
                let data = (0..view.rows()).flat_map(|r| view.row(r).iter().map(|x| f64::from(*x))).collect();
                Exact::F64 { data, rows: view.rows(), cols: view.cols() }
            }
            Arg::U32(ids) => Exact::U32(ids.to_vec()),
        }
    }

    fn node(&self) -> Node {
        let input = Op::Input { name: String::new() };
        match self {
            Stored::F32 { rows, cols, .. } => {
                Node { op: input, shape: vec![Extent::of(Dim::Sequence, *rows), Extent::of(Dim::One, *cols)] }
            }
            Stored::U32(ids) => Node { op: Op::Tokens, shape: vec![Extent::of(Dim::Sequence, ids.len())] },
        }
    }
}

/// The kernel's value as f64 bits' worth of numbers; what lies between the rows must stay untouched.
fn compute(kernel: &Kernel, op: &Op, operands: &[Stored]) -> Vec<f64> {
    let nodes: Vec<Node> = operands.iter().map(Stored::node).collect();
    let shape = op.infer(&nodes.iter().collect::<Vec<_>>()).unwrap();
    let (rows, cols) = Node { op: op.clone(), shape }.matrix();
    let in_place = op.in_place_operand();
    let last = op.changes().then(|| operands.len() - 1);
    let given = operands.iter().enumerate().filter(|(i, _)| Some(*i) != in_place && Some(*i) != last);
    let args: Vec<Arg> = given.map(|(_, s)| s.arg()).collect();
    let mut leaf = last.map(|i| operands[i].clone());
    let changed = leaf.as_mut().map(Stored::view_mut);
    if op.elem() == minic_compiler::graph::Elem::F64 {
        let held = in_place.map(|i| operands[i].exact().data().to_vec());
        let mut out = held.unwrap_or_else(|| vec![f64::NAN; rows * cols]);
        (kernel.cpu)(Call { op, args: &args, out: Out::F64(&mut out), changed });
        return out;
    }
    let stride = cols + 3;
    let mut out = vec![f32::NAN; rows * stride];
    if let Some(Arg::F32(operand)) = in_place.map(|i| operands[i].arg()) {
        (0..rows).for_each(|r| out[r * stride..r * stride + cols].copy_from_slice(operand.row(r)));
    }
    let place = Out::F32(ViewMut::new(&mut out, rows, cols, stride));
    (kernel.cpu)(Call { op, args: &args, out: place, changed });
    assert!(
        out.chunks(stride).all(|row| row[cols..].iter().all(|x| x.is_nan())),
        "{op:?} wrote between rows"
    );
    let mut values: Vec<f64> =
        out.chunks(stride).flat_map(|row| row[..cols].iter().map(|x| f64::from(*x))).collect();
    if let Some(leaf) = leaf {
        values.extend(leaf.exact().data());
    }
    values
}

#[test]
fn kernels_agree_with_their_references_in_pools_of_any_size() {
    let pools: Vec<rayon::ThreadPool> =
        [1, 2, 3, 7].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()).into();
    for kernel in KERNELS {
        for (op, given) in cases(kernel.name) {
            assert_eq!(kernel.name, op.name());
            let mut draw = Draw(7);
            let operands: Vec<Stored> = given.iter().map(|g| Stored::draw(*g, &mut draw)).collect();
            let exact: Vec<Exact> = operands.iter().map(Stored::exact).collect();
            let expected = (kernel.reference)(&op, &exact);
            let values: Vec<Vec<f64>> =
                pools.iter().map(|pool| pool.install(|| compute(kernel, &op, &operands))).collect();
            check(kernel.tolerance, &op, &given, &expected, &values[0]);
            for value in &values[1..] {
                let same = value.iter().zip(&values[0]).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{op:?} on {given:?} depends on the number of threads");
            }
        }
    }
}

fn check(tolerance: f64, op: &Op, given: &[Given], expected: &[f64], value: &[f64]) {
    let worst = off_by(expected, value);
    assert!(worst <= tolerance, "{op:?} on {given:?}: off by {worst:e}, tolerance {tolerance:e}");
}

/// The largest difference, relative to the largest magnitude, or to one.
fn off_by(expected: &[f64], value: &[f64]) -> f64 {
    assert_eq!(expected.len(), value.len());
    let largest = expected.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    let off = |(e, v): (&f64, &f64)| if v.is_nan() { f64::INFINITY } else { (e - v).abs() / largest };
    expected.iter().zip(value).map(off).fold(0.0, f64::max)
}

/// What one binding of a device may be limited to; tensors beyond are taken piece by piece.
const SMALL_BINDING: usize = 1 << 20;

/// `MINIC_KERNEL=ssd` tests that kernel alone.
#[test]
#[expect(clippy::print_stdout, reason = "a table for `--nocapture`")]
fn shaders_agree_with_their_references_whole_and_in_pieces() {
    let (Some(gpu), Some(small)) = (testing::vulkan(None), testing::vulkan(Some(SMALL_BINDING))) else {
        return;
    };
    let only = std::env::var("MINIC_KERNEL").ok();
    let mut wrong = Vec::new();
    for kernel in KERNELS.iter().filter(|k| only.as_deref().is_none_or(|only| only == k.name)) {
        let shaders = kernel.shaders;
        let (began, mut worst) = (std::time::Instant::now(), 0.0f64);
        for (op, given) in cases(kernel.name) {
            let mut draw = Draw(7);
            let operands: Vec<Stored> = given.iter().map(|g| Stored::draw(*g, &mut draw)).collect();
            let exact: Vec<Exact> = operands.iter().map(Stored::exact).collect();
            let expected = (kernel.reference)(&op, &exact);
            let bytes = |s: &Stored| if let Stored::F32 { data, .. } = s { 4 * data.len() } else { 0 };
            let is_large = operands.iter().map(bytes).chain([4 * expected.len()]).any(|n| n > SMALL_BINDING);
            for gpu in [Some(gpu), is_large.then_some(small)].into_iter().flatten() {
                let off = match once_on(gpu, shaders, &op, &operands) {
                    Ok(value) => off_by(&expected, &value),
                    Err(error) => {
                        wrong.push(format!("{op:?}: {error}"));
                        continue;
                    }
                };
                worst = worst.max(off);
                if off > shaders.tolerance {
                    wrong.push(format!(
                        "{op:?} on {given:?}: off by {off:e}, tolerance {:e}",
                        shaders.tolerance
                    ));
                }
            }
        }
        println!("{}: off by {worst:.1e} at most, {:.2} s", kernel.name, began.elapsed().as_secs_f64());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn given(operands: &[Stored]) -> Vec<once::Given<'_>> {
    let of = |operand| match operand {
        &Stored::F32 { ref data, rows, cols } => once::Given::F32 { data, rows, cols, stride: cols + GAP },
        Stored::U32(ids) => once::Given::U32(ids),
    };
    operands.iter().map(of).collect()
}

/// Rows and columns of a value.
fn shape(op: &Op, operands: &[Stored]) -> (usize, usize) {
    let nodes: Vec<Node> = operands.iter().map(Stored::node).collect();
    let shape = op.infer(&nodes.iter().collect::<Vec<_>>()).unwrap();
    Node { op: op.clone(), shape }.matrix()
}

fn once_on(gpu: &Gpu, shaders: Shaders, op: &Op, operands: &[Stored]) -> Result<Vec<f64>, DeviceError> {
    once::once(gpu, Precision::F32, shaders, op, &given(operands), shape(op, operands))
}

/// Products in every variant, of factors of magnitudes that f16 does not have: the error stays that of their rounding.
#[test]
fn products_are_off_by_the_rounding_of_their_factors_alone() {
    let (Some(gpu), Some(small)) = (testing::vulkan(None), testing::vulkan(Some(SMALL_BINDING))) else {
        return;
    };
    let sizes =
        [(1, 1, 1), (1, 333, 70), (7, 64, 65), (13, 7, 31), (257, 193, 129), (600, 160, 752), (97, 400, 33)];
    for (precision, tolerance) in [(Precision::F32, 2e-6), (Precision::F16, 1e-3), (Precision::Bf16, 8e-3)] {
        for (l, i, o) in sizes {
            for magnitude in [1.0, 1e-12, 3e7] {
                let of = |rows, cols| between(rows, cols, -magnitude, magnitude);
                let zeros = |rows, cols| between(rows, cols, 0.0, 0.0);
                let linear = Op::Linear { bias: false, residual: true };
                let cases = [
                    (linear, vec![of(l, i), matrix(o, i), zeros(l, o)]),
                    (Op::LinearGrad, vec![of(l, o), matrix(o, i)]),
                    (Op::LinearWeightGrad, vec![of(l, o), matrix(l, i), zeros(o, i)]),
                ];
                for (op, operands) in cases {
                    let kernel = find(&op).unwrap();
                    let mut draw = Draw(11);
                    let operands: Vec<Stored> =
                        operands.iter().map(|g| Stored::draw(*g, &mut draw)).collect();
                    let exact: Vec<Exact> = operands.iter().map(Stored::exact).collect();
                    let expected = (kernel.reference)(&op, &exact);
                    let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
                    // The variants for processors, for GPUs, and for small bindings.
                    let hardware = Caps { software: false, ..gpu.caps.clone() };
                    for (gpu, caps) in [(gpu, &gpu.caps), (gpu, &hardware), (small, &small.caps)] {
                        let (given, shape) = (given(&operands), shape(&op, &operands));
                        let shaders = kernel.shaders;
                        let value = once::once_as(gpu, caps, precision, shaders, &op, &given, shape);
                        let value = value.unwrap_or_else(|e| panic!("{op:?}: {e}"));
                        let off = |(e, v): (&f64, &f64)| (e - v).abs() / largest;
                        let worst = expected.iter().zip(&value).map(off).fold(0.0, f64::max);
                        assert!(
                            worst <= tolerance,
                            "{op:?} {precision:?} {l} {i} {o} {magnitude}: {worst:e}"
                        );
                        let rounds = precision != Precision::F32 && l * i >= 64;
                        assert!(!rounds || worst > 1e-5, "{op:?}: nothing was rounded");
                    }
                }
            }
        }
    }
}

fn keep(dispatch: &Dispatch, number: usize, words: &[u32]) {
    let Some(folder) = std::env::var_os("MINIC_SPIRV") else { return };
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let name = format!("{}-{number}{}.spv", dispatch.name, if dispatch.bf16 { "-bf16" } else { "" });
    std::fs::write(std::path::Path::new(&folder).join(name), bytes).unwrap();
}

/// Devices that choose other variants than each other.
fn devices() -> [Caps; 3] {
    let least = Caps::least();
    let cooperative = Caps {
        subgroup: (32, 32),
        f16: true,
        cooperative: vec![[16, 16, 16]],
        cooperative_bf16: vec![[16, 16, 16]],
        workgroup_memory: 48 << 10,
        invocations: 1024,
        ..Caps::least()
    };
    [least, Caps { software: true, ..Caps::least() }, cooperative]
}

/// Without any device: every shader of every case is parsed, validated, held against the limits and translated.
/// The first text of every name is looked at. `MINIC_SPIRV=DIR` keeps what comes of them, for `spirv-val`.
#[test]
fn every_shader_passes_the_gate() {
    let mut seen = BTreeSet::new();
    let mut shown: BTreeMap<&str, String> = BTreeMap::new();
    for kernel in KERNELS {
        let shaders = kernel.shaders;
        for (op, operands) in cases(kernel.name) {
            let mut draw = Draw(7);
            let operands: Vec<Stored> = operands.iter().map(|g| Stored::draw(*g, &mut draw)).collect();
            let laid = once::lay_out(&op, &given(&operands), shape(&op, &operands));
            for caps in devices() {
                for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
                    let mut plan = Plan::new(&caps).rounding(precision);
                    (shaders.plan)(&mut plan, shader::Call { op: &op, args: &laid.args, out: &laid.out })
                        .unwrap();
                    for dispatch in plan.dispatches {
                        if seen.insert((dispatch.bf16, dispatch.text.clone())) {
                            let words = shader::check(&dispatch, &caps).and_then(|checked| checked.words());
                            let words = words.unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
                            keep(&dispatch, seen.len(), &words);
                            shown.entry(dispatch.name).or_insert(dispatch.text);
                        }
                    }
                }
            }
        }
    }
    for (name, text) in shown {
        insta::assert_snapshot!(format!("shader_{name}"), text);
    }
}

#[test]
fn every_operation_that_computes_has_one_kernel() {
    let names: std::collections::BTreeSet<&str> = KERNELS.iter().map(|k| k.name).collect();
    assert_eq!(names.len(), KERNELS.len());
}

#[test]
fn tokens_outside_the_table_give_nan() {
    let (ids, table) = ([0u32, 9], [1.0f32, 2.0]);
    let mut out = [0.0f32; 2];
    let args = [Arg::U32(&ids), Arg::F32(View::new(&table, 2, 1, 1))];
    (embed::KERNEL.cpu)(Call {
        op: &Op::Embed,
        args: &args,
        out: Out::F32(ViewMut::new(&mut out, 2, 1, 1)),
        changed: None,
    });
    assert!(out[0] == 1.0 && out[1].is_nan());
    let hidden = [1.0f32, 1.0];
    let mut loss = [0.0f64; 2];
    let args = [Arg::F32(View::new(&hidden, 2, 1, 1)), Arg::F32(View::new(&table, 2, 1, 1)), Arg::U32(&ids)];
    (token_loss::KERNEL.cpu)(Call {
        op: &Op::TokenLoss,
        args: &args,
        out: Out::F64(&mut loss),
        changed: None,
    });
    assert!(loss[0].is_nan() && loss[1] == 0.0);
}

#[test]
fn equal_maxima_are_decided_for_the_lowest_token() {
    let (ids, hidden) = ([0u32, 1, 2], [1.0f32; 3]);
    let head = [0.0f32, 5.0, 5.0];
    let mut loss = [0.0f64; 4];
    let args = [Arg::F32(View::new(&hidden, 3, 1, 1)), Arg::F32(View::new(&head, 3, 1, 1)), Arg::U32(&ids)];
    (token_loss::KERNEL.cpu)(Call {
        op: &Op::TokenLoss,
        args: &args,
        out: Out::F64(&mut loss),
        changed: None,
    });
    assert_eq!((loss[1], loss[3]), (1.0, 0.0));
}
