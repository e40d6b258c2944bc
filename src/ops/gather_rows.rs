//! Rows into packed order; see `shaders/gather_rows.wgsl`.

use super::{ELEMENTWISE, Tensor};
use crate::gpu::{Buffer, CommandList, Variant, flat_grid};
use crate::{Error, Result};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("gather_rows").constant("WG", ELEMENTWISE)
}

/// `out[r, :] = x[order[r], :]` for every row of `out`; `order` is u32 `[rows of out]`, each below the rows of x.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn gather_rows(list: &mut CommandList, x: &Tensor, order: &Buffer, out: &Tensor) -> Result<()> {
    let (rows, cols) = (out.rows(), out.cols());
    x.expect("gather_rows", 0, cols)?;
    if order.bytes() < 4 * rows as u64 {
        return Err(Error::shape(
            "gather_rows",
            format!("{rows} rows from {} bytes of order", order.bytes()),
        ));
    }
    let kernel = list.device().kernel(&variant())?;
    let grid = flat_grid(list.device(), (rows * cols).div_ceil(ELEMENTWISE as usize) as u64);
    let params = Params { rows: rows as u32, cols: cols as u32 };
    list.dispatch(&kernel, &[x.buffer(), order, out.buffer()], &params, grid)
}
