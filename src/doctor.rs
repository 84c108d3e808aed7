//! `minic doctor`: what would run where on this machine, and what would not.
//!
//! Nothing is written, nothing is fetched, and no secret is shown.

use crate::device::default_precision;
use crate::machine::{Machine, Wanted};
use crate::output::{Exit, Failure, Output};
use crate::system::{self, Memory, Place};
use crate::table::{Table, bytes};
use minic_runtime::device::vulkan::{self, Gpu, Limits};
use minic_runtime::hub::HubSettings;
use minic_runtime::kernels::Level;
use minic_runtime::shader::Caps;
use serde::Serialize;
use serde_json::{Value, json};
use std::env;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The artifact store that runs would use; by default as minic.toml says, or `.minic/store` in the current folder
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl Args {
    /// What it leaves to the machine.
    pub fn wanted(&mut self) -> Wanted<'_> {
        Wanted::here().keeps(&mut self.store)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Runs work, and slower or not all of them.
    Warn,
    /// Runs would fail.
    Fail,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    state: State,
    /// What was found, for people.
    found: String,
    /// What to do about it.
    fix: Option<String>,
    /// The same for programs.
    facts: Value,
}

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>, facts: Value) -> Finding {
        Finding { name, state: State::Ok, found: found.into(), fix: None, facts }
    }

    fn but(mut self, state: State, fix: impl Into<String>) -> Finding {
        self.state = state;
        self.fix = Some(fix.into());
        self
    }
}

pub fn run(args: &Args, settings: &Machine, output: &Output) -> Result<Exit, Failure> {
    let store = args.store.clone().unwrap_or_else(|| PathBuf::from(".minic/store"));
    let mut findings = vec![
        version(),
        processor(),
        memory(system::memory()),
        folder("folder", Path::new(".")),
        folder("store", &store),
        temporary(),
        hub(),
    ];
    findings.extend(devices());
    let worst = findings.iter().map(|f| f.state).max().unwrap_or(State::Ok);
    if output.json {
        output.document(&json!({ "state": worst, "findings": findings, "settings": settings.settings() }))?;
    } else {
        output.answer(&text(&findings, output.styled))?;
        output.answer(&format!("\n{}", provenance(settings).render(|_, line| line)))?;
        if output.verbose {
            output.answer(&shaders(&findings).render(|_, line| line))?;
        }
    }
    Ok(if worst == State::Fail { Exit::World } else { Exit::Done })
}

fn text(findings: &[Finding], styled: bool) -> String {
    let mut table = Table::new(&["", "", ""]);
    let mut states = Vec::new();
    for finding in findings {
        let state = match finding.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        };
        table.row(vec![state.into(), finding.name.into(), finding.found.clone()]);
        states.push(finding.state);
        if let Some(fix) = &finding.fix {
            table.row(vec![String::new(), String::new(), format!("-> {fix}")]);
            states.push(finding.state);
        }
    }
    let color = |line: usize, text: String| match states.get(line.wrapping_sub(1)) {
        Some(State::Warn) if styled => format!("\x1b[33m{text}\x1b[0m"),
        Some(State::Fail) if styled => format!("\x1b[31m{text}\x1b[0m"),
        _ => text,
    };
    let whole = table.render(color);
    whole.split_once('\n').map_or(String::new(), |(_, rows)| rows.to_string())
}

/// What belongs to the machine, and what says so.
fn provenance(settings: &Machine) -> Table {
    let mut table = Table::new(&["setting", "value", "from"]);
    for setting in settings.settings() {
        table.row(vec![setting.name.into(), setting.value, setting.from]);
    }
    table
}

/// Which shaders each operation gets on each adapter.
fn shaders(findings: &[Finding]) -> Table {
    let mut table = Table::new(&["adapter", "operation", "shaders"]);
    for facts in findings.iter().map(|finding| &finding.facts) {
        for (op, names) in facts["shaders"].as_object().into_iter().flatten() {
            let names: Vec<&str> = names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            table.row(vec![format!("vulkan:{}", facts["number"]), op.clone(), names.join(", ")]);
        }
    }
    table
}

fn version() -> Finding {
    let (version, os, arch) = (env!("CARGO_PKG_VERSION"), env::consts::OS, env::consts::ARCH);
    let facts = json!({ "version": version, "os": os, "arch": arch });
    Finding::ok("minic", format!("{version}, {os} {arch}"), facts)
}

fn processor() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = system::processor().unwrap_or_else(|| "of unknown make".into());
    let level = Level::of_machine();
    let instructions = match level {
        Level::Base => "no vector instructions beyond the baseline",
        Level::V3 => "AVX2 and FMA",
        Level::V4 => "AVX-512",
    };
    let facts =
        json!({ "model": model, "cores": cores, "instructions": instructions, "level": level.name() });
    let plural = if cores == 1 { "" } else { "s" };
    let found = format!("{model}, {cores} core{plural} to use; kernels use {instructions}");
    let finding = Finding::ok("processor", found, facts);
    match level {
        Level::Base => finding.but(
            State::Warn,
            "the kernels are fast with AVX2 and FMA, or AVX-512; without, expect several times the time",
        ),
        Level::V3 | Level::V4 => finding,
    }
}

/// Below it, the smallest of published models does not fit.
const LITTLE_MEMORY: u64 = 2 << 30;

fn memory(memory: Option<Memory>) -> Finding {
    let Some(memory) = memory else {
        return Finding::ok("memory", "the system does not say", Value::Null)
            .but(State::Warn, "runs plan with 4 GiB; a larger model is proved block by block");
    };
    let facts = json!({ "total": memory.total, "available": memory.available, "limit": memory.limit });
    let limit = memory.limit.map_or(String::new(), |l| format!(", {} allowed to this container", bytes(l)));
    let found = format!("{} free of {}{limit}", bytes(memory.available), bytes(memory.total));
    let finding = Finding::ok("memory", found, facts);
    match memory.available.min(memory.limit.unwrap_or(u64::MAX)) {
        least if least < LITTLE_MEMORY => finding.but(
            State::Warn,
            "calibration holds all weights in f32, 4 bytes a parameter: `minic plan` says what a recipe needs",
        ),
        _ => finding,
    }
}

const NO_DISK: u64 = 64 << 20;
const LITTLE_DISK: u64 = 10 << 30;

/// A folder that runs write to; it need not be there yet.
fn folder(name: &'static str, path: &Path) -> Finding {
    let place = Place::of(path);
    let facts = json!({ "path": place.path, "free": place.free, "writable": place.writable });
    let shown = place.path.display();
    let Some(free) = place.free else {
        let finding = Finding::ok(name, format!("{shown}: the system does not say how much is free"), facts);
        return if place.writable { finding } else { not_writable(finding) };
    };
    let finding = Finding::ok(name, format!("{shown}: {} free", bytes(free)), facts);
    match free {
        _ if !place.writable => not_writable(finding),
        ..NO_DISK => finding.but(State::Fail, "make room: nothing can be written"),
        NO_DISK..LITTLE_DISK => finding
            .but(State::Warn, "an export of an 8B model takes 16 GB: `minic plan` says what a recipe needs"),
        _ => finding,
    }
}

fn not_writable(finding: Finding) -> Finding {
    let fix = match finding.name {
        "store" => "it cannot be written to: name another with --store",
        _ => "it cannot be written to: name another folder with --out, and keep the recipe in one of yours",
    };
    finding.but(State::Fail, fix)
}

fn temporary() -> Finding {
    let place = Place::of(&env::temp_dir());
    let facts = json!({ "path": place.path, "free": place.free, "writable": place.writable });
    let finding = Finding::ok("temporary", format!("{}, not used by runs", place.path.display()), facts);
    if place.writable { finding } else { finding.but(State::Warn, "other programs may need it: set TMPDIR") }
}

/// Where downloads are kept, by the rules of huggingface_hub, and whether there is a token. The network is not asked.
fn hub() -> Finding {
    let HubSettings { cache: kept, token, offline, .. } = HubSettings::from_env();
    let facts =
        json!({ "cache": kept, "exists": kept.is_dir(), "token": token.is_some(), "offline": offline });
    if kept.is_relative() && !kept.is_dir() {
        return Finding::ok("hub", "no home folder, and so no place for downloads", facts)
            .but(State::Warn, "set HF_HOME to use hf:// checkpoints");
    }
    let there = if kept.is_dir() { "" } else { " (not there yet)" };
    let token =
        if token.is_some() { "a token is set" } else { "no token is set: gated models cannot be fetched" };
    let offline = if offline { ", offline" } else { "" };
    Finding::ok("hub", format!("{}{there}; {token}{offline}", kept.display()), facts)
}

/// What `--device auto` takes, and every adapter that Vulkan names.
fn devices() -> Vec<Finding> {
    let found = vulkan::adapters_found();
    let auto = match found.iter().position(|adapter| !adapter.caps.software) {
        Some(number) => format!("vulkan:{number}"),
        None => "cpu".into(),
    };
    let why = match found.len() {
        0 => ": there is no Vulkan adapter",
        _ if auto == "cpu" => {
            ": there is no GPU; what runs shaders on the processor is taken where it is named"
        }
        _ => "",
    };
    let told = format!("`auto` takes {auto}{why}");
    let mut findings = vec![Finding::ok("device", told, json!({ "auto": auto, "adapters": found.len() }))];
    findings.extend((0..found.len()).map(adapter));
    findings
}

/// An adapter as it is when it is opened, its own test of products passed.
fn adapter(number: usize) -> Finding {
    let gpu = match Gpu::open(number, Limits { uncached: true, ..Limits::default() }) {
        Ok(gpu) => gpu,
        Err(error) => {
            let fix = "mend the driver, or name another device with --device";
            let found = format!("vulkan:{number} cannot be used: {error}");
            return Finding::ok("adapter", found, json!({ "number": number })).but(State::Warn, fix);
        }
    };
    let (found, caps) = (&gpu.found, &gpu.caps);
    let Caps { subgroup: (least, most), f16, cooperative, workgroup_memory, binding, buffer, .. } = caps;
    let precision = default_precision(caps);
    let variants = vulkan::variants(caps, precision);
    let products = variants.get("linear").into_iter().flatten();
    // The last one by name is that of many rows.
    let product = products.copied().filter(|name| name.starts_with("product")).max().unwrap_or("nothing");
    let shape = |[m, n, k]: &[u32; 3]| format!("{m}x{n}x{k}");
    let shapes: Vec<String> = cooperative.iter().map(shape).collect();
    let told = [
        format!("vulkan:{number} is {} ({}, {})", found.name, found.kind, found.driver),
        format!("{} of its own", bytes(found.memory)),
        if least == most {
            format!("subgroups of {least}")
        } else {
            format!("subgroups of {least} to {most}")
        },
        if *f16 { "f16".into() } else { "no f16".into() },
        match shapes.len() {
            0 => "no cooperative matrices of f16".into(),
            _ => format!("cooperative matrices {} of f16", shapes.join(", ")),
        },
        format!("{} a workgroup", bytes(*workgroup_memory as u64)),
        format!("{} a binding, {} a buffer", bytes(*binding as u64), bytes(*buffer as u64)),
        format!("products in {} by {product}", precision.name()),
    ];
    let facts = json!({
        "number": number, "name": found.name, "kind": found.kind, "driver": found.driver, "memory": found.memory,
        "subgroup": [least, most], "f16": f16, "cooperative_matrices": shapes,
        "workgroup_memory": workgroup_memory, "invocations": caps.invocations, "binding": binding,
        "buffer": buffer, "offset_alignment": caps.alignment, "timestamps": caps.timestamps,
        "precision": precision.name(), "shaders": variants,
    });
    let finding = Finding::ok("adapter", told.join(", "), facts);
    match &gpu.distrusted {
        None => finding,
        Some(why) => finding.but(State::Warn, format!("its cooperative matrices are not used: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine_with(total: u64, available: u64, limit: Option<u64>) -> State {
        memory(Some(Memory { total, available, limit })).state
    }

    #[test]
    fn little_memory_is_told_whoever_limits_it() {
        let gib = 1 << 30;
        assert_eq!(machine_with(64 * gib, 32 * gib, None), State::Ok);
        assert_eq!(machine_with(64 * gib, gib, None), State::Warn);
        assert_eq!(machine_with(64 * gib, 32 * gib, Some(gib)), State::Warn);
        assert_eq!(memory(None).state, State::Warn);
    }

    #[test]
    fn what_is_wrong_has_a_fix_and_what_is_right_has_none() {
        let here = folder("folder", Path::new("."));
        for finding in [version(), processor(), memory(system::memory()), here, temporary(), hub()]
            .into_iter()
            .chain(devices())
        {
            assert_eq!(finding.fix.is_none(), finding.state == State::Ok, "{finding:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_to_be_made_is_judged_by_what_is_there() {
        let here = tempfile::tempdir().expect("a folder");
        let finding = folder("store", &here.path().join("a/b/store"));
        assert_ne!(finding.state, State::Fail, "{finding:?}");
        assert!(finding.facts["free"].as_u64().is_some_and(|free| free > 0), "{finding:?}");
        let file = here.path().join("file");
        std::fs::write(&file, "").expect("a file");
        assert_eq!(
            folder("store", &file.join("store")).state,
            State::Fail,
            "a file is no place for a folder"
        );
    }
}
