//! Differences in place; see `shaders/subtract.wgsl`.

use super::{ELEMENTWISE, Tensor};
use crate::Result;
use crate::gpu::{CommandList, Variant, flat_grid};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("subtract").constant("WG", ELEMENTWISE)
}

/// from −= less over the first `rows` rows of two tensors of one width.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn subtract(list: &mut CommandList, from: &Tensor, less: &Tensor, rows: usize) -> Result<()> {
    for tensor in [from, less] {
        tensor.expect("subtract", rows, from.cols())?;
    }
    let count = rows * from.cols();
    let kernel = list.device().kernel(&variant())?;
    let grid = flat_grid(list.device(), count.div_ceil(ELEMENTWISE as usize) as u64);
    list.dispatch(&kernel, &[from.buffer(), less.buffer()], &Params { count: count as u32 }, grid)
}
