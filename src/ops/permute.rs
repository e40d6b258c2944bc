//! Columns into packed order; see `shaders/permute.wgsl`.

use super::{ELEMENTWISE, Permutation, Tensor};
use crate::Result;
use crate::gpu::{CommandList, Variant, flat_grid};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("permute").constant("WG", ELEMENTWISE)
}

/// `out[r, i] = x[r, order[i]]` over the first `rows` rows.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn permute(
    list: &mut CommandList,
    x: &Tensor,
    order: &Permutation,
    out: &Tensor,
    rows: usize,
) -> Result<()> {
    let cols = order.order().len();
    x.expect("permute", rows, cols)?;
    out.expect("permute", rows, cols)?;
    let kernel = list.device().kernel(&variant())?;
    let grid = flat_grid(list.device(), (rows * cols).div_ceil(ELEMENTWISE as usize) as u64);
    let params = Params { rows: rows as u32, cols: cols as u32 };
    list.dispatch(&kernel, &[x.buffer(), order.buffer(), out.buffer()], &params, grid)
}
