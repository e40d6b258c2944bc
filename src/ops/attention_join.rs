//! The parts of a decode attention joined, in the order in which the next product takes them; see
//! `shaders/attention_join.wgsl`.

use super::attention_decode::Decode;
use crate::gpu::{Buffer, CommandList, Variant};
use crate::{Error, Result};

/// Lanes of a workgroup.
const LANES: u32 = 256;

/// Outputs of a workgroup.
const OUTPUTS: usize = 128;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    split_len: u32,
    splits: u32,
    window: u32,
}

pub(super) fn variant(heads: usize, dim: usize) -> Variant {
    Variant::new("attention_join")
        .constant("WG", LANES)
        .constant("HEADS", heads as u32)
        .constant("DIM", dim as u32)
}

/// `out[r, i] = attended[r, order[i]]`, where attended [rows, heads · dim] is what the parts in `decode.splits` come to.
/// `order`: u32 [heads · dim], each below heads · dim. Rows not in use keep what `out` holds.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn attention_join(
    list: &mut CommandList,
    decode: &Decode<'_>,
    order: &Buffer,
    out: &Buffer,
) -> Result<()> {
    decode.check("attention_join")?;
    let &Decode { heads, rows, cache, state, splits, .. } = decode;
    let cols = heads * cache.dim;
    if order.bytes() < 4 * cols as u64 || out.bytes() < 4 * (rows * cols) as u64 {
        let (order, out) = (order.bytes(), out.bytes());
        let message = format!("{rows} rows of {cols} from {order} bytes of order into {out} bytes");
        return Err(Error::shape("attention_join", message));
    }
    let cut = decode.cut();
    let params = Params {
        rows: rows as u32,
        split_len: cut.length as u32,
        splits: cut.splits as u32,
        window: decode.window(),
    };
    let kernel = list.device().kernel(&variant(heads, cache.dim))?;
    let buffers = [splits.buffer(), &state.positions, order, out];
    list.dispatch(&kernel, &buffers, &params, [cols.div_ceil(OUTPUTS) as u32, rows as u32, 1])
}
