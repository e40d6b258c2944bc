//! Half-precision matrices on a device, cut by rows where a binding ends.

use std::ops::Range;

use half::f16;

use crate::gpu::{Buffer, Device};
use crate::{Error, Result};

/// Rows of a slab are a multiple of this where a binding holds so many, as matrix units want them.
const SLAB_ROWS: usize = 16;

/// Whole rows of a [`DenseMatrix`] in one buffer, halves in pairs.
pub struct Slab {
    /// Number of the first row.
    pub first: usize,
    /// Rows here.
    pub rows: usize,
    /// The memory.
    pub buffer: Buffer,
    /// Single-precision bias `[rows]`.
    pub bias: Option<Buffer>,
}

/// Half-precision weights [n, k] (output features by input features, as Hugging Face stores them).
pub struct DenseMatrix {
    n: usize,
    k: usize,
    slabs: Vec<Slab>,
}

impl DenseMatrix {
    /// Uploads a matrix; `rows` yields the halves of a range of rows, a slab at a time.
    ///
    /// # Errors
    /// [`Error::Shape`] when k is odd or a row exceeds a binding; whatever `rows` and the device report.
    pub fn upload(
        device: &Device,
        label: &str,
        n: usize,
        k: usize,
        rows: impl Fn(Range<usize>) -> Result<Vec<f16>>,
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let row_bytes = 2 * k as u64;
        let most = (device.max_slab_bytes() / row_bytes.max(1)) as usize;
        let most = if most < SLAB_ROWS { most } else { most / SLAB_ROWS * SLAB_ROWS };
        if !k.is_multiple_of(2) || most == 0 || n == 0 {
            return Err(Error::shape(
                label,
                format!("[{n}, {k}]: k must be even and a row fit into a binding"),
            ));
        }
        if let Some(values) = bias
            && values.len() != n
        {
            return Err(Error::shape(label, format!("a bias of {} for {n} outputs", values.len())));
        }
        let slabs = (0..n)
            .step_by(most)
            .map(|first| {
                let range = first..n.min(first + most);
                let bias = bias.map(|values| device.upload(&format!("{label}.bias"), &values[range.clone()]));
                if device.counts() {
                    let buffer = device.alloc(label, (2 * k * range.len()) as u64)?;
                    return Ok(Slab { first, rows: range.len(), buffer, bias: bias.transpose()? });
                }
                let halves = rows(range.clone())?;
                if halves.len() != range.len() * k {
                    return Err(Error::shape(
                        label,
                        format!("{} values for rows {range:?} of {k}", halves.len()),
                    ));
                }
                let buffer = device.upload(label, &halves)?;
                Ok(Slab { first, rows: range.len(), buffer, bias: bias.transpose()? })
            })
            .collect::<Result<_>>()?;
        Ok(Self { n, k, slabs })
    }

    /// The same weights, in the same memory, without their bias.
    pub fn unbiased(&self) -> Self {
        let slab = |slab: &Slab| Slab { buffer: slab.buffer.clone(), bias: None, ..*slab };
        Self { slabs: self.slabs.iter().map(slab).collect(), ..*self }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The pieces, in order.
    pub fn slabs(&self) -> &[Slab] {
        &self.slabs
    }
}
