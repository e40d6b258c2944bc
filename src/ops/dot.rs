//! Scalar products; see `shaders/dot.wgsl`.

use super::Tensor;
use crate::gpu::{Buffer, CommandList, Variant};
use crate::{Error, Result};

/// Lanes of a workgroup.
const LANES: usize = 256;

/// Partial sums that one product leaves at most.
pub const MOST_PARTS: usize = 256;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    y_first: u32,
    part: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("dot").constant("WG", LANES as u32)
}

/// Σ over the first `rows` rows of x and as many rows of y from `y_row` on, as partial sums from `parts[part]` on.
/// Returns how many; the caller adds them in order.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ or `parts` is too small; as [`CommandList::dispatch`].
pub fn dot(
    list: &mut CommandList,
    x: &Tensor,
    (y, y_row): (&Tensor, usize),
    rows: usize,
    (parts, part): (&Buffer, usize),
) -> Result<usize> {
    x.expect("dot", rows, y.cols())?;
    y.expect("dot", y_row + rows, x.cols())?;
    let count = rows * x.cols();
    let used = count.div_ceil(LANES).min(MOST_PARTS);
    if parts.bytes() < 4 * (part + used) as u64 {
        return Err(Error::shape("dot", format!("{used} sums from {part} on in {} bytes", parts.bytes())));
    }
    let kernel = list.device().kernel(&variant())?;
    let params = Params { count: count as u32, y_first: (y_row * y.cols()) as u32, part: part as u32 };
    list.dispatch(&kernel, &[x.buffer(), y.buffer(), parts], &params, [used as u32, 1, 1])?;
    Ok(used)
}
