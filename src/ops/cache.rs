//! Keys and values into the paged cache; see `shaders/cache_write.wgsl`.

use super::{CacheShape, CacheSlab, ELEMENTWISE, PagedCache, Tensor};
use crate::gpu::{Buffer, CommandList, Variant, flat_grid};
use crate::{Error, Result};

/// Positions in a page of the cache.
pub const PAGE: usize = 256;

/// Element format of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CachePrecision {
    /// Halves.
    #[default]
    Half,
    /// Single precision: twice the memory, for comparing with engines that do not round keys and values.
    Single,
}

impl CachePrecision {
    /// Bytes of a key or value.
    pub fn bytes(self) -> usize {
        match self {
            Self::Half => 2,
            Self::Single => 4,
        }
    }
}

/// Device state of the rows of a batch, one u32 each: position (`u32::MAX`: not in use) and slot.
#[derive(Clone)]
pub struct RowState {
    /// Position of each row's token in its sequence.
    pub positions: Buffer,
    /// Which sequence each row belongs to.
    pub slots: Buffer,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    skip: u32,
    first: u32,
    kv_heads: u32,
    dim: u32,
    pages_per_slot: u32,
}

pub(super) fn variant(precision: CachePrecision) -> Variant {
    let variant = Variant::new("cache_write").constant("WG", ELEMENTWISE).constant("PAGE", PAGE as u32);
    match precision {
        CachePrecision::Half => variant,
        CachePrecision::Single => variant.import("common/store_half.wgsl", "common/store_single.wgsl"),
    }
}

/// Stores k and v [rows, kv_heads · dim] of the rows in use at their slots and positions.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn cache_write(
    list: &mut CommandList,
    k: &Tensor,
    v: &Tensor,
    state: &RowState,
    cache: &PagedCache,
    rows: usize,
) -> Result<()> {
    let CacheShape { pages_per_slot, kv_heads, dim, precision } = cache.shape();
    let cols = kv_heads * dim;
    k.expect("cache_write", rows, cols)?;
    v.expect("cache_write", rows, cols)?;
    if state.positions.bytes().min(state.slots.bytes()) < 4 * rows as u64 {
        return Err(Error::shape("cache_write", format!("{rows} rows without a position or slot each")));
    }
    let kernel = list.device().kernel(&variant(precision))?;
    for &CacheSlab { first, heads, ref keys, ref values } in cache.slabs() {
        let pairs = rows * heads * dim / 2;
        let grid = flat_grid(list.device(), pairs.div_ceil(ELEMENTWISE as usize) as u64);
        let params = Params {
            rows: rows as u32,
            skip: ((kv_heads - heads) * dim / 2) as u32,
            first: (first * dim / 2) as u32,
            kv_heads: heads as u32,
            dim: dim as u32,
            pages_per_slot: pages_per_slot as u32,
        };
        let buffers = [k.buffer(), v.buffer(), &state.positions, &state.slots, cache.pages(), keys, values];
        list.dispatch(&kernel, &buffers, &params, grid)?;
    }
    Ok(())
}
