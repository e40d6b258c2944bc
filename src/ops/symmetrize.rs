//! A whole symmetric matrix from its upper half; see `shaders/symmetrize.wgsl`.

use super::TallMatrix;
use crate::gpu::{Buffer, CommandList, Variant};
use crate::{Error, Result};

/// Edge of a workgroup's values.
const TILE: usize = 32;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    k: u32,
    above_first: u32,
    above_rows: u32,
    below_first: u32,
    below_rows: u32,
    factor: f32,
}

pub(super) fn variant() -> Variant {
    Variant::new("symmetrize")
}

/// Replaces both `h[i, j]` and `h[j, i]` by `factor·h[i, j]` for i ≤ j; `h` is [k, k]. `diagonal`, f32 `[k]`, becomes the new
/// diagonal, and `bad`, u32 `[1]`, is not zero afterwards if it was not zero or a new value is not finite.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn symmetrize(
    list: &mut CommandList,
    h: &TallMatrix,
    factor: f32,
    diagonal: &Buffer,
    bad: &Buffer,
) -> Result<()> {
    let k = h.cols();
    if h.rows() != k || diagonal.bytes() < 4 * k as u64 {
        let message = format!("[{}, {k}] with {} bytes of diagonal", h.rows(), diagonal.bytes());
        return Err(Error::shape("symmetrize", message));
    }
    let kernel = list.device().kernel(&variant())?;
    for (above_first, above) in h.slabs() {
        for (below_first, below) in h.slabs().filter(|(first, _)| *first >= above_first) {
            let params = Params {
                k: k as u32,
                above_first: above_first as u32,
                above_rows: above.rows() as u32,
                below_first: below_first as u32,
                below_rows: below.rows() as u32,
                factor,
            };
            let grid = [below.rows().div_ceil(TILE) as u32, above.rows().div_ceil(TILE) as u32, 1];
            list.dispatch(&kernel, &[above.buffer(), below.buffer(), diagonal, bad], &params, grid)?;
        }
    }
    Ok(())
}
