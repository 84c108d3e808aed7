//! Products of matrices, c = a b (+ bias) (+ what is there), each factor as it lies or transposed.

use super::common::{self, TOTAL};
use super::half::{self, Precision};
use super::{Mat, Plan, Source, Unfit, cuts};
use std::ops::Range;

/// A factor of a product.
#[derive(Clone, Debug)]
pub struct Factor {
    mat: Mat,
    transposed: bool,
}

impl Factor {
    /// The matrix as it lies.
    pub fn of(mat: &Mat) -> Factor {
        Factor { mat: mat.clone(), transposed: false }
    }

    pub fn transposed(mat: &Mat) -> Factor {
        Factor { mat: mat.clone(), transposed: true }
    }

    pub(super) fn mat(&self) -> &Mat {
        &self.mat
    }

    pub(super) fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// The transpose.
    fn turned(&self) -> Factor {
        Factor { mat: self.mat.clone(), transposed: !self.transposed }
    }

    pub(super) fn rows(&self) -> usize {
        if self.transposed { self.mat.cols } else { self.mat.rows }
    }

    pub(super) fn cols(&self) -> usize {
        if self.transposed { self.mat.rows } else { self.mat.cols }
    }

    fn block(&self, rows: &Range<usize>, cols: &Range<usize>) -> Factor {
        let (r, c) = if self.transposed { (cols, rows) } else { (rows, cols) };
        Factor { mat: self.mat.rows(r.clone()).columns(c.start, c.len()), ..*self }
    }

    /// How a shader reads element (i, j) of the factor `name`.
    fn element(&self, name: &str, i: &str, j: &str) -> String {
        if self.transposed { format!("{name}({j}, {i})") } else { format!("{name}({i}, {j})") }
    }
}

/// What a product is added to.
#[derive(Clone, Debug, Default)]
pub struct Onto<'a> {
    /// One row.
    pub bias: Option<&'a Mat>,
    /// Of the shape of the product; it may be where the product goes.
    pub sum: Option<&'a Mat>,
}

/// c = a b + onto. Inner dimensions that no binding holds are cut, and added up in order.
pub fn product(plan: &mut Plan, a: &Factor, b: &Factor, c: &Mat, onto: Onto) -> Result<(), Unfit> {
    let (m, n, k) = (c.rows, c.cols, a.cols());
    debug_assert!((a.rows(), b.rows(), b.cols()) == (m, k, n), "factors that do not fit");
    if plan.precision != Precision::F32 {
        return plan.for_a_while(|plan| halved(plan, a, b, c, onto));
    }
    let caps = plan.caps;
    let (mut of_rows, mut of_cols, mut of_depth): (Vec<&Mat>, Vec<&Mat>, Vec<&Mat>) =
        (vec![c], Vec::new(), Vec::new());
    of_rows.extend(onto.sum);
    if a.transposed {
        of_depth.push(&a.mat)
    } else {
        of_rows.push(&a.mat)
    }
    if b.transposed {
        of_cols.push(&b.mat)
    } else {
        of_depth.push(&b.mat)
    }
    let rows = cuts(&of_rows, m, TILE, caps)?;
    let cols = cuts(&of_cols, n, TILE, caps)?;
    let most = caps.rounds.map_or(usize::MAX, |most| most / 2);
    let depths = cuts(&of_depth, k, TILE, caps)?.into_iter().flat_map(|piece| split(piece, most));
    let depths: Vec<Range<usize>> = depths.collect();
    for (i, depth) in depths.iter().enumerate() {
        for rows in &rows {
            for cols in &cols {
                let within = |mat: &Mat| mat.rows(rows.clone()).columns(cols.start, cols.len());
                let (a, b, c) = (a.block(rows, depth), b.block(depth, cols), within(c));
                let sum = if i > 0 { Some(c.clone()) } else { onto.sum.map(within) };
                let bias =
                    onto.bias.filter(|_| i == 0).map(|bias| bias.flat().columns(cols.start, cols.len()));
                one(plan, &a, &b, &c, bias.as_ref(), sum.as_ref());
            }
        }
    }
    Ok(())
}

/// A range in pieces of at most so many.
fn split(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(most).map(move |first| first..end.min(first.saturating_add(most)))
}

/// The same of factors that are rounded to 16 bits first.
fn halved(plan: &mut Plan, a: &Factor, b: &Factor, c: &Mat, onto: Onto) -> Result<(), Unfit> {
    let (a, b) = (half::pack(plan, a)?, half::pack(plan, &b.turned())?);
    // Pieces of packed factors are whole tiles, whatever of the last one is used.
    for rows in cuts(&[&a.data], a.data.rows, half::ROWS, plan.caps)? {
        for cols in cuts(&[&b.data], b.data.rows, half::ROWS, plan.caps)? {
            let (b, cols) = (b.rows(cols.clone()), cols.start..cols.end.min(c.cols));
            let bias = onto.bias.map(|bias| bias.flat().columns(cols.start, cols.len()));
            let within =
                |mat: &Mat| mat.rows(rows.start..rows.end.min(c.rows)).columns(cols.start, cols.len());
            let (c, sum) = (within(c), onto.sum.map(within));
            let of_rows: Vec<&Mat> = [&c].into_iter().chain(&sum).collect();
            for piece in cuts(&of_rows, c.rows, half::ROWS, plan.caps)? {
                let a = a.rows(rows.start + piece.start..rows.end);
                let sum = sum.as_ref().map(|sum| sum.rows(piece.clone()));
                let beside: Vec<(&str, &Mat)> =
                    bias.iter().map(|mat| ("bias", mat)).chain(sum.iter().map(|mat| ("sum", mat))).collect();
                let value = value("acc", bias.is_some(), sum.is_some());
                half::multiply(plan, &a, &b, &c.rows(piece), &beside, &value);
            }
        }
    }
    Ok(())
}

/// What is written of a sum: with what it is added to.
fn value(acc: &str, bias: bool, sum: bool) -> String {
    let parts = [acc, if bias { " + bias(0u, n)" } else { "" }, if sum { " + sum(m, n)" } else { "" }];
    parts.concat()
}

/// Rows and columns of the value that one workgroup computes.
pub(super) const TILE: usize = 64;

fn one(plan: &mut Plan, a: &Factor, b: &Factor, c: &Mat, bias: Option<&Mat>, sum: Option<&Mat>) {
    let tiles = |tile: usize| c.rows.div_ceil(tile) * c.cols.div_ceil(tile);
    let begin = |name, lanes| {
        let source = Source::new(name, lanes).read("a", &a.mat).read("b", &b.mat).write("c", c);
        let source = source.u32("rows", c.rows).u32("cols", c.cols).u32("depth", a.cols());
        let source = bias.into_iter().fold(source, |source, bias| source.read("bias", bias));
        sum.into_iter().fold(source, |source, sum| source.read("sum", sum))
    };
    let value = value("acc[i][j]", bias.is_some(), sum.is_some());
    let is_thin = c.rows <= THIN && !a.transposed && b.transposed;
    if plan.caps.software {
        let source = begin("product_direct", LANES).body(&direct(a, b, &value));
        plan.run(source, c.rows.div_ceil(BLOCK) * c.cols.div_ceil(BLOCK * LANES));
    } else if is_thin {
        let value = self::value("whole", bias.is_some(), sum.is_some());
        let source = begin("product_thin", common::LANES).constant("ROWS", c.rows).with(TOTAL);
        plan.run(source.shared("totals", "f32", common::LANES).body(&thin(&value)), c.cols);
    } else {
        let elements = [a.element("a", "m", "k"), b.element("b", "k", "n")];
        let side_by_side = [!a.transposed, b.transposed];
        let body = tiled(side_by_side, [&elements[0], &elements[1]], "p.depth", &value);
        plan.run(begin("product_tiled", 256).tiles().body(&body), tiles(TILE));
    }
}

/// Most rows of a value that is multiplied column by column.
const THIN: usize = 8;

/// A workgroup for each column, whose row of the weight lies side by side: with few rows it is read once, by as many
/// workgroups as there are columns.
fn thin(value: &str) -> String {
    format!(
        "    let n = group;
    var acc: array<f32, ROWS>;
    for (var k = lane; k < p.depth; k += {lanes}u) {{
        let weight = b(n, k);
        for (var m = 0u; m < ROWS; m++) {{ acc[m] += a(m, k) * weight; }}
    }}
    for (var m = 0u; m < ROWS; m++) {{
        let whole = total(acc[m], lane);
        if (lane == 0u) {{ set_c(m, n, {value}); }}
    }}\n",
        lanes = common::LANES
    )
}

/// Rows and columns of one invocation.
const BLOCK: usize = 8;
/// Invocations of a workgroup that shares nothing: a vector of the processor.
const LANES: usize = 8;

/// Every invocation multiplies a block of rows with columns that lie side by side across the workgroup, straight from
/// memory: where workgroup memory is memory like any other, that is fastest.
fn direct(a: &Factor, b: &Factor, value: &str) -> String {
    let mut text = format!(
        "    let across = (p.cols + {w}u) / {t}u;
    let m0 = (group / across) * {BLOCK}u;
    let n0 = (group % across) * {t}u + lane;
    var acc: array<array<f32, {BLOCK}>, {BLOCK}>;\n",
        t = BLOCK * LANES,
        w = BLOCK * LANES - 1,
    );
    for i in 0..BLOCK {
        text += &format!("    let m{i}_ = min(m0 + {i}u, p.rows - 1u);\n");
    }
    for j in 0..BLOCK {
        text += &format!("    let n{j}_ = min(n0 + {}u, p.cols - 1u);\n", j * LANES);
    }
    text += "    for (var k = 0u; k < p.depth; k++) {\n";
    for j in 0..BLOCK {
        text += &format!("        let b{j} = {};\n", b.element("b", "k", &format!("n{j}_")));
    }
    for i in 0..BLOCK {
        text += &format!("        let a{i} = {};\n", a.element("a", &format!("m{i}_"), "k"));
        for j in 0..BLOCK {
            text += &format!("        acc[{i}][{j}] += a{i} * b{j};\n");
        }
    }
    text += &format!(
        "    }}
    for (var i = 0u; i < {BLOCK}u; i++) {{
        for (var j = 0u; j < {BLOCK}u; j++) {{
            let m = m0 + i;
            let n = n0 + j * {LANES}u;
            if (m < p.rows && n < p.cols) {{ set_c(m, n, {value}); }}
        }}
    }}\n"
    );
    text
}

/// Inner dimension of a tile.
const DEPTH: usize = 16;

impl Source {
    /// The memory of [`tiled`].
    pub(super) fn tiles(self) -> Source {
        let len = DEPTH * (TILE + 1);
        self.shared("tile_a", "f32", len).shared("tile_b", "f32", len)
    }
}

/// A workgroup of 256 multiplies tiles of both factors that it has put into its memory, 4 x 4 elements an invocation.
/// `elements` are (m, k) of a and (k, n) of b; the inner dimension lies side by side in memory where `along_depth` says so.
pub(super) fn tiled(along_depth: [bool; 2], elements: [&str; 2], depth: &str, value: &str) -> String {
    // Invocations that are neighbours read what lies side by side.
    let place = |along: bool| if along { ("x / 16u", "x % 16u") } else { ("x % 64u", "x / 64u") };
    let ((a_m, a_k), (b_n, b_k)) = (place(along_depth[0]), place(along_depth[1]));
    let [load_a, load_b] = elements;
    let pad = TILE + 1;
    format!(
        "    let across = (p.cols + 63u) / 64u;
    let m0 = (group / across) * 64u;
    let n0 = (group % across) * 64u;
    let row = (lane / 16u) * 4u;
    let col = lane % 16u;
    var acc: array<array<f32, 4>, 4>;
    for (var k0 = 0u; k0 < {depth}; k0 += 16u) {{
        for (var t = 0u; t < 4u; t++) {{
            let x = lane + t * 256u;
            let i = {a_m};
            let ki = {a_k};
            let m = m0 + i;
            var k = k0 + ki;
            var value_a = 0.0;
            if (m < p.rows && k < {depth}) {{ value_a = {load_a}; }}
            tile_a[ki * {pad}u + i] = value_a;
            let j = {b_n};
            let kj = {b_k};
            let n = n0 + j;
            k = k0 + kj;
            var value_b = 0.0;
            if (n < p.cols && k < {depth}) {{ value_b = {load_b}; }}
            tile_b[kj * {pad}u + j] = value_b;
        }}
        workgroupBarrier();
        for (var k = 0u; k < 16u; k++) {{
            var part_a: array<f32, 4>;
            var part_b: array<f32, 4>;
            for (var i = 0u; i < 4u; i++) {{ part_a[i] = tile_a[k * {pad}u + row + i]; }}
            for (var j = 0u; j < 4u; j++) {{ part_b[j] = tile_b[k * {pad}u + col + j * 16u]; }}
            for (var i = 0u; i < 4u; i++) {{
                for (var j = 0u; j < 4u; j++) {{ acc[i][j] += part_a[i] * part_b[j]; }}
            }}
        }}
        workgroupBarrier();
    }}
    for (var i = 0u; i < 4u; i++) {{
        for (var j = 0u; j < 4u; j++) {{
            let m = m0 + row + i;
            let n = n0 + col + j * 16u;
            if (m < p.rows && n < p.cols) {{ set_c(m, n, {value}); }}
        }}
    }}\n"
    )
}
