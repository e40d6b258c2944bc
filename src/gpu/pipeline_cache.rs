//! What the driver made of kernels, kept from one start to the next.
//!
//! A cache is an offer: whatever is wrong with its file, kernels are compiled as if there were none.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A file larger than this is not read: nothing that exlay wrote.
const MOST_BYTES: u64 = 256 << 20;

/// The driver's cache, and the file that it is kept in.
pub(super) struct PipelineCache {
    raw: wgpu::PipelineCache,
    path: PathBuf,
}

/// The feature to ask for, where the adapter has it.
pub(super) fn features(adapter: &wgpu::Adapter) -> wgpu::Features {
    adapter.features() & wgpu::Features::PIPELINE_CACHE
}

impl PipelineCache {
    /// The cache of an adapter in `directory`; `None` where the driver has no such thing.
    pub(super) fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, directory: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = directory.join(wgpu::util::pipeline_cache_key(info)?);
        let data = read(&path);
        let descriptor =
            wgpu::PipelineCacheDescriptor { label: Some("exlay"), data: data.as_deref(), fallback: true };
        // SAFETY: the data, if any, is what `get_data` returned for this adapter, from a file in the user's own cache
        // directory that appears under its name only when complete. Its header, which names card and driver, is
        // checked by wgpu.
        let raw = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Self { raw, path })
    }

    pub(super) fn raw(&self) -> &wgpu::PipelineCache {
        &self.raw
    }
}

/// Writes what the driver has at the end, if that is not what the file holds. Tells nothing of a failure: without the file,
/// the next start compiles again.
impl Drop for PipelineCache {
    fn drop(&mut self) {
        let Some(data) = self.raw.get_data() else { return };
        if read(&self.path).is_some_and(|known| known == data) {
            return;
        }
        let aside = self.path.with_extension(format!("{}.partial", std::process::id()));
        let written = || -> std::io::Result<()> {
            if let Some(directory) = self.path.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut file = File::create(&aside)?;
            file.write_all(&data)?;
            file.sync_all()?;
            fs::rename(&aside, &self.path)
        };
        if written().is_err() {
            let _ = fs::remove_file(&aside);
        }
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    File::open(path).ok()?.take(MOST_BYTES + 1).read_to_end(&mut data).ok()?;
    (data.len() as u64 <= MOST_BYTES).then_some(data)
}
