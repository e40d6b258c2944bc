//! Keys and values from a product's partial sums into the paged cache; see `shaders/kv_write.wgsl`.

use super::attention_decode::{Decode, Projections};
use super::cache::{CachePrecision, PAGE};
use super::{CacheShape, ELEMENTWISE};
use crate::Result;
use crate::gpu::{CommandList, Variant, flat_grid};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    columns: u32,
    key: u32,
    value: u32,
    kv_heads: u32,
    pages_per_slot: u32,
}

pub(super) fn variant(dim: usize, sums: usize, precision: CachePrecision) -> Variant {
    let variant = Variant::new("kv_write")
        .constant("WG", ELEMENTWISE)
        .constant("PAGE", PAGE as u32)
        .constant("DIM", dim as u32)
        .constant("SUMS", sums as u32);
    match precision {
        CachePrecision::Half => variant,
        CachePrecision::Single => variant.import("common/store_half.wgsl", "common/store_single.wgsl"),
    }
}

/// Sums, rotates (keys) and stores the keys and values of the rows in use at their slots and positions.
///
/// # Errors
/// As [`super::attention_decode::attention_decode`].
pub fn kv_write(list: &mut CommandList, decode: &Decode<'_>, from: &Projections<'_>) -> Result<()> {
    decode.check("kv_write")?;
    from.check("kv_write", decode)?;
    let &Decode { rows, cache, .. } = decode;
    let CacheShape { pages_per_slot, dim, precision, .. } = cache.shape();
    let kernel = list.device().kernel(&variant(dim, from.left.sums, precision))?;
    for slab in cache.slabs() {
        let lanes = rows * slab.heads * dim / 8;
        let grid = flat_grid(list.device(), lanes.div_ceil(ELEMENTWISE as usize) as u64);
        let [key, value] = from.columns(slab, dim);
        let params = Params {
            rows: rows as u32,
            columns: from.left.columns as u32 / 4,
            key,
            value,
            kv_heads: slab.heads as u32,
            pages_per_slot: pages_per_slot as u32,
        };
        list.dispatch(&kernel, &from.buffers(decode, slab), &params, grid)?;
    }
    Ok(())
}
