//! The key and value cache in pages: one pair of buffers a layer, one page table for all.

use crate::formats::config::LlamaConfig;
use crate::gpu::Device;
use crate::ops::cache::{CachePrecision, PAGE, PagedCache};
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
    pub(super) const LABELS: [&str; 3] = ["page table", "keys", "values"];

    /// Allocates a cache for `layers` layers. Slot s has pages s·n .. (s + 1)·n for now; only the page table says so.
    ///
    /// # Errors
    /// [`Error::Shape`] where a layer's keys of all slots exceed a binding; as [`Device::alloc`].
    pub fn new(
        device: &Device,
        config: &LlamaConfig,
        layers: usize,
        size: CacheSize,
        precision: CachePrecision,
    ) -> Result<Self> {
        let [page_table, keys, values] = Self::LABELS;
        let pages_per_slot = size.context.div_ceil(PAGE);
        let page_bytes = PAGE * config.num_key_value_heads * config.head_dim * precision.bytes();
        let fitting = (device.max_slab_bytes() / page_bytes.max(1) as u64) as usize / size.slots.max(1);
        if pages_per_slot > fitting {
            let message = format!(
                "{} tokens for each of {} texts are more keys of a layer than this adapter binds at once ({} bytes); \
                 use at most {} tokens",
                size.context,
                size.slots,
                device.max_slab_bytes(),
                fitting * PAGE
            );
            return Err(Error::shape("--context", message));
        }
        let table: Vec<u32> = (0..(size.slots * pages_per_slot) as u32).collect();
        let pages = device.upload(page_table, &table)?;
        let (kv_heads, dim) = (config.num_key_value_heads, config.head_dim);
        let bytes = (table.len() * page_bytes) as u64;
        let layers = (0..layers)
            .map(|_| {
                Ok(PagedCache {
                    keys: device.alloc(keys, bytes)?,
                    values: device.alloc(values, bytes)?,
                    pages: pages.clone(),
                    pages_per_slot,
                    kv_heads,
                    dim,
                    precision,
                })
            })
            .collect::<Result<_>>()?;
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
