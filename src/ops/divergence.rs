//! Divergence between rows of logits; see `shaders/divergence.wgsl`.

use super::{Tensor, with_reduce};
use crate::gpu::{Buffer, Capabilities, CommandList, Variant};
use crate::{Error, Result};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    cols: u32,
    first: u32,
}

pub(super) fn variant(capabilities: &Capabilities) -> Variant {
    with_reduce(Variant::new("divergence").constant("WG", 256), capabilities)
}

/// KL divergence in nats of softmax(y) from softmax(x) for each of the first `rows` rows, to f32 `out` from `first` on.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ or `out` is too small; as [`CommandList::dispatch`].
pub fn divergence(
    list: &mut CommandList,
    x: &Tensor,
    y: &Tensor,
    rows: usize,
    (out, first): (&Buffer, usize),
) -> Result<()> {
    y.expect("divergence", rows, x.cols())?;
    x.expect("divergence", rows, y.cols())?;
    if out.bytes() < 4 * (first + rows) as u64 {
        let message = format!("{rows} values from {first} on in {} bytes", out.bytes());
        return Err(Error::shape("divergence", message));
    }
    let kernel = list.device().kernel(&variant(list.device().capabilities()))?;
    let params = Params { cols: x.cols() as u32, first: first as u32 };
    list.dispatch(&kernel, &[x.buffer(), y.buffer(), out], &params, [rows as u32, 1, 1])
}
