//! Speed of every CPU kernel at the shapes of the two benchmark models: `cargo bench --bench kernels [NAME]`;
//! `-- --large` adds the head of a model of four billion parameters, which needs 10 GB.
//!
//! Each row: best of several runs, on one thread and on all; arithmetic that the formula needs (padding and
//! masked-out halves are not counted), and bytes of operands and value.
#![allow(clippy::print_stdout, reason = "a program whose purpose is to print a table")]

use minic_compiler::dim::{Dim, Extent};
use minic_compiler::graph::{Activation, Elem, HeadLoss, HeadTerm, Node, Op, StreamLoss, TopK};
use minic_runtime::kernels::{Arg, Call, Out, View, ViewMut, find};
use std::time::{Duration, Instant};

/// The widths of a hybrid model's blocks.
struct Model {
    name: &'static str,
    hidden: usize,
    ffn: usize,
    heads: usize,
    head_dim: usize,
    groups: usize,
    state: usize,
    attention: (usize, usize, usize),
    vocab: usize,
}

const MODELS: &[Model] = &[
    Model {
        name: "tiny",
        hidden: 160,
        ffn: 480,
        heads: 16,
        head_dim: 20,
        groups: 4,
        state: 16,
        attention: (5, 1, 32),
        vocab: 260,
    },
    Model {
        name: "100M",
        hidden: 768,
        ffn: 3072,
        heads: 24,
        head_dim: 64,
        groups: 8,
        state: 128,
        attention: (12, 4, 64),
        vocab: 20480,
    },
];

struct Row {
    label: String,
    op: Op,
    operands: Vec<Given>,
    flops: f64,
}

/// The shape of an operand; values are drawn from -1..1 when its row is timed.
#[derive(Clone, Copy)]
enum Given {
    Matrix(usize, usize),
    Tokens {
        count: usize,
        below: usize,
    },
    /// The first sequence, and a position.
    At(usize),
}

enum Operand {
    F32(Vec<f32>, usize, usize),
    U32(Vec<u32>),
}

fn matrix(rows: usize, cols: usize) -> Given {
    Given::Matrix(rows, cols)
}

fn tokens(count: usize, below: usize) -> Given {
    Given::Tokens { count, below }
}

fn draw(given: Given) -> Operand {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    match given {
        Given::Matrix(rows, cols) => Operand::F32((0..rows * cols).map(|_| next()).collect(), rows, cols),
        Given::At(position) => Operand::F32(vec![0.0, position as f32], 1, 2),
        Given::Tokens { count, below } => {
            Operand::U32((0..count).map(|i| (i * 7919 % below) as u32).collect())
        }
    }
}

fn linear(label: &str, l: usize, i: usize, o: usize) -> Row {
    Row {
        label: format!("linear {label} {l}x{i}x{o}"),
        op: Op::Linear { bias: false, residual: false },
        operands: vec![matrix(l, i), matrix(o, i)],
        flops: 2.0 * (l * i * o) as f64,
    }
}

/// Forward KL and cross entropy, or forward KL alone: the student's logits forward and twice in reverse, and
/// the teacher's.
fn head_loss(label: &str, l: usize, [student, teacher]: [usize; 2], vocab: usize, mixed: bool) -> Row {
    let term = |weight, loss| HeadTerm { weight, scale: 1.0 / l as f64, loss };
    let kl = term(0.9, HeadLoss::ForwardKl { temperature: 2.0 });
    let terms = [Some(kl), mixed.then(|| term(0.1, HeadLoss::CrossEntropy))];
    Row {
        label: format!("head_loss {label} L={l}"),
        op: Op::HeadLoss { terms: terms.into_iter().flatten().collect() },
        operands: vec![
            matrix(l, student),
            matrix(vocab, student),
            tokens(l, vocab),
            matrix(l, teacher),
            matrix(vocab, teacher),
            matrix(vocab, student),
        ],
        flops: 2.0 * (l * vocab * (3 * student + teacher)) as f64,
    }
}

/// One token of each of some sequences, after so many.
fn steps(m: &Model, sequences: usize, position: usize) -> Vec<Row> {
    let (inner, states) = (m.heads * m.head_dim, m.groups * m.state);
    let (conv, window) = (inner + 2 * states, position + 1);
    let (q, kv, d) = m.attention;
    let row = |name: &str, op: Op, operands: Vec<Given>| Row {
        label: format!("{name} {sequences} at {position}"),
        op,
        operands,
        flops: 0.0,
    };
    let ssd = Op::SsdStep {
        heads: m.heads,
        head_dim: m.head_dim,
        groups: m.groups,
        state: m.state,
        dt_lo: 1e-3,
        dt_hi: f64::INFINITY,
    };
    let ssd_operands = [inner, m.heads, states, states].map(|cols| matrix(sequences, cols));
    let of_heads = [matrix(1, m.heads); 3];
    let ring = matrix(sequences * window, kv * d);
    vec![
        linear("in_proj", sequences, m.hidden, inner + conv + m.heads),
        row(
            "keep",
            Op::Keep { positions: 1, window },
            vec![matrix(sequences, kv * d), Given::At(position), ring],
        ),
        row(
            "conv_step",
            Op::ConvStep { kernel: 4, bias: true },
            vec![matrix(sequences * 4, conv), matrix(conv, 4), matrix(1, conv), Given::At(position)],
        ),
        row(
            "ssd_step",
            ssd,
            ssd_operands
                .into_iter()
                .chain(of_heads)
                .chain([matrix(sequences, m.heads * m.state * m.head_dim)])
                .collect(),
        ),
        row(
            "attention_step",
            Op::AttentionStep { heads: q, kv_heads: kv, head_dim: d, window },
            vec![matrix(sequences, q * d), ring, ring, Given::At(position)],
        ),
        linear("head", sequences, m.hidden, m.vocab),
        row("argmax", Op::Argmax, vec![matrix(sequences, m.vocab)]),
    ]
}

fn rows(m: &Model, l: usize) -> Vec<Row> {
    let inner = m.heads * m.head_dim;
    let conv = inner + 2 * m.groups * m.state;
    let (q, kv, d) = m.attention;
    let row = |label: &str, op: Op, operands: Vec<Given>, flops: f64| Row {
        label: format!("{label} L={l}"),
        op,
        operands,
        flops,
    };
    let ssd = Op::Ssd {
        heads: m.heads,
        head_dim: m.head_dim,
        groups: m.groups,
        state: m.state,
        dt_lo: 1e-3,
        dt_hi: f64::INFINITY,
    };
    let ssd_operands = vec![
        matrix(l, inner),
        matrix(l, m.heads),
        matrix(l, m.groups * m.state),
        matrix(l, m.groups * m.state),
        matrix(1, m.heads),
        matrix(1, m.heads),
        matrix(1, m.heads),
    ];
    let ssd_grad = Op::SsdGrad {
        heads: m.heads,
        head_dim: m.head_dim,
        groups: m.groups,
        state: m.state,
        dt_lo: 1e-3,
        dt_hi: f64::INFINITY,
    };
    let ssd_grad_operands = ssd_operands.iter().copied().chain([matrix(l, inner)]).collect();
    let gated = Op::GatedNorm { groups: m.groups, eps: 1e-5, active: inner / m.groups };
    vec![
        row("embed", Op::Embed, vec![tokens(l, m.vocab), matrix(m.vocab, m.hidden)], 0.0),
        row(
            "rms_norm",
            Op::RmsNorm { eps: 1e-5, active: m.hidden },
            vec![matrix(l, m.hidden), matrix(1, m.hidden)],
            0.0,
        ),
        linear("in_proj", l, m.hidden, inner + conv + m.heads),
        row(
            "conv_silu",
            Op::ConvSilu { kernel: 4, bias: true },
            vec![matrix(l, conv), matrix(conv, 4), matrix(1, conv)],
            0.0,
        ),
        row("ssd", ssd, ssd_operands, (l * m.heads * m.head_dim * m.state * 5) as f64),
        row("ssd_grad", ssd_grad, ssd_grad_operands, (l * m.heads * m.head_dim * m.state * 14) as f64),
        row("gated_norm", gated, vec![matrix(l, inner), matrix(l, inner), matrix(1, inner)], 0.0),
        linear("out_proj", l, inner, m.hidden),
        linear("up", l, m.hidden, m.ffn),
        row("relu2", Op::Activation(Activation::Relu2), vec![matrix(l, m.ffn)], 0.0),
        linear("down", l, m.ffn, m.hidden),
        linear("qkv", l, m.hidden, (q + 2 * kv) * d),
        row(
            "attention",
            Op::Attention { heads: q, kv_heads: kv, head_dim: d },
            vec![matrix(l, q * d), matrix(l, kv * d), matrix(l, kv * d)],
            2.0 * (l * l * q * d) as f64,
        ),
        row(
            "attention_grad",
            Op::AttentionGrad { heads: q, kv_heads: kv, head_dim: d },
            [q, kv, kv, q, q].map(|heads| matrix(l, heads * d)).to_vec(),
            5.0 * (l * l * q * d) as f64,
        ),
        linear("head", l, m.hidden, m.vocab),
        head_loss("kl", l, [m.hidden; 2], m.vocab, false),
        head_loss("kl + ce", l, [m.hidden; 2], m.vocab, true),
        row("add", Op::Add, vec![matrix(l, m.hidden), matrix(l, m.hidden)], 0.0),
        row("mask", Op::Mask, vec![matrix(l, m.ffn), matrix(1, m.ffn)], 0.0),
        row("cosine_distance", Op::CosineDistance, vec![matrix(l, m.hidden), matrix(l, m.hidden)], 0.0),
        row(
            "token_loss",
            Op::TokenLoss,
            vec![matrix(l, m.hidden), matrix(m.vocab, m.hidden), tokens(l, m.vocab)],
            2.0 * ((l - 1) * m.hidden * m.vocab) as f64,
        ),
        row(
            "divergence",
            Op::Divergence,
            vec![
                matrix(l, m.hidden),
                matrix(m.vocab, m.hidden),
                matrix(l, m.hidden),
                matrix(m.vocab, m.hidden),
            ],
            4.0 * (l * m.hidden * m.vocab) as f64,
        ),
        row(
            "top_k",
            Op::TopK(TopK { k: 64, temperature: 1.0 }),
            vec![matrix(l, m.hidden), matrix(m.vocab, m.hidden)],
            2.0 * (l * m.hidden * m.vocab) as f64,
        ),
        row(
            "rms_norm_grad",
            Op::RmsNormGrad { eps: 1e-5, onto: true },
            vec![matrix(l, m.hidden), matrix(1, m.hidden), matrix(l, m.hidden), matrix(l, m.hidden)],
            0.0,
        ),
        row(
            "rms_norm_weight_grad",
            Op::RmsNormWeightGrad { eps: 1e-5 },
            vec![matrix(l, m.hidden), matrix(l, m.hidden), matrix(1, m.hidden)],
            0.0,
        ),
        row(
            "gated_norm_grad",
            Op::GatedNormGrad { groups: m.groups, eps: 1e-5 },
            vec![matrix(l, inner), matrix(l, inner), matrix(1, inner), matrix(l, inner)],
            0.0,
        ),
        row(
            "gated_norm_weight_grad",
            Op::GatedNormWeightGrad { groups: m.groups, eps: 1e-5 },
            vec![matrix(l, inner), matrix(l, inner), matrix(l, inner), matrix(1, inner)],
            0.0,
        ),
        row(
            "silu_grad",
            Op::SiluGrad { kernel: 4, bias: true },
            vec![matrix(l, conv), matrix(conv, 4), matrix(1, conv), matrix(l, conv)],
            0.0,
        ),
        row("conv_grad", Op::ConvGrad { kernel: 4 }, vec![matrix(l, conv), matrix(conv, 4)], 0.0),
        row(
            "conv_weight_grad",
            Op::ConvWeightGrad { kernel: 4 },
            vec![matrix(l, conv), matrix(l, conv), matrix(conv, 4)],
            0.0,
        ),
        row(
            "relu2_grad",
            Op::ActivationGrad(Activation::Relu2),
            vec![matrix(l, m.ffn), matrix(l, m.ffn)],
            0.0,
        ),
        row(
            "embed_grad",
            Op::EmbedGrad,
            vec![tokens(l, m.vocab), matrix(l, m.hidden), matrix(m.vocab, m.hidden)],
            0.0,
        ),
        row(
            "stream_loss",
            Op::StreamLoss { loss: StreamLoss::Cosine, scale: 1e-3 },
            vec![matrix(l, m.hidden), matrix(l, m.hidden)],
            0.0,
        ),
    ]
}

/// How long to go on after some runs: at least five of those that are not slow.
fn patience(runs: usize) -> Duration {
    match runs {
        0..5 => Duration::from_secs(5),
        5..200 => Duration::from_millis(300),
        _ => Duration::ZERO,
    }
}

/// Best time of one call, and bytes of operands and value.
fn time(row: &Row) -> (Duration, usize) {
    let operands: Vec<Operand> = row.operands.iter().copied().map(draw).collect();
    let nodes: Vec<Node> = operands
        .iter()
        .map(|operand| match operand {
            Operand::F32(_, rows, cols) => Node {
                op: Op::Input { name: String::new() },
                shape: vec![Extent::of(Dim::Sequence, *rows), Extent::of(Dim::One, *cols)],
            },
            Operand::U32(ids) => Node { op: Op::Tokens, shape: vec![Extent::of(Dim::Sequence, ids.len())] },
        })
        .collect();
    let shape = row.op.infer(&nodes.iter().collect::<Vec<_>>()).expect("the shapes fit");
    let value = Node { op: row.op.clone(), shape };
    let (rows, cols) = value.matrix();
    let in_place = row.op.in_place_operand();
    let changes = row.op.changes().then(|| operands.len() - 1);
    let args: Vec<Arg> = operands
        .iter()
        .enumerate()
        .filter(|(i, _)| Some(*i) != in_place && Some(*i) != changes)
        .map(|(_, operand)| match operand {
            Operand::F32(data, rows, cols) => Arg::F32(View::new(data, *rows, *cols, *cols)),
            Operand::U32(ids) => Arg::U32(ids),
        })
        .collect();
    let kernel = find(&row.op).expect("the operation has a kernel");
    let (mut f32s, mut f64s) = (vec![0.5f32; rows * cols], vec![0.0f64; rows * cols]);
    let (leaf_rows, leaf_cols) = changes.map_or((0, 0), |i| nodes[i].matrix());
    let mut leaf = vec![0.0f32; leaf_rows * leaf_cols];
    let mut best = Duration::MAX;
    let begin = Instant::now();
    let mut runs = 0;
    while runs < 2 || begin.elapsed() < patience(runs) {
        let start = Instant::now();
        let out = match row.op.elem() {
            Elem::F64 => Out::F64(&mut f64s),
            _ => Out::F32(ViewMut::new(&mut f32s, rows, cols, cols)),
        };
        let changed = changes.map(|_| ViewMut::new(&mut leaf, leaf_rows, leaf_cols, leaf_cols));
        (kernel.cpu)(Call { op: &row.op, args: &args, out, changed });
        best = best.min(start.elapsed());
        runs += 1;
    }
    (best, value.bytes() + nodes.iter().map(Node::bytes).sum::<usize>())
}

fn main() {
    let only = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let pools = [1, threads].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a pool"));
    let mut table = vec![("", linear("square", 1024, 1024, 1024))];
    for model in MODELS {
        let steps = [1, 8, 16].into_iter().flat_map(|sequences| steps(model, sequences, 4095));
        table.extend(steps.map(|row| (model.name, row)));
        table.extend([512, 1024].into_iter().flat_map(|l| rows(model, l)).map(|row| (model.name, row)));
    }
    if std::env::args().any(|a| a == "--large") {
        table.push(("4B", linear("head", 1024, 3072, 131072)));
        table.push(("4B", head_loss("kl", 1024, [3072, 4096], 131072, false)));
    }
    println!(
        "{:5} {:32} {:>11} {:>11} {:>9} {:>9} {:>8}",
        "",
        "",
        "us, 1 thr",
        format!("us, {threads} thr"),
        "GFLOP/s",
        "",
        "GB/s"
    );
    for (model, row) in table {
        if only.as_ref().is_some_and(|only| !format!("{model} {}", row.label).contains(only.as_str())) {
            continue;
        }
        let [one, all] = [0, 1].map(|i| pools[i].install(|| time(&row)));
        let (t1, tn) = (one.0.as_secs_f64(), all.0.as_secs_f64());
        let rate = |x: f64| if x > 0.0 { format!("{:.1}", x / 1e9) } else { "-".into() };
        println!(
            "{model:5} {:32} {:11.1} {:11.1} {:>9} {:>9} {:8.1}",
            row.label,
            t1 * 1e6,
            tn * 1e6,
            rate(row.flops / t1),
            rate(row.flops / tn),
            all.1 as f64 / tn / 1e9
        );
    }
}
