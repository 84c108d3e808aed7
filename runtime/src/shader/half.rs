//! Products of 16-bit factors with f32 sums: on cooperative matrices where the device has them, and their scalar twin.
//!
//! A factor is packed first: rows of the product outermost, the inner dimension along the rows, both filled up
//! with zeros to whole tiles. f16 reaches from 2^-24 to 65504 only, so a factor is multiplied by a power of two that
//! brings its largest magnitude near 2^14, and the sums are divided by it again: both are exact, gradients however
//! small keep their digits, and squares of activations do not overflow. bf16 has f32's range and needs none of it.

use super::common;
use super::product::{TILE, tiled};
use super::{Caps, Elem, Factor, Mat, Memory, Packing, Plan, Source, Unfit, cuts, page_of};

/// How the factors of products are rounded. Sums and everything else are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    #[default]
    F32,
    F16,
    Bf16,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
        }
    }
}

/// Rows of a tile of a packed factor.
pub const ROWS: usize = 128;
/// Its inner dimension.
const DEPTH: usize = 32;

/// A packed factor, and one number that its products are multiplied by.
#[derive(Clone, Debug)]
pub struct Packed {
    pub data: Mat,
    pub scale: Mat,
}

impl Packed {
    pub fn rows(&self, rows: std::ops::Range<usize>) -> Packed {
        Packed { data: self.data.rows(rows), scale: self.scale.clone() }
    }
}

/// Makes a packed weight: run once, before what reads it.
#[derive(Clone, Debug)]
pub struct Preparation {
    pub packing: Packing,
    pub dispatches: Vec<super::Dispatch>,
    /// Words of the packed weight, and those of its rows.
    pub words: usize,
    pub row: usize,
    pub scratch: usize,
}

/// Where the parts of a [`Preparation`] lie for its own dispatches.
pub const MADE: [Memory; 2] = [Memory::Result(0), Memory::Result(1)];

/// Packs a factor whose element (i, k) is that of the product's row i and inner place k. What is of a weight is packed
/// once, and kept.
pub fn pack(plan: &mut Plan, factor: &Factor) -> Result<Packed, Unfit> {
    let (rows, depth) = (factor.rows().next_multiple_of(ROWS), factor.cols().next_multiple_of(DEPTH));
    let mat = factor.mat();
    let Memory::Weight(weight) = &mat.memory else {
        let packed =
            Packed { data: plan.scratch(Elem::Half2, rows, depth / 2), scale: plan.scratch(Elem::F32, 1, 1) };
        fill(plan, factor, &packed)?;
        return Ok(packed);
    };
    let of = [mat.at, mat.rows, mat.cols];
    let packing = Packing { weight: weight.clone(), transposed: factor.is_transposed(), of };
    let place =
        |memory, elem, rows, cols: usize| Mat::new(memory, elem, 0, rows, cols, cols).paged(page_of(cols));
    let packed = |data, scale| Packed {
        data: place(data, Elem::Half2, rows, depth / 2),
        scale: place(scale, Elem::F32, 1, 1),
    };
    if !plan.prepared.iter().any(|p| p.packing == packing) {
        let [data, scale] = MADE;
        let mut own = Plan::new(plan.caps).rounding(plan.precision);
        fill(&mut own, factor, &packed(data, scale))?;
        plan.prepared.push(Preparation {
            packing: packing.clone(),
            words: rows * depth / 2,
            row: depth / 2,
            scratch: own.scratch,
            dispatches: own.dispatches,
        });
    }
    Ok(packed(Memory::Packed(packing.clone()), Memory::Scale(packing)))
}

/// Elements that one workgroup looks at for the largest magnitude.
const SHARE: usize = 1 << 13;
const LANES: usize = 256;
/// Neighbours of the inner dimension that one invocation packs.
const EIGHT: usize = 8;

fn fill(plan: &mut Plan, factor: &Factor, to: &Packed) -> Result<(), Unfit> {
    let mat = factor.mat();
    let pieces = cuts(&[mat], mat.rows, EIGHT, plan.caps)?;
    // Where rows lie along the inner dimension, an invocation packs eight of them.
    let parts = pieces.iter().any(|piece| piece.end < mat.rows && !piece.len().is_multiple_of(EIGHT));
    if factor.is_transposed() && parts {
        return Err(Unfit::Tile { bytes: 4 * mat.stride });
    }
    let groups = |rows: usize| (rows * mat.cols).div_ceil(SHARE);
    let all = if plan.precision == Precision::F16 { pieces.iter().map(|p| groups(p.len())).sum() } else { 0 };
    let most = plan.scratch(Elem::F32, 1, all.max(1));
    let mut first = 0;
    for piece in pieces.iter().filter(|_| all > 0) {
        let count = piece.len() * mat.cols;
        let source = Source::new("largest", LANES)
            .read("x", &mat.rows(piece.clone()))
            .write("most", &most.columns(first, groups(piece.len())))
            .u32("cols", mat.cols)
            .u32("count", count)
            .shared("found", "f32", LANES)
            .body(&format!(
                "    var largest = 0.0;
    let end = min(p.count, (group + 1u) * {SHARE}u);
    for (var at = group * {SHARE}u + lane; at < end; at += {LANES}u) {{
        largest = max(largest, abs(x(at / p.cols, at % p.cols)));
    }}
    found[lane] = largest;
    workgroupBarrier();
    for (var half = {h}u; half > 0u; half /= 2u) {{
        if (lane < half) {{ found[lane] = max(found[lane], found[lane + half]); }}
        workgroupBarrier();
    }}
    if (lane == 0u) {{ set_most(0u, group, found[0]); }}",
                h = LANES / 2
            ));
        plan.run(source, groups(piece.len()));
        first += groups(piece.len());
    }
    // The inverse of a power of two, 1 where there is nothing to scale, and where it would be no number.
    let source = Source::new("scale", common::LANES)
        .read("found", &most)
        .write("scale", &to.scale)
        .u32("count", all)
        .shared("totals", "f32", common::LANES)
        .with(common::MOST)
        .body(
            "    var x = 0.0;
    for (var i = lane; i < p.count; i += 64u) { x = max(x, found(0u, i)); }
    let exponent = (bitcast<u32>(most(x, lane)) >> 23u) & 255u;
    var scale = 1.0;
    if (exponent > 0u && exponent < 255u) { scale = bitcast<f32>(clamp(exponent, 15u, 239u) - 14u << 23u); }
    if (lane == 0u) { set_scale(0u, 0u, scale); }",
        );
    plan.run(source, 1);
    for piece in pieces {
        // Rows of the matrix are rows of the factor, or places along its inner dimension.
        let whole = piece.end == mat.rows;
        let (rows, depth) = (to.data.rows, 2 * to.data.cols);
        let end = |filled: usize| if whole { filled } else { piece.end };
        let (rows, depth) = match factor.is_transposed() {
            true => (0..rows, piece.start..end(depth)),
            false => (piece.start..end(rows), 0..depth),
        };
        for out in cuts(&[&to.data.rows(rows.clone())], rows.len(), 1, plan.caps)? {
            let rows = rows.start + out.start..rows.start + out.end;
            let source = Source::new("pack", 64)
                .read("x", &mat.rows(piece.clone()))
                .read("scale", &to.scale)
                .write("out", &to.data.rows(rows.clone()).columns(depth.start / 2, depth.len() / 2))
                .u32("rows", rows.len())
                .u32("across", depth.len() / 8)
                // Of the source, from the first row of the piece on.
                .u32("first", if factor.is_transposed() { rows.start } else { rows.start - piece.start })
                .u32("filled_rows", if factor.is_transposed() { mat.cols } else { piece.len() })
                .u32("filled_depth", if factor.is_transposed() { piece.len() } else { mat.cols });
            let count = rows.len() * (depth.len() / 8);
            plan.run(
                source.u32("count", count).with(round(plan.precision)).body(&packing_body(factor)),
                count.div_ceil(64),
            );
        }
    }
    Ok(())
}

/// Every invocation packs eight neighbours of the inner dimension. Neighbouring invocations read what lies side by side.
fn packing_body(factor: &Factor) -> String {
    let (r, k, element) = match factor.is_transposed() {
        true => ("at % p.rows", "at / p.rows", "x(k, r)"),
        false => ("at / p.across", "at % p.across", "x(r, k)"),
    };
    format!(
        "    let at = group * 64u + lane;
    if (at >= p.count) {{ return; }}
    let row = {r};
    let eight = {k};
    let r = row + p.first;
    for (var pair = 0u; pair < 4u; pair++) {{
        var two = vec2(0.0, 0.0);
        for (var i = 0u; i < 2u; i++) {{
            let k = eight * 8u + pair * 2u + i;
            if (r < p.filled_rows && k < p.filled_depth) {{ two[i] = {element}; }}
        }}
        set_out(row, eight * 4u + pair, rounded(two / scale(0u, 0u)));
    }}"
    )
}

/// `rounded(two)`: two f32 as two halves of a word, to the nearest, of equals to the even one.
fn round(precision: Precision) -> &'static str {
    match precision {
        Precision::Bf16 => {
            "
fn rounded(two: vec2<f32>) -> u32 {
    var bits = bitcast<vec2<u32>>(two);
    // What is no number stays none.
    let nan = vec2<bool>((bits.x & 0x7fffffffu) > 0x7f800000u, (bits.y & 0x7fffffffu) > 0x7f800000u);
    bits = select(bits + 0x7fffu + ((bits >> vec2(16u)) & vec2(1u)), bits | vec2(0x400000u), nan);
    return (bits.x >> 16u) | (bits.y & 0xffff0000u);
}"
        }
        _ => "\nfn rounded(two: vec2<f32>) -> u32 { return pack2x16float(two); }",
    }
}

/// `halves(word)`: the two numbers of a word.
fn widen(precision: Precision) -> &'static str {
    match precision {
        Precision::Bf16 => {
            "
fn halves(word: u32) -> vec2<f32> { return bitcast<vec2<f32>>(vec2(word << 16u, word & 0xffff0000u)); }"
        }
        _ => "\nfn halves(word: u32) -> vec2<f32> { return unpack2x16float(word); }",
    }
}

/// c = a b^T of packed factors. `value` is what is written, from `acc`.
pub fn multiply(
    plan: &mut Plan,
    a: &Packed,
    b: &Packed,
    c: &Mat,
    beside: &[(&'static str, &Mat)],
    value: &str,
) {
    let begin = |name, lanes, elem: Elem| {
        let per = elem.words();
        let of = |mat: &Mat| Mat {
            elem,
            at: mat.at / per,
            cols: mat.cols / per,
            stride: mat.stride / per,
            page: mat.page / per,
            ..mat.clone()
        };
        let source = Source::new(name, lanes)
            .read("a", &of(&a.data))
            .read("b", &of(&b.data))
            .read("scale_a", &a.scale)
            .read("scale_b", &b.scale)
            .write("c", c)
            .u32("rows", c.rows)
            .u32("cols", c.cols)
            .u32("depth", a.data.cols / per);
        beside.iter().fold(source, |source, (name, mat)| source.read(name, mat))
    };
    if is_cooperative(plan.caps, plan.precision) {
        let source = begin("product_cooperative", COOPERATIVE_LANES, Elem::Half4).enable("f16");
        let (source, matrices) = match plan.caps.emulated {
            true => (source.with(&format!("const LD = {LD}u;{EMULATED}")), &EMULATION),
            false => (source.enable("wgpu_cooperative_matrix"), &COOPERATIVE),
        };
        let source = source
            .bf16(plan.precision == Precision::Bf16)
            .shared("tile_a", "vec4<f16>", 2 * ROWS * LD)
            .shared("tile_b", "vec4<f16>", 2 * ROWS * LD)
            .shared("done", "f32", WARPS * 256)
            .body(&cooperative(matrices, value));
        plan.run(source, c.rows.div_ceil(ROWS) * c.cols.div_ceil(ROWS));
    } else if plan.caps.software {
        let source =
            begin("product_halves", 64, Elem::Half2).with(widen(plan.precision)).body(&scalar(value));
        plan.run(source, c.rows.div_ceil(4) * c.cols.div_ceil(256));
    } else {
        let source = begin("product_halves_tiled", 256, Elem::Half2).with(widen(plan.precision));
        let elements = ["halves(a(m, k / 2u))[k % 2u]", "halves(b(n, k / 2u))[k % 2u]"];
        let value = value.replace("acc", "acc[i][j] * scale");
        let body = tiled([true, true], elements, "2u * p.depth", &value);
        let source = source.tiles().body("    let scale = scale_a(0u, 0u) * scale_b(0u, 0u);").body(&body);
        plan.run(source, c.rows.div_ceil(TILE) * c.cols.div_ceil(TILE));
    }
}

/// Whether products of this precision run on cooperative matrices.
pub fn is_cooperative(caps: &Caps, precision: Precision) -> bool {
    let shapes = match precision {
        Precision::F32 => return false,
        Precision::F16 => &caps.cooperative,
        Precision::Bf16 => &caps.cooperative_bf16,
    };
    caps.subgroup == (32, 32)
        && shapes.contains(&[16, 16, 16])
        && caps.workgroup_memory >= MEMORY
        && caps.invocations >= COOPERATIVE_LANES
}

/// Four rows and four columns an invocation, the columns of a workgroup side by side.
fn scalar(value: &str) -> String {
    format!(
        "    let across = (p.cols + 255u) / 256u;
    let m0 = (group / across) * 4u;
    let n0 = (group % across) * 256u + lane;
    let scale = scale_a(0u, 0u) * scale_b(0u, 0u);
    var sums: array<array<f32, 4>, 4>;
    var at: array<u32, 4>;
    for (var j = 0u; j < 4u; j++) {{ at[j] = min(n0 + j * 64u, p.cols - 1u); }}
    for (var k = 0u; k < p.depth; k++) {{
        var x: array<vec2<f32>, 4>;
        for (var j = 0u; j < 4u; j++) {{ x[j] = halves(b(at[j], k)); }}
        for (var i = 0u; i < 4u; i++) {{
            let y = halves(a(min(m0 + i, p.rows - 1u), k));
            for (var j = 0u; j < 4u; j++) {{ sums[i][j] += y.x * x[j].x + y.y * x[j].y; }}
        }}
    }}
    for (var i = 0u; i < 4u; i++) {{
        for (var j = 0u; j < 4u; j++) {{
            let m = m0 + i;
            let n = n0 + j * 64u;
            if (m < p.rows && n < p.cols) {{
                let acc = sums[i][j] * scale;
                set_c(m, n, {value});
            }}
        }}
    }}"
    )
}

/// Subgroups of 32 of a workgroup: 2 rows of them and 4 columns, each with 4 x 2 tiles of 16 x 16.
const WARPS: usize = 8;
const COOPERATIVE_LANES: usize = 32 * WARPS;
/// vec4<f16> from one row of a tile in workgroup memory to the next: padded, so that rows begin in different banks.
const LD: usize = DEPTH / 4 + 2;
/// Bytes of workgroup memory: two tiles of each factor, and a tile of sums of every subgroup. 48 KiB.
const MEMORY: usize = 2 * 2 * ROWS * LD * 8 + WARPS * 256 * 4;

/// How matrices of 16 x 16 are written: those of a subgroup, or the same as arithmetic of 32 invocations.
struct Matrices {
    zero: &'static str,
    /// A matrix of the tile of a, rows `LD` apart, and one of the tile of b, columns so far apart, from a place on.
    a: fn(&str) -> String,
    b: fn(&str) -> String,
    /// sum + a b
    add: fn(&str, &str, &str) -> String,
    /// Puts a sum into `done`, row by row.
    store: fn(&str) -> String,
}

/// `coopLoadT` and `coopStoreT` are row-major, `coopLoad` column-major.
const COOPERATIVE: Matrices = Matrices {
    zero: "coop_mat16x16<f32, C>()",
    a: |at| format!("coopLoadT<coop_mat16x16<f16, A>>(&tile_a[{at}], {LD}u)"),
    b: |at| format!("coopLoad<coop_mat16x16<f16, B>>(&tile_b[{at}], {LD}u)"),
    add: |a, b, sum| format!("coopMultiplyAdd({a}, {b}, {sum})"),
    store: |sum| format!("coopStoreT({sum}, &done[own], 16u);"),
};

const EMULATION: Matrices = Matrices {
    zero: "array<f32, 8>()",
    a: |at| at.into(),
    b: |at| at.into(),
    add: |a, b, sum| format!("multiply_add({a}, {b}, {sum}, lane % 32u)"),
    store: |sum| format!("store({sum}, own, lane % 32u);"),
};

/// Every invocation has half a row of a sum.
const EMULATED: &str = "
fn multiply_add(a: u32, b: u32, sum: array<f32, 8>, lane: u32) -> array<f32, 8> {
    var next = sum;
    for (var e = 0u; e < 8u; e++) {
        let column = lane % 2u * 8u + e;
        for (var k = 0u; k < 4u; k++) {
            next[e] += dot(vec4<f32>(tile_a[a + lane / 2u * LD + k]), vec4<f32>(tile_b[b + column * LD + k]));
        }
    }
    return next;
}
fn store(sum: array<f32, 8>, own: u32, lane: u32) {
    var whole = sum;
    for (var e = 0u; e < 8u; e++) { done[own + lane * 8u + e] = whole[e]; }
}";

/// 128 x 128 elements a workgroup. While the matrix units multiply one pair of tiles, the next is on its way from memory
/// to registers. Drivers crash on subgroup operations beside cooperative matrices, so that the subgroup's number is
/// the invocation's over 32: the device has subgroups of 32, or no cooperative matrices for us.
fn cooperative(matrices: &Matrices, value: &str) -> String {
    let mut text = "    let across = (p.cols + 127u) / 128u;
    let down = (p.rows + 127u) / 128u;
    // The longer side of the value runs slowest, so that its factor comes from memory once.
    let is_wide = down < across;
    let m0 = select(group / across, group % down, is_wide) * 128u;
    let n0 = select(group % across, group / down, is_wide) * 128u;
    let warp = lane / 32u;
    let warp_m = (warp / 4u) * 64u;
    let warp_n = (warp % 4u) * 32u;
    // Of a tile every invocation brings four pieces of four: rows apart by 32.
    let row = lane / 8u;
    let piece = lane % 8u;\n"
        .to_string();
    // Everything by name: an array that is indexed may end in memory.
    let bring = |declared: &str, indent: &str, k: &str| -> String {
        let line = |(factor, first, i): (&str, &str, usize)| {
            let row = format!("{first} + row + {}u", i * 32);
            format!("{indent}{declared}next_{factor}{i} = {factor}({row}, {k}piece);\n")
        };
        (0..4).flat_map(|i| [("a", "m0", i), ("b", "n0", i)]).map(line).collect()
    };
    text += &bring("var ", "    ", "");
    for i in 0..4 {
        for j in 0..2 {
            text += &format!("    var sum_{i}{j} = {};\n", matrices.zero);
        }
    }
    text += &format!(
        "    var buffer = 0u;
    for (var k0 = 0u; k0 < p.depth; k0 += 8u) {{
        let at = (buffer * 128u + row) * {LD}u + piece;\n"
    );
    for i in 0..4 {
        for factor in ["a", "b"] {
            text += &format!("        tile_{factor}[at + {}u] = next_{factor}{i};\n", i * 32 * LD);
        }
    }
    text += &format!(
        "        workgroupBarrier();
        if (k0 + 8u < p.depth) {{\n{}        }}
        let from_a = (buffer * 128u + warp_m) * {LD}u;
        let from_b = (buffer * 128u + warp_n) * {LD}u;\n",
        bring("", "            ", "k0 + 8u + ")
    );
    for k in 0..2 {
        for j in 0..2 {
            let at = format!("from_b + {}u", j * 16 * LD + k * 4);
            text += &format!("        let b_{k}{j} = {};\n", (matrices.b)(&at));
        }
        for i in 0..4 {
            let at = format!("from_a + {}u", i * 16 * LD + k * 4);
            text += &format!("        let a_{k}{i} = {};\n", (matrices.a)(&at));
            for j in 0..2 {
                let add = (matrices.add)(&format!("a_{k}{i}"), &format!("b_{k}{j}"), &format!("sum_{i}{j}"));
                text += &format!("        sum_{i}{j} = {add};\n");
            }
        }
    }
    text += "        buffer = 1u - buffer;
    }
    let scale = scale_a(0u, 0u) * scale_b(0u, 0u);
    let own = warp * 256u;\n";
    for i in 0..4 {
        for j in 0..2 {
            text += &format!(
                "    {}
    workgroupBarrier();
    for (var e = lane % 32u; e < 256u; e += 32u) {{
        let m = m0 + warp_m + {}u + e / 16u;
        let n = n0 + warp_n + {}u + e % 16u;
        if (m < p.rows && n < p.cols) {{
            let acc = done[own + e] * scale;
            set_c(m, n, {value});
        }}
    }}
    workgroupBarrier();\n",
                (matrices.store)(&format!("sum_{i}{j}")),
                i * 16,
                j * 16
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shader::PAGE;

    /// Heads of published models, whose elements take more than one buffer.
    #[test]
    fn what_is_packed_covers_its_place_once_and_crosses_no_page() {
        let caps = Caps { binding: (1 << 31) - 4, ..Caps::least() };
        for hidden in [2048, 2560, 3072, 3136, 4096, 4480, 5120, 8192] {
            for transposed in [false, true] {
                let weight = Memory::Weight("head".into());
                let head = Mat::new(weight, Elem::F32, 0, 131_072, hidden, hidden).paged(page_of(hidden));
                let factor = if transposed { Factor::transposed(&head) } else { Factor::of(&head) };
                let mut plan = Plan::new(&caps).rounding(Precision::F16);
                let packed = pack(&mut plan, &factor).unwrap();
                let whole = &packed.data;
                assert!(whole.rows >= factor.rows() && 2 * whole.cols >= factor.cols());
                let mut covered = 0;
                for dispatch in plan.prepared[0].dispatches.iter().filter(|d| d.name == "pack") {
                    let out = &dispatch.binds[2];
                    assert_eq!(out.at % whole.stride % 4, 0, "{hidden} {transposed}");
                    assert_eq!(out.at / whole.page, (out.at + out.span() - 1) / whole.page);
                    assert!(dispatch.binds[0].span() <= caps.reach() && head.page <= PAGE);
                    covered += out.len();
                }
                assert_eq!(covered, whole.len(), "{hidden} {transposed}");
            }
        }
    }
}
