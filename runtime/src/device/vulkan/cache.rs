//! Compiled pipelines from one run to the next: `pipelines/` in minic's folder of the user's cache.

use std::fs;
use std::path::PathBuf;

pub struct Cache {
    pub cache: wgpu::PipelineCache,
    path: PathBuf,
    /// What the file held.
    before: Vec<u8>,
}

/// BLAKE3 of the data, and the data.
const DIGEST: usize = 32;

impl Cache {
    /// Nothing where the device has no such cache, or the user no folder for it.
    pub fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo) -> Option<Cache> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = folder()?.join(wgpu::util::pipeline_cache_key(info)?);
        let file = fs::read(&path).unwrap_or_default();
        let before =
            file.split_at_checked(DIGEST).filter(|(digest, data)| blake3::hash(data).as_bytes() == *digest);
        let before = before.map_or(Vec::new(), |(_, data)| data.to_vec());
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: None,
            data: (!before.is_empty()).then_some(&before),
            fallback: true,
        };
        // SAFETY: the data, whole as its digest says, came from `get_data` for an adapter of the same key.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Cache { cache, path, before })
    }

    /// A cache that cannot be kept costs time the next time, and nothing else.
    fn keep(&self) -> Option<()> {
        let data = self.cache.get_data().filter(|data| *data != self.before)?;
        let folder = self.path.parent()?;
        fs::create_dir_all(folder).ok()?;
        let partial = self.path.with_extension(format!("{}.partial", std::process::id()));
        fs::write(&partial, [blake3::hash(&data).as_bytes().as_slice(), &data].concat()).ok()?;
        fs::rename(&partial, &self.path).ok()
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let _ = self.keep();
    }
}

/// `$XDG_CACHE_HOME/minic/pipelines`, or `~/.cache/minic/pipelines`.
fn folder() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    Some(cache.or_else(home)?.join("minic/pipelines"))
}
