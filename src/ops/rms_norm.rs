//! Root-mean-square norm; see `shaders/rms_norm.wgsl`.

use super::{Tensor, with_reduce};
use crate::Result;
use crate::gpu::{Capabilities, CommandList, Variant};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    cols: u32,
    eps: f32,
}

pub(super) fn variant(capabilities: &Capabilities) -> Variant {
    with_reduce(Variant::new("rms_norm").constant("WG", 256), capabilities)
}

/// out = x / sqrt(mean(x²) + eps) · weight over the first `rows` rows; weight is [1, cols].
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn rms_norm(
    list: &mut CommandList,
    x: &Tensor,
    weight: &Tensor,
    out: &Tensor,
    rows: usize,
    eps: f32,
) -> Result<()> {
    x.expect("rms_norm", rows, weight.cols())?;
    out.expect("rms_norm", rows, weight.cols())?;
    let kernel = list.device().kernel(&variant(list.device().capabilities()))?;
    let params = Params { cols: weight.cols() as u32, eps };
    list.dispatch(&kernel, &[x.buffer(), weight.buffer(), out.buffer()], &params, [rows as u32, 1, 1])
}
