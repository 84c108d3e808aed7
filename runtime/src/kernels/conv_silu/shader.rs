//! The convolution and its gradients, one invocation an element; the gradient of the weights, one workgroup a tap of
//! some channels.

use super::super::Shaders;
use super::constants;
use crate::shader::common::{LANES, SIGMOID};
use crate::shader::{Call, Caps, Mat, Plan, Source, Unfit, cuts};
use std::ops::Range;

pub const KERNEL: Shaders = Shaders { version: 1, plan: forward, tolerance: 1e-6 };
pub const STEP: Shaders = Shaders { version: 1, plan: step, tolerance: 1e-6 };
pub const SILU_GRAD: Shaders = Shaders { version: 1, plan: silu_grad, tolerance: 2e-6 };
pub const CONV_GRAD: Shaders = Shaders { version: 1, plan: conv_grad, tolerance: 5e-7 };
pub const WEIGHT_GRAD: Shaders = Shaders { version: 1, plan: weight_grad, tolerance: 1e-6 };

/// The row that tap k of position t reads, in a window that begins `before` rows before the first position. Rows
/// outside of the sequence are outside of the window, and those before it beyond all others.
const BEHIND: &str = "t + p.before + k - (p.taps - 1u)";
/// The row that read t by its tap k.
const AHEAD: &str = "t + (p.taps - 1u) - k";

fn forward(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ((taps, has_bias), args) = (constants(call.op), call.args);
    let [x, weight, bias] = [&args[0], &args[1], &args[args.len() - 1]];
    let bias = has_bias.then_some(bias);
    convolve(plan, "conv_silu", taps, [x, weight, call.out], (bias, None), BEHIND, "silu(s)")
}

fn silu_grad(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ((taps, has_bias), args) = (constants(call.op), call.args);
    let [x, weight, dy] = [&args[0], &args[1], &args[args.len() - 1]];
    let more = (has_bias.then(|| &args[2]), Some(dy));
    convolve(plan, "silu_grad", taps, [x, weight, call.out], more, BEHIND, "dy(t, c) * silu_slope(s)")
}

fn conv_grad(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ((taps, _), [ds, weight]) = (constants(call.op), [&call.args[0], &call.args[1]]);
    convolve(plan, "conv_grad", taps, [ds, weight, call.out], (None, None), AHEAD, "s")
}

/// `value` of s = bias + sum_k weight[c, k] x[row, c].
fn convolve(
    plan: &mut Plan,
    name: &'static str,
    taps: usize,
    [x, weight, out]: [&Mat; 3],
    (bias, dy): (Option<&Mat>, Option<&Mat>),
    row: &str,
    value: &str,
) -> Result<(), Unfit> {
    let others: Vec<&Mat> = dy.into_iter().chain([out]).collect();
    let (behind, ahead) = if row == BEHIND { (taps - 1, 0) } else { (0, taps - 1) };
    let windows = windows(x, &others, behind, ahead, plan.caps)?;
    for channels in cuts(&[weight], x.cols, 1, plan.caps)? {
        let of = |mat: &Mat| mat.columns(channels.start, channels.len());
        for [window, rows] in &windows {
            let mut source = Source::new(name, LANES)
                .read("x", &of(&x.rows(window.clone())))
                .read("weight", &weight.rows(channels.clone()));
            let mut start = "0.0";
            if let Some(bias) = bias {
                (source, start) = (source.read("bias", &of(&bias.flat())), "bias(0u, c)");
            }
            if let Some(dy) = dy {
                source = source.read("dy", &of(&dy.rows(rows.clone())));
            }
            let count = rows.len() * channels.len();
            source = source
                .write("out", &of(&out.rows(rows.clone())))
                .u32("taps", taps)
                .u32("before", rows.start - window.start)
                .u32("window", window.len())
                .u32("cols", channels.len())
                .u32("count", count)
                .with(SIGMOID)
                .body(&format!(
                    "    let at = group * {LANES}u + lane;
    if (at >= p.count) {{ return; }}
    let t = at / p.cols;
    let c = at % p.cols;
    var s = {start};
    for (var k = 0u; k < p.taps; k++) {{
        let row = {row};
        if (row < p.window) {{ s += weight(c, k) * x(row, c); }}
    }}
    set_out(t, c, {value});"
                ));
            plan.run(source, count.div_ceil(LANES));
        }
    }
    Ok(())
}

fn step(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ((taps, has_bias), args) = (constants(call.op), call.args);
    let [ring, weight, begin] = [&args[0], &args[1], &args[args.len() - 1]];
    let (bias, out) = (has_bias.then(|| &args[2]), call.out);
    // A ring as one row.
    let apart = ring.stride;
    let cols = (taps - 1) * apart + ring.cols;
    let rings = Mat { rows: out.rows, cols, stride: taps * apart, ..ring.clone() };
    for channels in cuts(&[weight], out.cols, 1, plan.caps)? {
        for sequences in cuts(&[&rings, out], out.rows, 1, plan.caps)? {
            let count = sequences.len() * channels.len();
            let rings =
                rings.rows(sequences.clone()).columns(channels.start, cols - out.cols + channels.len());
            let mut source = Source::new("conv_step", LANES)
                .read("rings", &rings)
                .read("weight", &weight.rows(channels.clone()))
                .read("begin", &begin.flat());
            let mut start = "0.0";
            if let Some(bias) = bias {
                let bias = bias.flat().columns(channels.start, channels.len());
                (source, start) = (source.read("bias", &bias), "bias(0u, c)");
            }
            source = source
                .write("out", &out.rows(sequences.clone()).columns(channels.start, channels.len()))
                .u32("taps", taps)
                .u32("apart", apart)
                .u32("cols", channels.len())
                .u32("count", count)
                .with(SIGMOID)
                .body(&format!(
                    "    let at = group * {LANES}u + lane;
    if (at >= p.count) {{ return; }}
    let r = at / p.cols;
    let c = at % p.cols;
    let position = u32(begin(0u, 1u));
    var s = {start};
    for (var k = p.taps - 1u - min(position, p.taps - 1u); k < p.taps; k++) {{
        let t = position + k - (p.taps - 1u);
        s += weight(c, k) * rings(r, t % p.taps * p.apart + c);
    }}
    set_out(r, c, silu(s));"
                ));
            plan.run(source, count.div_ceil(LANES));
        }
    }
    Ok(())
}

/// Channels of a workgroup, and the invocations that share each of them.
const COLS: usize = 32;
const SHARES: usize = 8;

fn weight_grad(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let ((taps, _), [x, ds, gradient]) = (constants(call.op), [&call.args[0], &call.args[1], &call.args[2]]);
    let windows = windows(x, &[ds], taps - 1, 0, plan.caps)?;
    for channels in cuts(&[gradient], x.cols, 1, plan.caps)? {
        let of = |mat: &Mat| mat.columns(channels.start, channels.len());
        for [window, rows] in &windows {
            let source = Source::new("conv_weight_grad", COLS * SHARES)
                .read("x", &of(&x.rows(window.clone())))
                .read("ds", &of(&ds.rows(rows.clone())))
                .write("gradient", &gradient.rows(channels.clone()))
                .u32("taps", taps)
                .u32("before", rows.start - window.start)
                .u32("window", window.len())
                .u32("cols", channels.len())
                .u32("rows", rows.len())
                .shared("sums", "f32", COLS * SHARES)
                .body(&format!(
                    "    let k = group % p.taps;
    let c = group / p.taps * {COLS}u + lane % {COLS}u;
    var sum = 0.0;
    if (c < p.cols) {{
        for (var t = lane / {COLS}u; t < p.rows; t += {SHARES}u) {{
            let row = {BEHIND};
            if (row < p.window) {{ sum += ds(t, c) * x(row, c); }}
        }}
    }}
    sums[lane] = sum;
    workgroupBarrier();
    if (lane < {COLS}u && c < p.cols) {{
        for (var share = 1u; share < {SHARES}u; share++) {{ sum += sums[lane + share * {COLS}u]; }}
        set_gradient(c, k, gradient(c, k) + sum);
    }}"
                ));
            plan.run(source, channels.len().div_ceil(COLS) * taps);
        }
    }
    Ok(())
}

/// Cuts positions so that one binding holds those of `others`, and one those of x with as many rows before and
/// after them: rows of x, and positions.
fn windows(
    x: &Mat,
    others: &[&Mat],
    behind: usize,
    ahead: usize,
    caps: &Caps,
) -> Result<Vec<[Range<usize>; 2]>, Unfit> {
    let mut windows = Vec::new();
    let mut first = 0;
    while first < x.rows {
        let from = first.saturating_sub(behind);
        let held = from.saturating_add(x.reach(from, caps)?);
        let mut end = if held >= x.rows { x.rows } else { held - ahead.min(held) };
        for mat in others {
            end = end.min(first.saturating_add(mat.reach(first, caps)?));
        }
        if end <= first {
            let bytes = 4 * ((behind + ahead) * x.stride + x.cols);
            return Err(Unfit::Row { bytes, limit: caps.binding });
        }
        windows.push([from..(end + ahead).min(x.rows), first..end]);
        first = end;
    }
    Ok(windows)
}
