//! The key and value cache in pages: one pair of buffers a layer, one page table for all.

use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::gpu::Device;
use crate::ops::cache::{CachePrecision, PAGE, PagedCache};

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
    /// As [`Device::alloc`]; a layer's keys of all slots must fit into one binding.
    pub fn new(
        device: &Device,
        config: &LlamaConfig,
        layers: usize,
        size: CacheSize,
        precision: CachePrecision,
    ) -> Result<Self> {
        let [page_table, keys, values] = Self::LABELS;
        let pages_per_slot = size.context.div_ceil(PAGE);
        let table: Vec<u32> = (0..(size.slots * pages_per_slot) as u32).collect();
        let pages = device.upload(page_table, &table)?;
        let (kv_heads, dim) = (config.num_key_value_heads, config.head_dim);
        let bytes = (table.len() * PAGE * kv_heads * dim * precision.bytes()) as u64;
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
