//! The inverse Cholesky factor of a small block; see `shaders/cholesky_block.wgsl`.

use super::Tensor;
use crate::gpu::{Buffer, CommandList, Variant};
use crate::{Error, Result};

/// The largest block, and the pitch of its inverse.
pub const BLOCK: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    size: u32,
    pitch: u32,
    at: u32,
    first: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("cholesky_block")
}

/// A block M of `size` rows and columns, at most [`BLOCK`].
#[derive(Clone, Copy)]
pub struct DiagonalBlock<'a> {
    /// The rows of a matrix that hold it.
    pub matrix: &'a Tensor,
    /// Its first row among them.
    pub row: usize,
    /// Its first column.
    pub col: usize,
    /// Its rows and columns.
    pub size: usize,
}

/// With M = Rᵀ·R, of which the upper half is read: R⁻¹ into `inverse` [64, 64], zeros below its diagonal; the squares of R's
/// diagonal into `pivots`, f32, from number `block.col` on; the identity in place of M. A pivot that is not positive counts as
/// 1 in what comes after it, so all that depends on it is worthless.
///
/// # Errors
/// [`Error::Shape`] when the block is too large or outside; as [`CommandList::dispatch`].
pub fn cholesky_block(
    list: &mut CommandList,
    block: &DiagonalBlock<'_>,
    inverse: &Tensor,
    pivots: &Buffer,
) -> Result<()> {
    let &DiagonalBlock { matrix, row, col, size } = block;
    inverse.expect("cholesky_block", BLOCK, BLOCK)?;
    let inside = size <= BLOCK && row + size <= matrix.rows() && col + size <= matrix.cols();
    if size == 0 || !inside || pivots.bytes() < 4 * (col + size) as u64 {
        let message = format!(
            "{size} at ({row}, {col}) of [{}, {}] with {} bytes of pivots",
            matrix.rows(),
            matrix.cols(),
            pivots.bytes()
        );
        return Err(Error::shape("cholesky_block", message));
    }
    let kernel = list.device().kernel(&variant())?;
    let params = Params {
        size: size as u32,
        pitch: matrix.cols() as u32,
        at: (row * matrix.cols() + col) as u32,
        first: col as u32,
    };
    list.dispatch(&kernel, &[matrix.buffer(), inverse.buffer(), pivots], &params, [1, 1, 1])
}
