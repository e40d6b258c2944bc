//! Rows of numbers on a device.

use crate::gpu::{Buffer, Device};
use crate::{Error, Result};

/// Single-precision values [rows, cols], row-major, in one buffer. Activations are always this.
#[derive(Clone)]
pub struct Tensor {
    buffer: Buffer,
    rows: usize,
    cols: usize,
}

impl Tensor {
    /// Zeros.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn zeros(device: &Device, label: &str, rows: usize, cols: usize) -> Result<Self> {
        let buffer = device.alloc(label, (rows * cols * 4) as u64)?;
        Ok(Self { buffer, rows, cols })
    }

    /// A copy of `values` [rows, cols].
    ///
    /// # Errors
    /// [`Error::Shape`] when the length is not rows · cols; as [`Device::upload`].
    pub fn upload(device: &Device, label: &str, values: &[f32], cols: usize) -> Result<Self> {
        if cols == 0 || !values.len().is_multiple_of(cols) {
            return Err(Error::shape(label, format!("{} values in rows of {cols}", values.len())));
        }
        let buffer = device.upload(label, values)?;
        Ok(Self { buffer, rows: values.len() / cols, cols })
    }

    /// The memory.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The device that holds it.
    pub fn device(&self) -> &Device {
        self.buffer.device()
    }

    /// The same memory seen as the first rows of `cols` values; for scratch that serves several shapes.
    ///
    /// # Errors
    /// [`Error::Shape`] when it holds fewer values.
    pub fn view(&self, rows: usize, cols: usize) -> Result<Self> {
        Self::over(&self.buffer, rows, cols)
    }

    /// Memory seen as `rows` rows of `cols` values.
    ///
    /// # Errors
    /// [`Error::Shape`] when it holds fewer values.
    pub fn over(buffer: &Buffer, rows: usize, cols: usize) -> Result<Self> {
        if (4 * rows * cols) as u64 > buffer.bytes() {
            let message = format!("[{rows}, {cols}] out of {} bytes", buffer.bytes());
            return Err(Error::shape(buffer.label(), message));
        }
        Ok(Self { buffer: buffer.clone(), rows, cols })
    }

    /// Waits and copies the first `rows` rows to the host.
    ///
    /// # Errors
    /// As [`Device::read`].
    pub fn read(&self, rows: usize) -> Result<Vec<f32>> {
        self.device().read(&self.buffer, 0, rows * self.cols)
    }

    /// Waits and fills `values` from the first rows.
    ///
    /// # Errors
    /// As [`Device::read_into`].
    pub fn read_into(&self, values: &mut [f32]) -> Result<()> {
        self.device().read_into(&self.buffer, 0, values)
    }

    /// Replaces the first rows by `values`.
    ///
    /// # Errors
    /// As [`Device::write`].
    pub fn write(&self, values: &[f32]) -> Result<()> {
        self.device().write(&self.buffer, 0, values)
    }

    /// Refuses unless there are `rows` rows (or more) of `cols` values.
    ///
    /// # Errors
    /// [`Error::Shape`] with both shapes.
    pub fn expect(&self, operation: &str, rows: usize, cols: usize) -> Result<()> {
        if self.rows < rows || self.cols != cols {
            let label = self.buffer.label();
            let message = format!("`{label}` is [{}, {}], needed is [{rows}, {cols}]", self.rows, self.cols);
            return Err(Error::shape(operation, message));
        }
        Ok(())
    }
}
