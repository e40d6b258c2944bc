//! Columns of activations as rows of halves, for products over the rows on matrix units ([`super::column_product`]); see
//! `shaders/{column_peak,halve_columns}.wgsl`.

use super::Tensor;
use crate::gpu::{Buffer, CommandList, Variant};
use crate::{Error, Result};

/// Rows of columns come in eights: 16 bytes of halves.
pub(super) const EIGHT: usize = 8;

/// Columns and rows of a workgroup of both kernels.
const COLUMNS: usize = 32;
const ROWS: usize = 64;

/// The columns of an activation [rows, cols] as two halves a value, each column divided by a power of two of its own: together
/// to 2^-22 of a value, or to 2^-39 of the column's largest.
pub struct HalvedColumns {
    halves: Buffer,
    units: Buffer,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct PeakParams {
    rows: u32,
    cols: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct HalveParams {
    rows: u32,
    cols: u32,
    pairs: u32,
}

fn variant(stem: &'static str, weighted: bool) -> Variant {
    Variant::new(stem).constant("WEIGHTED", u32::from(weighted))
}

pub(super) fn variants() -> impl Iterator<Item = Variant> {
    let both = |stem| [false, true].map(|weighted| variant(stem, weighted));
    ["column_peak", "halve_columns"].into_iter().flat_map(both)
}

impl HalvedColumns {
    /// Records the halving of the first `rows` rows of x, each multiplied by the root of its weight where there are `weights`
    /// (f32, at least `rows`).
    ///
    /// # Errors
    /// [`Error::Shape`] when there are fewer rows or weights; as [`crate::gpu::Device::alloc`] and [`CommandList::dispatch`].
    pub fn record(list: &mut CommandList, x: &Tensor, weights: Option<&Buffer>, rows: usize) -> Result<Self> {
        let (device, cols) = (list.device().clone(), x.cols());
        x.expect("halve_columns", rows, cols)?;
        if let Some(weights) = weights
            && weights.bytes() < 4 * rows as u64
        {
            let message = format!("{} bytes of weights for {rows} rows", weights.bytes());
            return Err(Error::shape("halve_columns", message));
        }
        let padded = rows.next_multiple_of(EIGHT);
        let label = x.buffer().label();
        let halves = device.alloc(&format!("{label} in halves"), (4 * cols * padded) as u64)?;
        let units = device.alloc(&format!("{label}: units"), 4 * cols as u64)?;
        let peaks = device.alloc(&format!("{label}: peaks"), 4 * cols as u64)?;
        let weighted = weights.is_some();
        let weights = weights.unwrap_or(x.buffer());
        let grid = |rows: usize| [cols.div_ceil(COLUMNS) as u32, rows.div_ceil(ROWS) as u32, 1];

        list.clear(&peaks);
        let kernel = device.kernel(&variant("column_peak", weighted))?;
        let params = PeakParams { rows: rows as u32, cols: cols as u32 };
        list.dispatch(&kernel, &[x.buffer(), weights, &peaks], &params, grid(rows))?;
        let kernel = device.kernel(&variant("halve_columns", weighted))?;
        let params = HalveParams { rows: rows as u32, cols: cols as u32, pairs: padded as u32 / 2 };
        list.dispatch(&kernel, &[x.buffer(), weights, &peaks, &halves, &units], &params, grid(padded))?;
        Ok(Self { halves, units })
    }

    /// Halves of every column, its first plane and its second: [cols, 2, rows in eights].
    pub fn halves(&self) -> &Buffer {
        &self.halves
    }

    /// What each column was divided by.
    pub fn units(&self) -> &Buffer {
        &self.units
    }
}
