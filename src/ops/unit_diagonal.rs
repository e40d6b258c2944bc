//! A symmetric matrix in another order with ones on its diagonal; see `shaders/unit_diagonal.wgsl`.

use super::{ELEMENTWISE, TallMatrix};
use crate::gpu::{Buffer, CommandList, Variant, flat_grid};
use crate::{Error, Result};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    k: u32,
    h_first: u32,
    h_rows: u32,
    out_first: u32,
    out_rows: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("unit_diagonal").constant("WG", ELEMENTWISE)
}

/// `out[r, c] = h[order[r], order[c]]·scale[r]·scale[c]` for r < c and 1 for r = c; below the diagonal `out` stays as it is.
/// `h` and `out` are [k, k]; `order`, u32 `[k]`, is a permutation, which the caller sees to; `scale` is f32 `[k]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn unit_diagonal(
    list: &mut CommandList,
    h: &TallMatrix,
    order: &Buffer,
    scale: &Buffer,
    out: &TallMatrix,
) -> Result<()> {
    let k = h.cols();
    let square = [h.rows(), out.rows(), out.cols()] == [k; 3];
    if !square || order.bytes().min(scale.bytes()) < 4 * k as u64 {
        let message = format!(
            "[{}, {k}] to [{}, {}] with {} bytes of order and {} of scales",
            h.rows(),
            out.rows(),
            out.cols(),
            order.bytes(),
            scale.bytes()
        );
        return Err(Error::shape("unit_diagonal", message));
    }
    let kernel = list.device().kernel(&variant())?;
    for (out_first, to) in out.slabs() {
        for (h_first, from) in h.slabs() {
            let params = Params {
                k: k as u32,
                h_first: h_first as u32,
                h_rows: from.rows() as u32,
                out_first: out_first as u32,
                out_rows: to.rows() as u32,
            };
            let parts = k.div_ceil(ELEMENTWISE as usize) * to.rows();
            let grid = flat_grid(list.device(), parts as u64);
            list.dispatch(&kernel, &[from.buffer(), order, scale, to.buffer()], &params, grid)?;
        }
    }
    Ok(())
}
