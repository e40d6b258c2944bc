//! A lower triangle turned into an upper one; see `shaders/turn_factor.wgsl`.

use super::{ELEMENTWISE, TallMatrix};
use crate::gpu::{Buffer, CommandList, Variant, flat_grid};
use crate::{Error, Result};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    k: u32,
    source_first: u32,
    source_rows: u32,
    turned_first: u32,
    turned_rows: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("turn_factor").constant("WG", ELEMENTWISE)
}

/// In place: `x[k − 1 − i, k − 1 − j]` becomes `x[i, j]·scale[j]` for j ≤ i, zeros go below the diagonal, and what was above it
/// is lost. `x` is [k, k], `scale` f32 `[k]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn turn_factor(list: &mut CommandList, x: &TallMatrix, scale: &Buffer) -> Result<()> {
    let k = x.cols();
    if x.rows() != k || scale.bytes() < 4 * k as u64 {
        let message = format!("[{}, {k}] with {} bytes of scales", x.rows(), scale.bytes());
        return Err(Error::shape("turn_factor", message));
    }
    let kernel = list.device().kernel(&variant())?;
    for (source_first, source) in x.slabs() {
        for (turned_first, turned) in x.slabs() {
            let params = Params {
                k: k as u32,
                source_first: source_first as u32,
                source_rows: source.rows() as u32,
                turned_first: turned_first as u32,
                turned_rows: turned.rows() as u32,
            };
            let parts = k.div_ceil(ELEMENTWISE as usize) * source.rows();
            let grid = flat_grid(list.device(), parts as u64);
            list.dispatch(&kernel, &[scale, source.buffer(), turned.buffer()], &params, grid)?;
        }
    }
    Ok(())
}
