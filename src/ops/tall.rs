//! Matrices too large for one binding, cut by rows.

use super::Tensor;
use crate::gpu::Device;
use crate::packing::BLOCK_ROWS;
use crate::{Error, Result};

/// Single-precision values [rows, cols], row-major, in slabs of whole rows; all but the last slab have the same
/// number of rows, a multiple of 32.
pub struct TallMatrix {
    rows: usize,
    cols: usize,
    slab_rows: usize,
    slabs: Vec<Tensor>,
}

impl TallMatrix {
    /// Zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] when a matrix is empty or 32 rows exceed a binding; as [`Device::alloc`].
    pub fn zeros(device: &Device, label: &str, rows: usize, cols: usize) -> Result<Self> {
        let fit = device.max_slab_bytes() / (4 * cols.max(1) as u64);
        let slab_rows = usize::try_from(fit).unwrap_or(usize::MAX) / BLOCK_ROWS * BLOCK_ROWS;
        if rows == 0 || cols == 0 || slab_rows == 0 {
            let message = format!(
                "[{rows}, {cols}] in slabs of {BLOCK_ROWS} rows and at most {} bytes",
                device.max_slab_bytes()
            );
            return Err(Error::shape(label, message));
        }
        let slabs = (0..rows)
            .step_by(slab_rows)
            .map(|first| Tensor::zeros(device, label, slab_rows.min(rows - first), cols))
            .collect::<Result<_>>()?;
        Ok(Self { rows, cols, slab_rows, slabs })
    }

    /// A copy of `values` [rows, cols].
    ///
    /// # Errors
    /// As [`TallMatrix::zeros`] and [`TallMatrix::write`].
    pub fn upload(device: &Device, label: &str, values: &[f32], cols: usize) -> Result<Self> {
        let matrix = Self::zeros(device, label, values.len() / cols.max(1), cols)?;
        matrix.write(values)?;
        Ok(matrix)
    }

    /// The device that holds it.
    pub fn device(&self) -> &Device {
        self.slabs[0].device()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Rows of every slab but the last, which may have fewer.
    pub fn slab_rows(&self) -> usize {
        self.slab_rows
    }

    /// The slabs with the numbers of their first rows.
    pub fn slabs(&self) -> impl Iterator<Item = (usize, &Tensor)> {
        self.slabs.iter().enumerate().map(|(index, slab)| (index * self.slab_rows, slab))
    }

    /// The slab that holds a row, and the row's number in it.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn find(&self, row: usize) -> (&Tensor, usize) {
        (&self.slabs[row / self.slab_rows], row % self.slab_rows)
    }

    /// Replaces all values.
    ///
    /// # Errors
    /// [`Error::Shape`] when the length is not rows · cols; as [`Device::write`].
    pub fn write(&self, values: &[f32]) -> Result<()> {
        if values.len() != self.rows * self.cols {
            let message = format!("{} values into [{}, {}]", values.len(), self.rows, self.cols);
            return Err(Error::shape(self.slabs[0].buffer().label(), message));
        }
        values
            .chunks(self.slab_rows * self.cols)
            .zip(&self.slabs)
            .try_for_each(|(values, slab)| slab.write(values))
    }

    /// Waits and copies all values to the host.
    ///
    /// # Errors
    /// As [`Device::read`].
    pub fn read(&self) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(self.rows * self.cols);
        for slab in &self.slabs {
            values.extend(slab.read(slab.rows())?);
        }
        Ok(values)
    }
}
