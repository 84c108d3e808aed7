//! Writes the text of one shader, with the values of its parameters and what it is bound to.

use super::{Caps, Mat};
use std::fmt::Write;

/// A shader that is run.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    pub name: &'static str,
    /// WGSL: binding 0 are the parameters, those behind it `binds` in order.
    pub text: String,
    pub binds: Vec<Mat>,
    pub params: Vec<u32>,
    /// What the text calls f16 is bf16.
    pub bf16: bool,
    /// The last binding is where it tells that it took more rounds than the device allows.
    pub counts: bool,
    /// Workgroups in x and in y.
    pub groups: [u32; 2],
}

/// The text of a shader as it comes about. In its body are `group`, the workgroup's number, `lane`, the
/// invocation's number in its workgroup, `p`, the parameters, and for a matrix bound as `x` the functions
/// `x(r, c)` and, where it is written, `set_x(r, c, value)`, in rows and columns of the matrix.
pub struct Source {
    name: &'static str,
    /// Invocations of a workgroup.
    lanes: usize,
    fields: Vec<(String, &'static str)>,
    params: Vec<u32>,
    binds: Vec<(&'static str, Mat, bool)>,
    head: String,
    enables: Vec<&'static str>,
    bf16: bool,
    declarations: String,
    body: String,
}

impl Source {
    pub fn new(name: &'static str, lanes: usize) -> Source {
        Source {
            name,
            lanes,
            fields: Vec::new(),
            params: Vec::new(),
            binds: Vec::new(),
            head: String::new(),
            enables: Vec::new(),
            bf16: false,
            declarations: String::new(),
            body: String::new(),
        }
    }

    /// `enable NAME;`
    pub fn enable(mut self, name: &'static str) -> Source {
        self.enables.push(name);
        self
    }

    /// What the text calls f16 is bf16: such numbers are loaded, stored and multiplied in matrices, and nothing else.
    pub fn bf16(self, bf16: bool) -> Source {
        Source { bf16, ..self }
    }

    pub fn read(self, name: &'static str, mat: &Mat) -> Source {
        self.bind(name, mat, false)
    }

    pub fn write(self, name: &'static str, mat: &Mat) -> Source {
        self.bind(name, mat, true)
    }

    fn bind(mut self, name: &'static str, mat: &Mat, writes: bool) -> Source {
        self = self.u32(format!("{name}_at"), 0).u32(format!("{name}_stride"), mat.stride);
        self.binds.push((name, mat.clone(), writes));
        self
    }

    pub fn u32(mut self, name: impl Into<String>, value: usize) -> Source {
        debug_assert!(u32::try_from(value).is_ok(), "a binding reaches less");
        self.fields.push((name.into(), "u32"));
        self.params.push(u32::try_from(value).unwrap_or(u32::MAX));
        self
    }

    pub fn f32(mut self, name: impl Into<String>, value: f64) -> Source {
        self.fields.push((name.into(), "f32"));
        self.params.push((value as f32).to_bits());
        self
    }

    /// A number that is part of the text: loops over it are unrolled, memory is sized by it.
    pub fn constant(mut self, name: &str, value: usize) -> Source {
        let _ = writeln!(self.head, "const {name} = {value}u;");
        self
    }

    /// An array that the workgroup shares.
    pub fn shared(mut self, name: &str, elem: &str, len: usize) -> Source {
        let _ = writeln!(self.head, "var<workgroup> {name}: array<{elem}, {len}>;");
        self
    }

    /// Functions that the body calls.
    pub fn with(mut self, functions: &str) -> Source {
        let functions = functions.trim_matches('\n');
        if !self.declarations.contains(functions) {
            let _ = writeln!(self.declarations, "{functions}");
        }
        self
    }

    pub fn body(mut self, body: &str) -> Source {
        self.body.push_str(body.trim_matches('\n'));
        self.body.push('\n');
        self
    }

    pub(super) fn dispatch(mut self, groups: usize, caps: &Caps) -> Dispatch {
        let (across, down) = (groups.min(caps.groups), groups.div_ceil(caps.groups));
        self = self.u32("groups", groups);
        let aligned = (caps.alignment / 4).max(1);
        for (name, mat, _) in &self.binds {
            let at = self.fields.iter().position(|(field, _)| *field == format!("{name}_at"));
            if let Some(at) = at {
                let in_page = mat.at.checked_rem(mat.page).unwrap_or(mat.at);
                self.params[at] = (in_page % (aligned / mat.elem.words()).max(1)) as u32;
            }
        }
        let text = self.text(caps);
        Dispatch {
            name: self.name,
            text,
            binds: self.binds.into_iter().map(|(_, mat, _)| mat).collect(),
            params: self.params,
            bf16: self.bf16,
            counts: caps.rounds.is_some(),
            groups: [across as u32, down as u32],
        }
    }

    fn text(&self, caps: &Caps) -> String {
        let mut text = String::new();
        for enable in &self.enables {
            let _ = writeln!(text, "enable {enable};");
        }
        let _ = writeln!(text, "struct Params {{");
        for (name, kind) in &self.fields {
            let _ = writeln!(text, "    {name}: {kind},");
        }
        let _ = writeln!(text, "}}\n@group(0) @binding(0) var<uniform> p: Params;");
        for (i, (name, mat, _)) in self.binds.iter().enumerate() {
            let access = if mat.memory.is_written() { "read_write" } else { "read" };
            let elem = mat.elem.wgsl();
            let _ = writeln!(
                text,
                "@group(0) @binding({}) var<storage, {access}> {name}_data: array<{elem}>;",
                i + 1
            );
        }
        text.push_str(&self.head);
        for (name, mat, writes) in &self.binds {
            let (elem, place) =
                (mat.elem.wgsl(), format!("{name}_data[p.{name}_at + r * p.{name}_stride + c]"));
            let _ = writeln!(text, "fn {name}(r: u32, c: u32) -> {elem} {{ return {place}; }}");
            if *writes {
                let _ = writeln!(text, "fn set_{name}(r: u32, c: u32, value: {elem}) {{ {place} = value; }}");
            }
        }
        let body = format!("    if (group >= p.groups) {{ return; }}\n{}", self.body);
        let entry = format!(
            "@compute @workgroup_size({})\nfn main(@builtin(workgroup_id) workgroup: vec3<u32>, \
             @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{\n    \
             let group = workgroup.x + workgroup.y * workgroups.x;\n",
            self.lanes
        );
        let _ = match caps.rounds {
            None => writeln!(text, "{}{entry}{body}}}", self.declarations),
            Some(most) => writeln!(
                text,
                "@group(0) @binding({}) var<storage, read_write> spent: atomic<u32>;\nvar<private> rounds: u32;\n\
                 {}fn run(group: u32, lane: u32) {{\n{}}}\n{entry}    run(group, lane);\n    if (rounds >= {most}u) \
                 {{ atomicMax(&spent, rounds); }}\n}}",
                self.binds.len() + 1,
                counted(&self.declarations),
                counted(&body)
            ),
        };
        text
    }
}

/// The same text with every round of its loops counted.
fn counted(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = ["for (", "while ("].iter().filter_map(|word| rest.find(word)).min() {
        let (mut open, mut end) = (0, rest.len());
        for (i, c) in rest[at..].char_indices() {
            match c {
                '(' => open += 1,
                ')' => open -= 1,
                '{' if open == 0 => {
                    end = at + i + 1;
                    break;
                }
                _ => {}
            }
        }
        out.push_str(&rest[..end]);
        out.push_str(" rounds++;");
        rest = &rest[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn every_loop_is_counted() {
        let text = "for (var i = f(0u); i < 3u; i++) { g(); while (h(x)) { } }\nif (a) { }";
        let expected =
            "for (var i = f(0u); i < 3u; i++) { rounds++; g(); while (h(x)) { rounds++; } }\nif (a) { }";
        assert_eq!(counted(text), expected);
    }
}
