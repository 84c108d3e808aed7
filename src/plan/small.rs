//! Data that is small and at hand is read before the run: how many samples there are, and whether they are enough.

use crate::output::Failure;
use crate::recipe::World;
use minic_compiler::dim::Dim;
use minic_compiler::plan::{Plan, Source, Stage, StageId, Value};
use minic_runtime::checkpoint;
use minic_runtime::data::{self, Context, Samples};
use minic_runtime::run::RunError;
use minic_runtime::tokens;
use std::path::PathBuf;

/// Bytes of all files of a declaration; tokenizing more takes longer than somebody waits for a plan.
pub const SMALL: u64 = 4 << 20;

/// Of every small declaration its samples, or why a run could not read them. `local` names no file of the hub; what is
/// tokenized for a checkpoint that is `blocked` is left to the run.
pub fn read(
    local: &Plan,
    world: &World,
    blocked: &dyn Fn(StageId) -> bool,
) -> Vec<(StageId, Result<Samples, Failure>)> {
    let small = |id: &StageId| bytes(local, *id, world).is_some_and(|bytes| bytes <= SMALL);
    let free = |id: &StageId| !local.source(*id, Value::Tokenizer).is_some_and(blocked);
    let load = |id: StageId| Some((id, load(local, id, world)?));
    local.order().into_iter().filter(small).filter(free).filter_map(load).collect()
}

/// Bytes of the files of a stage that loads data; `None` for other stages and where a file is not at hand.
pub fn bytes(local: &Plan, id: StageId, world: &World) -> Option<u64> {
    let Stage::Load(Source::Data(data)) = &local.node(id).stage else { return None };
    let files = data.mix.iter().flat_map(|source| &source.files);
    let paths: Result<Vec<Vec<PathBuf>>, _> = files.map(|file| data::matching(&world.base, file)).collect();
    let sizes = paths.ok()?.into_iter().flatten().map(|path| Some(path.metadata().ok()?.len()));
    sizes.sum()
}

/// `None` where the checkpoint is not at hand whose tokenizer is wanted.
pub fn load(local: &Plan, id: StageId, world: &World) -> Option<Result<Samples, Failure>> {
    let Stage::Load(Source::Data(data)) = &local.node(id).stage else { return None };
    let from = local.source(id, Value::Tokenizer);
    let folder = match from.map(|from| &local.node(from).stage) {
        Some(Stage::Load(Source::Checkpoint { path, .. })) => Some(world.base.join(path)),
        _ => None,
    };
    let desc = folder.as_ref().map(|folder| checkpoint::read_desc(folder));
    let desc = match desc {
        Some(desc) => Some(desc.ok()?),
        None => None,
    };
    let context = Context {
        base: &world.base,
        tokenizer: folder.as_deref(),
        vocab_size: desc.as_ref().map_or(u32::MAX as usize, |desc| desc.size(Dim::VocabSize)),
        eos: desc.as_ref().and_then(|desc| tokens::eos_id(&desc.config)),
        cache: None,
    };
    Some(data::load(data, &context).map_err(|error| RunError::from(error).into()))
}
