//! The gate that every shader passes before a device sees it: parsed, validated, and held against the device's limits.
//! Tests translate it, too.

use super::{Caps, Dispatch, bf16};
use naga::back::spv;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Expression, Module, Statement};

/// Why a shader may not run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("shader `{shader}`: {why}")]
pub struct Refused {
    pub shader: &'static str,
    pub why: String,
}

/// A shader that may run.
#[derive(Debug)]
pub struct Checked {
    pub module: Module,
    info: ModuleInfo,
    shader: &'static str,
    bf16: bool,
    /// Of a workgroup, by dimension.
    pub invocations: (u32, u32, u32),
}

impl Checked {
    /// SPIR-V; of bf16 where that was asked for.
    pub fn words(&self) -> Result<Vec<u32>, Refused> {
        let options = spv::Options {
            // Matrices of whole subgroups, which only this version says without being asked.
            lang_version: if self.bf16 { (1, 6) } else { (1, 3) },
            flags: spv::WriterFlags::empty(),
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: false,
            emit_int_div_checks: false,
            ..spv::Options::default()
        };
        let stage = naga::ShaderStage::Compute;
        let entry = spv::PipelineOptions { shader_stage: stage, entry_point: "main".into() };
        let words = spv::write_vec(&self.module, &self.info, &options, Some(&entry));
        let words = words.map_err(|e| Refused { shader: self.shader, why: e.to_string() })?;
        Ok(if self.bf16 { bf16::retyped(&words) } else { words })
    }
}

pub fn check(dispatch: &Dispatch, caps: &Caps) -> Result<Checked, Refused> {
    let refuse = |why: String| Refused { shader: dispatch.name, why };
    let module =
        naga::front::wgsl::parse_str(&dispatch.text).map_err(|e| refuse(e.emit_to_string(&dispatch.text)))?;
    let mut allowed = Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    allowed.set(Capabilities::SHADER_FLOAT16, caps.f16 || dispatch.bf16);
    let shapes = if dispatch.bf16 { &caps.cooperative_bf16 } else { &caps.cooperative };
    allowed.set(Capabilities::COOPERATIVE_MATRIX, !shapes.is_empty() && !caps.emulated);
    let mut validator = Validator::new(ValidationFlags::all(), allowed);
    let info = validator.validate(&module).map_err(|e| refuse(e.emit_to_string(&dispatch.text)))?;
    let workgroup_memory = workgroup_memory(&module);
    if workgroup_memory > caps.workgroup_memory {
        let most = caps.workgroup_memory;
        return Err(refuse(format!(
            "needs {workgroup_memory} bytes of workgroup memory, the device has {most}"
        )));
    }
    let invocations = module.entry_points.iter().map(|e| e.workgroup_size.iter().product::<u32>() as usize);
    if let Some(n) = invocations.filter(|n| *n > caps.invocations).max() {
        return Err(refuse(format!("has workgroups of {n}, the device allows {}", caps.invocations)));
    }
    if uses_cooperative(&module) && uses_subgroups(&module) {
        return Err(refuse("cooperative matrices beside subgroup operations crash drivers".into()));
    }
    let invocations = module.entry_points.first().map_or([1; 3], |entry| entry.workgroup_size).into();
    Ok(Checked { module, info, shader: dispatch.name, bf16: dispatch.bf16, invocations })
}

fn workgroup_memory(module: &Module) -> usize {
    let mut layouter = naga::proc::Layouter::default();
    if layouter.update(module.to_ctx()).is_err() {
        return usize::MAX;
    }
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
    shared.map(|(_, v)| layouter[v.ty].size as usize).sum()
}

fn functions(module: &Module) -> impl Iterator<Item = &naga::Function> {
    module.functions.iter().map(|(_, f)| f).chain(module.entry_points.iter().map(|e| &e.function))
}

fn uses_cooperative(module: &Module) -> bool {
    module.types.iter().any(|(_, t)| matches!(t.inner, naga::TypeInner::CooperativeMatrix { .. }))
}

/// Subgroup operations, and the builtins that declare the same capability.
fn uses_subgroups(module: &Module) -> bool {
    let builtin = |binding: &Option<naga::Binding>| {
        matches!(
            binding,
            Some(naga::Binding::BuiltIn(
                naga::BuiltIn::SubgroupId
                    | naga::BuiltIn::SubgroupSize
                    | naga::BuiltIn::SubgroupInvocationId
                    | naga::BuiltIn::NumSubgroups
            ))
        )
    };
    functions(module).any(|f| {
        let operations = f.expressions.iter().any(|(_, e)| {
            matches!(e, Expression::SubgroupBallotResult | Expression::SubgroupOperationResult { .. })
        });
        operations || f.arguments.iter().any(|a| builtin(&a.binding)) || has_subgroup_statement(&f.body)
    })
}

fn has_subgroup_statement(block: &naga::Block) -> bool {
    block.iter().any(|statement| match statement {
        Statement::SubgroupBallot { .. }
        | Statement::SubgroupGather { .. }
        | Statement::SubgroupCollectiveOperation { .. } => true,
        Statement::Block(inner) => has_subgroup_statement(inner),
        Statement::If { accept, reject, .. } => {
            has_subgroup_statement(accept) || has_subgroup_statement(reject)
        }
        Statement::Loop { body, continuing, .. } => {
            has_subgroup_statement(body) || has_subgroup_statement(continuing)
        }
        Statement::Switch { cases, .. } => cases.iter().any(|case| has_subgroup_statement(&case.body)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str, caps: &Caps) -> String {
        let text = format!("enable f16;\nenable wgpu_cooperative_matrix;\n{text}");
        let binds = Vec::new();
        let dispatch = Dispatch {
            name: "case",
            text,
            binds,
            params: vec![],
            bf16: false,
            counts: false,
            groups: [1, 1],
        };
        check(&dispatch, caps).map_or_else(|refused| refused.to_string(), |_| String::new())
    }

    #[test]
    fn what_would_fail_on_the_device_fails_here() {
        let caps = Caps { f16: true, cooperative: vec![[16, 16, 16]], ..Caps::least() };
        let main = |size: usize, arguments: &str, body: &str| {
            format!("@compute @workgroup_size({size}) fn main({arguments}) {{ {body} }}")
        };
        let matrix = "var m = coop_mat16x16<f32, C>();";
        let shared = |len: usize| format!("var<workgroup> x: array<f32, {len}>;\n");
        let lane = "@builtin(local_invocation_index) lane: u32";
        let size = "@builtin(subgroup_size) size: u32";
        let touch = "x[lane] = 1.0;";
        for (text, wrong) in [
            (main(64, "", matrix), ""),
            (main(64, "", "let s = subgroupAdd(1u);"), ""),
            (shared(8 << 10) + &main(64, lane, touch), ""),
            (main(64, "", "let x = 1.0 + 1u;"), "error"),
            (main(64, "", "for (var i = 0u; i < 3; i += 1.0) { }"), "error"),
            (main(512, "", ""), "workgroups of 512"),
            (shared((8 << 10) + 1) + &main(64, lane, touch), "workgroup memory"),
            (main(64, "", &format!("{matrix} let s = subgroupAdd(1u);")), "crash drivers"),
            (main(64, size, matrix), "crash drivers"),
            (
                "fn f(x: u32) -> u32 { if (x > 1u) { return subgroupMax(x); } return x; }\n".to_string()
                    + &main(64, lane, &format!("{matrix} let s = f(lane);")),
                "crash drivers",
            ),
        ] {
            let refused = refusal(&text, &caps);
            assert!(refused.contains(wrong) && wrong.is_empty() == refused.is_empty(), "{text}: {refused}");
        }
        let none = Caps { cooperative: Vec::new(), ..caps };
        assert!(!refusal(&main(64, "", matrix), &none).is_empty(), "a device without such matrices");
    }
}
