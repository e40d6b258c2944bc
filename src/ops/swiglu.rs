//! Gated activation; see `shaders/swiglu.wgsl`.

use super::{ELEMENTWISE, Tensor};
use crate::Result;
use crate::gpu::{CommandList, Variant, flat_grid};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("swiglu").constant("WG", ELEMENTWISE)
}

/// out = silu(gate) · up over the first `rows` rows of three tensors of one shape.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn swiglu(list: &mut CommandList, gate: &Tensor, up: &Tensor, out: &Tensor, rows: usize) -> Result<()> {
    for tensor in [gate, up, out] {
        tensor.expect("swiglu", rows, gate.cols())?;
    }
    let count = rows * gate.cols();
    let kernel = list.device().kernel(&variant())?;
    let grid = flat_grid(list.device(), count.div_ceil(ELEMENTWISE as usize) as u64);
    list.dispatch(&kernel, &[gate.buffer(), up.buffer(), out.buffer()], &Params { count: count as u32 }, grid)
}
