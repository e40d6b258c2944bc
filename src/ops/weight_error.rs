//! Decoded weights against the float ones and the quantizer's own; see `shaders/weight_error.wgsl`.

use super::Tensor;
use crate::gpu::{Buffer, CommandList, Variant};
use crate::{Error, Result};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    n: u32,
    k: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("weight_error")
}

/// Of the weights [k, n] and the halves `decoded` [n, k]: into `parts`, f32 [k / 32, n / 32, 2], each tile's sum of squared
/// differences and largest difference; `mismatches`, one u32, grows by the pairs of halves in which `decoded` and `own`
/// differ in a bit.
///
/// # Errors
/// [`Error::Shape`] when k or n is no multiple of 32 or a buffer is too small; as [`CommandList::dispatch`].
pub fn weight_error(
    list: &mut CommandList,
    weights: &Tensor,
    decoded: &Buffer,
    own: &Buffer,
    parts: &Buffer,
    mismatches: &Buffer,
) -> Result<()> {
    let (k, n) = (weights.rows(), weights.cols());
    let halves = 2 * (k * n) as u64;
    let fits =
        decoded.bytes() >= halves && own.bytes() >= halves && parts.bytes() >= (k / 32 * (n / 32) * 8) as u64;
    if !fits || !(k | n).is_multiple_of(32) {
        return Err(Error::shape(
            "weight_error",
            format!("[{k}, {n}]: no multiples of 32, or a buffer is too small"),
        ));
    }
    let kernel = list.device().kernel(&variant())?;
    let grid = [n as u32 / 32, k as u32 / 32, 1];
    let buffers = [weights.buffer(), decoded, own, parts, mismatches];
    list.dispatch(&kernel, &buffers, &Params { n: n as u32, k: k as u32 }, grid)
}
