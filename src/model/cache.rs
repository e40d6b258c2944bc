//! The key and value cache of all layers, one page table for all, and how long a context it can be given.

use crate::formats::config::LlamaConfig;
use crate::gpu::Device;
use crate::ops::cache::{CachePrecision, PAGE};
use crate::ops::rope::RopeTable;
use crate::ops::{CacheShape, PagedCache};
use crate::{Error, Result};

/// How many sequences of how many tokens a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSize {
    /// Sequences.
    pub slots: usize,
    /// Tokens of each.
    pub context: usize,
}

/// Keys and values of some layers.
pub struct Cache {
    layers: Vec<PagedCache>,
    size: CacheSize,
}

impl Cache {
    /// What its buffers are called.
    pub(super) const LABELS: [&str; 3] = ["page table", PagedCache::LABELS[0], PagedCache::LABELS[1]];

    /// Allocates a cache for `layers` layers. Slot s has pages s·n .. (s + 1)·n for now; only the page table says so.
    ///
    /// # Errors
    /// [`Error::Shape`] where the keys of one head in all slots, or a slot's rotations, exceed a binding; as [`Device::alloc`].
    pub fn new(
        device: &Device,
        config: &LlamaConfig,
        layers: usize,
        size: CacheSize,
        precision: CachePrecision,
    ) -> Result<Self> {
        let CacheSize { slots, context } = size;
        let (kv_heads, dim) = (config.num_key_value_heads, config.head_dim);
        let shape = CacheShape { pages_per_slot: context.div_ceil(PAGE), kv_heads, dim, precision };
        let most = most_tokens(device, shape, slots);
        if context > most {
            let message = format!(
                "{context} tokens for each of {slots} texts are more than fit where this adapter binds {} bytes at once: \
                 the keys of one head of a layer for all texts, and the rotations of one text; use at most {most} tokens",
                device.max_slab_bytes(),
            );
            return Err(Error::shape("--context", message));
        }
        let table: Vec<u32> = (0..(slots * shape.pages_per_slot) as u32).collect();
        let pages = device.upload(Self::LABELS[0], &table)?;
        let layer = |_| PagedCache::zeros(device, shape, &pages, table.len());
        let layers = (0..layers).map(layer).collect::<Result<_>>()?;
        Ok(Self { layers, size })
    }

    /// The part of layer `index`.
    pub fn layer(&self, index: usize) -> &PagedCache {
        &self.layers[index]
    }

    /// What it holds.
    pub fn size(&self) -> CacheSize {
        self.size
    }
}

/// The most tokens of a slot of which nothing exceeds a binding: neither the keys of one head in all slots nor a table of
/// rotations.
fn most_tokens(device: &Device, shape: CacheShape, slots: usize) -> usize {
    let cached = shape.most_pages(device) / slots.max(1) * PAGE;
    cached.min(RopeTable::most_positions(device, shape.dim))
}
