//! What a model has on a device besides its weights: cache, activations, tables, the rows' state.

use super::batch::Batch;
use super::cache::Cache;
use super::llama::LoadOptions;
use super::llama::steps::{Steps, most_rows};
use super::pass::rope_table;
use super::scratch::Scratch;
use super::source::WeightSource;
use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::gpu::Device;
use crate::ops::rope::RopeTable;

/// Everything that is allocated before the weights.
pub(super) struct Room {
    pub(super) cache: Cache,
    pub(super) scratch: Scratch,
    pub(super) rope: RopeTable,
    pub(super) batch: Batch,
    pub(super) steps: Steps,
    /// Bytes of the cache, and of the rest.
    pub(super) bytes: [u64; 2],
}

impl Room {
    /// Allocates for passes of up to `rows` rows.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub(super) fn new(
        device: &Device,
        config: &LlamaConfig,
        source: &dyn WeightSource,
        options: &LoadOptions,
        rows: usize,
    ) -> Result<Self> {
        let size = options.cache;
        let before = device.memory().held;
        let cache = Cache::new(device, config, config.num_hidden_layers, size, options.precision)?;
        let cached = device.memory().held;
        let scratch = Scratch::new(device, config, rows, size.context, |spec| source.has_packed(spec))?;
        let rope = rope_table(device, config, size.context)?;
        let batch = Batch::new(device, rows)?;
        let steps = Steps::new(device, size.slots, config.vocab_size)?;
        let bytes = [cached - before, device.memory().held - cached];
        Ok(Self { cache, scratch, rope, batch, steps, bytes })
    }
}

/// Rows of a pass: those asked for as far as memory for them is well spent, a power of two.
pub(super) fn pass_rows(config: &LlamaConfig, options: &LoadOptions) -> usize {
    let least = least_rows(options);
    let most = options.cache.slots.saturating_mul(options.cache.context);
    let rows = options.rows.max(least).clamp(1, most).next_power_of_two();
    Scratch::fitting_rows(config, rows).max(least)
}

/// The fewest rows of a pass that are of use: all that decode together.
pub(super) fn least_rows(options: &LoadOptions) -> usize {
    most_rows(options.cache.slots).next_power_of_two()
}
