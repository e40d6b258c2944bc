//! Token rows of the embedding table; see `shaders/embed.wgsl`.

use super::{DenseMatrix, ELEMENTWISE, Tensor};
use crate::gpu::{Buffer, CommandList, Variant};
use crate::{Error, Result};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    cols: u32,
    first_row: u32,
    slab_rows: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("embed").constant("WG", ELEMENTWISE)
}

/// `out[r, :] = table[tokens[r], :]` for the first `rows` of `tokens` (u32, below the table's rows).
///
/// # Errors
/// [`Error::Shape`] when the buffers are too small; as [`CommandList::dispatch`].
pub fn embed(
    list: &mut CommandList,
    table: &DenseMatrix,
    tokens: &Buffer,
    out: &Tensor,
    rows: usize,
) -> Result<()> {
    out.expect("embed", rows, table.k())?;
    if tokens.bytes() < 4 * rows as u64 {
        return Err(Error::shape("embed", format!("{rows} rows from {} bytes of tokens", tokens.bytes())));
    }
    let kernel = list.device().kernel(&variant())?;
    for slab in table.slabs() {
        let params =
            Params { cols: table.k() as u32, first_row: slab.first as u32, slab_rows: slab.rows as u32 };
        list.dispatch(&kernel, &[&slab.buffer, tokens, out.buffer()], &params, [rows as u32, 1, 1])?;
    }
    Ok(())
}
