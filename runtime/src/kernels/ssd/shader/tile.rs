//! Products of a chunk: a workgroup of [`LANES`] multiplies one tile of [`Q`] x [`Q`], 4 x 4 elements an invocation,
//! and keeps in its memory what it reads of the factors.

use super::Q;
use crate::shader::Source;

pub const LANES: usize = 256;
/// Inner dimension that is kept at once.
const DEPTH: usize = 16;

/// A factor of a product.
pub struct Side<'a> {
    /// Where the factor is not zero, and its value there: in i and k of the left one, in k and j of the right one.
    pub within: &'a str,
    pub value: &'a str,
    /// Elements that lie side by side are neighbours along k.
    pub deep: bool,
}

/// A shader with `acc`, the elements of a tile that an invocation has, all of them zero.
pub fn tiled(name: &'static str) -> Source {
    Source::new(name, LANES)
        .constant("Q", Q)
        .constant("LINE", Q + 1)
        .shared("lefts", "f32", DEPTH * (Q + 1))
        .shared("rights", "f32", DEPTH * (Q + 1))
        .body(
            "    let row = (lane / 16u) * 4u;
    let col = lane % 16u;
    var acc = array<array<f32, 4>, 4>();",
        )
}

/// acc += left right. Begins with a barrier, and reads nothing of the factors before it.
pub fn multiply(depth: &str, left: Side, right: Side) -> String {
    let place = |deep: bool| {
        let d = DEPTH;
        if deep { (format!("at / {d}u"), format!("at % {d}u")) } else { ("at % Q".into(), "at / Q".into()) }
    };
    let keep = |side: Side, tile: &str, across: &str| {
        let (outer, inner) = place(side.deep);
        format!(
            "let {across} = {outer};
            let k = k0 + {inner};
            var value = 0.0;
            if (k < {depth} && {within}) {{ value = {value}; }}
            {tile}[(k - k0) * LINE + {across}] = value;",
            within = side.within,
            value = side.value
        )
    };
    format!(
        "
    for (var k0 = 0u; k0 < {depth}; k0 += {DEPTH}u) {{
        workgroupBarrier();
        for (var at = lane; at < {DEPTH}u * Q; at += {LANES}u) {{
            {{ {left} }}
            {{ {right} }}
        }}
        workgroupBarrier();
        for (var k = 0u; k < {DEPTH}u; k++) {{
            var left: array<f32, 4>;
            var right: array<f32, 4>;
            for (var m = 0u; m < 4u; m++) {{ left[m] = lefts[k * LINE + row + m]; }}
            for (var n = 0u; n < 4u; n++) {{ right[n] = rights[k * LINE + col + n * 16u]; }}
            for (var m = 0u; m < 4u; m++) {{
                for (var n = 0u; n < 4u; n++) {{ acc[m][n] += left[m] * right[n]; }}
            }}
        }}
    }}",
        left = keep(left, "lefts", "i"),
        right = keep(right, "rights", "j"),
    )
}

/// Does something for every element (i, j) of an invocation; it is `acc[m][n]`.
pub fn each(what: &str) -> String {
    format!(
        "
    for (var m = 0u; m < 4u; m++) {{
        let i = row + m;
        for (var n = 0u; n < 4u; n++) {{
            let j = col + n * 16u;
            {what}
        }}
    }}"
    )
}
