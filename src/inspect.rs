//! `minic inspect CHECKPOINT`

use crate::output::{Exit, Failure, Output};
use crate::remote;
use crate::table::{Table, grouped};
use minic_compiler::dim::Dim;
use minic_compiler::model::{LayerKind, ModelDesc, Role};
use minic_runtime::checkpoint::{self, Checkpoint, CheckpointError};
use minic_runtime::hub;
use minic_runtime::provenance::{Provenance, ProvenanceError};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face folder, or `hf://org/name@revision`
    checkpoint: PathBuf,
}

/// The dimensions that are shown, absent ones too.
pub const DIMS: &[Dim] = &[
    Dim::HiddenSize,
    Dim::FfnHiddenSize,
    Dim::MambaNumHeads,
    Dim::MambaHeadDim,
    Dim::NGroups,
    Dim::SsmStateSize,
    Dim::NumAttentionHeads,
    Dim::NumKeyValueHeads,
    Dim::AttentionHeadDim,
    Dim::VocabSize,
];

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let folder = &remote::config_folder(&args.checkpoint, output)?;
    // Of one of the hub as much is told as is there: nothing but config.json is fetched for it.
    let partly = folder != &args.checkpoint && !hub::is_whole(folder);
    let open = match Checkpoint::open(folder) {
        _ if partly => None,
        Ok(open) => Some(open),
        Err(CheckpointError::NoWeights { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    match &open {
        Some(open) => open.notes().iter().for_each(|note| output.note(note)),
        None => {
            output.note(&format!("{}: no weights are there, only config.json was read", folder.display()))
        }
    }
    let desc = match &open {
        Some(open) => open.desc().clone(),
        None => checkpoint::read_desc(folder)?,
    };
    if output.json {
        output.document(&to_json(&desc))?;
    } else {
        let dtype = open.as_ref().and_then(Checkpoint::main_dtype).or(desc.dtype);
        let dtype = dtype.map_or("not said", |d| d.recipe_name());
        output.answer(&describe(&desc, dtype, &origin(folder, output)))?;
    }
    Ok(Exit::Done)
}

fn to_json(desc: &ModelDesc) -> Value {
    let dims: Map<String, Value> = DIMS.iter().map(|d| (d.name().to_string(), json!(desc.dim(*d)))).collect();
    json!({
        "family": desc.family,
        "params": desc.params(),
        "layers": desc.layers.len(),
        "pattern": desc.pattern(),
        "dims": dims,
    })
}

/// What a folder says of where it comes from.
fn origin(folder: &Path, output: &Output) -> String {
    match Provenance::read(folder) {
        Ok(provenance) => {
            let parents: Vec<&str> = provenance.parents.iter().map(|p| p.checkpoint.as_str()).collect();
            format!(
                "`{}` of {} (minic {}), from {}",
                provenance.model,
                provenance.recipe.file,
                provenance.minic,
                parents.join(", ")
            )
        }
        Err(ProvenanceError::Absent { .. }) => "none".into(),
        Err(error) => {
            output.warn(&error.to_string());
            "cannot be read".into()
        }
    }
}

fn describe(desc: &ModelDesc, dtype: &str, origin: &str) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "family       {} ({})", desc.family, desc.family().doc());
    let _ = writeln!(out, "parameters   {}", grouped(desc.params()));
    let _ = writeln!(out, "layers       {}: {}", desc.layers.len(), desc.pattern());
    let _ = writeln!(out, "dtype        {dtype}");
    let _ = writeln!(out, "provenance   {origin}\n");
    let mut dims = Table::new(&["dimension", ">size"]);
    for dim in DIMS.iter().filter(|d| desc.dim(**d).is_some()) {
        dims.row(vec![dim.name().into(), desc.size(*dim).to_string()]);
    }
    out += &dims.render(|_, line| line);
    out.push('\n');
    out + &kinds(desc).render(|_, line| line)
}

/// Parameters per kind of block, and of what is outside of the blocks.
fn kinds(desc: &ModelDesc) -> Table {
    let weights = desc.weights();
    let mut table = Table::new(&["part", ">layers", ">parameters", ">share"]);
    let total = desc.params();
    let row = |name: &str, layers: String, params: u64| {
        let share = format!("{:.1} %", params as f64 * 100.0 / total.max(1) as f64);
        vec![name.to_string(), layers, grouped(params), share]
    };
    for kind in LayerKind::ALL {
        let count = desc.layers.iter().filter(|k| *k == kind).count();
        let of_kind = |layer: Option<usize>| layer.and_then(|l| desc.layers.get(l)) == Some(kind);
        let params: usize = weights.iter().filter(|w| of_kind(w.layer)).map(|w| w.len()).sum();
        if count > 0 {
            table.row(row(kind.name(), count.to_string(), params as u64));
        }
    }
    for (name, role) in [("embedding", Role::Embedding), ("last norm", Role::Norm), ("head", Role::Head)] {
        let outer = weights.iter().filter(|w| w.layer.is_none() && w.role == role);
        let params: usize = outer.map(|w| w.len()).sum();
        match (role, desc.tied) {
            (Role::Head, true) => table.row(vec![name.into(), String::new(), "tied".into(), String::new()]),
            _ => table.row(row(name, String::new(), params as u64)),
        }
    }
    table
}
