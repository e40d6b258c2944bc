//! Rotary positions; see `shaders/rope.wgsl`.

use super::{ELEMENTWISE, Tensor};
use crate::gpu::{Buffer, CommandList, Device, Variant, flat_grid};
use crate::{Error, Result};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    heads: u32,
    dim: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("rope").constant("WG", ELEMENTWISE)
}

/// Cosines and sines of positions 0 .. context, [context, dim / 2] pairs, on a device.
pub struct RopeTable {
    buffer: Buffer,
    dim: usize,
}

impl RopeTable {
    /// Computes the table in double precision: angle = position · frequency, both values times `scale`
    /// (YaRN's attention scaling, otherwise 1).
    ///
    /// # Errors
    /// As [`Device::upload`].
    pub fn new(device: &Device, frequencies: &[f64], scale: f64, context: usize) -> Result<Self> {
        let table: Vec<[f32; 2]> = (0..context)
            .flat_map(|position| {
                frequencies.iter().map(move |frequency| {
                    let (sine, cosine) = (position as f64 * frequency).sin_cos();
                    [(cosine * scale) as f32, (sine * scale) as f32]
                })
            })
            .collect();
        Ok(Self { buffer: device.upload("rope table", &table)?, dim: 2 * frequencies.len() })
    }

    /// The most positions of a table for heads of `dim` values on `device`: it must fit into a binding.
    pub fn most_positions(device: &Device, dim: usize) -> usize {
        usize::try_from(device.max_slab_bytes()).unwrap_or(usize::MAX) / (4 * dim.max(1))
    }

    /// The memory.
    pub(super) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Values of a head.
    pub(super) fn dim(&self) -> usize {
        self.dim
    }
}

/// Rotates the first `rows` rows of x [rows, heads · dim] in place. `positions` (u32, one a row) are below the
/// table's context, or `u32::MAX` for a row that is not in use.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn rope(
    list: &mut CommandList,
    x: &Tensor,
    positions: &Buffer,
    table: &RopeTable,
    rows: usize,
) -> Result<()> {
    if !x.cols().is_multiple_of(table.dim) || x.rows() < rows || positions.bytes() < 4 * rows as u64 {
        let message = format!("{rows} rows of [{}, {}] with heads of {}", x.rows(), x.cols(), table.dim);
        return Err(Error::shape("rope", message));
    }
    let heads = x.cols() / table.dim;
    let kernel = list.device().kernel(&variant())?;
    let grid = flat_grid(list.device(), (rows * x.cols() / 2).div_ceil(ELEMENTWISE as usize) as u64);
    let params = Params { rows: rows as u32, heads: heads as u32, dim: table.dim as u32 };
    list.dispatch(&kernel, &[positions, &table.buffer, x.buffer()], &params, grid)
}
