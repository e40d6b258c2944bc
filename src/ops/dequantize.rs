//! Packed weights to halves; see `shaders/dequantize.wgsl`.

use super::{QuantMatrix, QuantSlab, unpack};
use crate::gpu::{Buffer, Capabilities, CommandList, Variant};
use crate::{Error, Result};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    n: u32,
    k: u32,
}

pub(super) fn variant(capabilities: &Capabilities) -> Variant {
    let variant = Variant::new("dequantize").generated("generated/decode.wgsl", unpack::decode_text());
    if capabilities.f16 {
        variant.prologue("enable f16;").import("common/pair_word.wgsl", "common/pair_native.wgsl")
    } else {
        variant
    }
}

/// out = the slab's weights as halves [columns, k], k in packed row order, with the bits that ExLlamaV2 gives them.
///
/// # Errors
/// [`Error::Shape`] when `out` is too small; as [`CommandList::dispatch`].
pub fn dequantize(
    list: &mut CommandList,
    matrix: &QuantMatrix,
    slab: &QuantSlab,
    out: &Buffer,
) -> Result<()> {
    let (n, k) = (slab.columns, matrix.k());
    if out.bytes() < 2 * (n * k) as u64 {
        return Err(Error::shape("dequantize", format!("[{n}, {k}] halves into {} bytes", out.bytes())));
    }
    let kernel = list.device().kernel(&variant(list.device().capabilities()))?;
    let grid = [n as u32 / 32, (k as u32 / 32).div_ceil(8), 1];
    let buffers = [&slab.words, &slab.scales, matrix.maxima(), matrix.blocks(), out];
    list.dispatch(&kernel, &buffers, &Params { n: n as u32, k: k as u32 }, grid)
}
