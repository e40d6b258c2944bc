//! What values differ by; see `shaders/difference.wgsl`.

use super::{ELEMENTWISE, Tensor};
use crate::Result;
use crate::gpu::{CommandList, Variant, flat_grid};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    factor: f32,
}

pub(super) fn variant() -> Variant {
    Variant::new("difference").constant("WG", ELEMENTWISE)
}

/// y = factor·(y − x) over the first `rows` rows of two tensors of one width.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn difference(list: &mut CommandList, y: &Tensor, x: &Tensor, rows: usize, factor: f32) -> Result<()> {
    for tensor in [y, x] {
        tensor.expect("difference", rows, y.cols())?;
    }
    let count = rows * y.cols();
    let kernel = list.device().kernel(&variant())?;
    let grid = flat_grid(list.device(), count.div_ceil(ELEMENTWISE as usize) as u64);
    list.dispatch(&kernel, &[x.buffer(), y.buffer()], &Params { count: count as u32, factor }, grid)
}
