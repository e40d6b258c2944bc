//! Packed matrices on a device, cut by columns where a binding ends.
//!
//! The words' order on the device is a property of this type, made from the file's at upload
//! ([`device_words`], the identity for now) and undone by [`file_words`]; only these two and the unpack
//! functions that the kernels import know it.

use std::sync::Arc;

use crate::gpu::{Buffer, Device};
use crate::packing::{BLOCK_ROWS, Layout, PackedMatrix, group_maximum};
use crate::{Error, Result};

/// Columns of a slab are a multiple of this, except in the last one.
const SLAB_COLUMNS: usize = 128;

/// Bytes that a slab may take when it is decoded to halves for a prompt.
const SLAB_HALVES: u64 = 128 << 20;

/// The order in which a packed matrix takes its input features.
pub struct Permutation {
    order: Vec<u32>,
    buffer: Buffer,
}

impl Permutation {
    /// Entry i is the input feature that packed row i multiplies.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// The same on the device.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

/// Some columns of a [`QuantMatrix`] over the whole of k.
pub struct QuantSlab {
    /// Number of the first column.
    pub first: usize,
    /// Columns here, a multiple of 32.
    pub columns: usize,
    /// Packed codes [word_rows, columns].
    pub words: Buffer,
    /// Scale codes [groups, columns / 8].
    pub scales: Buffer,
    /// Single-precision bias `[columns]`.
    pub bias: Option<Buffer>,
}

/// A packed linear [k, n] on a device.
pub struct QuantMatrix {
    k: usize,
    n: usize,
    slabs: Vec<QuantSlab>,
    maxima: Buffer,
    blocks: Buffer,
    permutation: Arc<Permutation>,
    layout: Layout,
}

/// The device's order of the words of a slab, from the file's.
fn device_words(words: Vec<u32>, _layout: &Layout) -> Vec<u32> {
    words
}

/// The file's order of the words of a slab, from the device's.
fn file_words(words: Vec<u32>, _layout: &Layout) -> Vec<u32> {
    words
}

impl QuantMatrix {
    /// Uploads a packed matrix of which the first `n` columns are outputs and the rest is padding.
    /// `known` are permutations on this device; an equal one is shared.
    ///
    /// # Errors
    /// [`Error::Shape`] when `n` exceeds the columns; as [`Device::upload`].
    pub fn upload(
        device: &Device,
        label: &str,
        matrix: &PackedMatrix,
        n: usize,
        known: &[Arc<Permutation>],
    ) -> Result<Self> {
        if n > matrix.n || n == 0 {
            return Err(Error::shape(label, format!("{n} outputs from {} columns", matrix.n)));
        }
        let mut order = vec![0; matrix.k];
        for (feature, &row) in matrix.q_invperm.iter().enumerate() {
            order[row as usize] = feature as u32;
        }
        let permutation = match known.iter().find(|one| one.order == order && one.buffer.device().is(device))
        {
            Some(one) => Arc::clone(one),
            None => {
                Arc::new(Permutation { buffer: device.upload(&format!("{label}.order"), &order)?, order })
            }
        };
        let most = slab_columns(device, matrix.k);
        if most == 0 {
            return Err(Error::shape(
                label,
                format!("{SLAB_COLUMNS} columns of {} rows exceed a binding", matrix.k),
            ));
        }
        let slabs = (0..matrix.n)
            .step_by(most)
            .map(|first| {
                let part = matrix.columns(first..matrix.n.min(first + most));
                let bias = part
                    .bias
                    .as_ref()
                    .map(|bias| bias.iter().map(|value| value.to_f32()).collect::<Vec<_>>());
                Ok(QuantSlab {
                    first,
                    columns: part.n,
                    words: device
                        .upload(&format!("{label}.words"), &device_words(part.q_weight, &matrix.layout))?,
                    scales: device.upload(&format!("{label}.scales"), &part.q_scale)?,
                    bias: bias.map(|bias| device.upload(&format!("{label}.bias"), &bias)).transpose()?,
                })
            })
            .collect::<Result<_>>()?;
        let maxima: Vec<f32> =
            matrix.q_scale_max.iter().map(|&value| group_maximum(value).to_f32()).collect();
        Ok(Self {
            k: matrix.k,
            n,
            slabs,
            maxima: device.upload(&format!("{label}.maxima"), &maxima)?,
            blocks: device.upload(&format!("{label}.blocks"), &block_table(&matrix.layout))?,
            permutation,
            layout: matrix.layout.clone(),
        })
    }

    /// Output features, without padding.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The pieces, in order.
    pub fn slabs(&self) -> &[QuantSlab] {
        &self.slabs
    }

    /// The packed words of a slab as a file has them, read back: [word_rows, columns].
    ///
    /// # Errors
    /// As [`Device::read`].
    pub fn read_words(&self, slab: &QuantSlab) -> Result<Vec<u32>> {
        let words = slab.words.device().read(&slab.words, 0, self.layout.word_rows() * slab.columns)?;
        Ok(file_words(words, &self.layout))
    }

    /// Group maxima rounded to half and divided by 256, as single precision `[groups]`.
    pub fn maxima(&self) -> &Buffer {
        &self.maxima
    }

    /// Per 32 packed rows: first word row, bits | group << 8.
    pub fn blocks(&self) -> &Buffer {
        &self.blocks
    }

    /// The order of its input features.
    pub fn permutation(&self) -> &Arc<Permutation> {
        &self.permutation
    }

    /// Widths and groups.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// Most columns of a slab of a [`QuantMatrix`] with `k` rows, a multiple of 128. A column in halves is larger than packed
/// (8 bits at most, and its scales), so it decides.
pub fn slab_columns(device: &Device, k: usize) -> usize {
    let bytes = device.max_slab_bytes().min(device.decode_limit().unwrap_or(SLAB_HALVES));
    (bytes / (2 * k as u64).max(1)) as usize / SLAB_COLUMNS * SLAB_COLUMNS
}

/// Bytes of scratch that a prompt needs to decode the slabs of a matrix [k, n].
pub fn decode_bytes(device: &Device, k: usize, n: usize) -> u64 {
    2 * (k * n.next_multiple_of(32).min(slab_columns(device, k))) as u64
}

/// Where each block of 32 packed rows lies: (first word row, bits | group << 8).
pub(super) fn block_table(layout: &Layout) -> Vec<[u32; 2]> {
    let mut table = Vec::with_capacity(layout.rows() / BLOCK_ROWS);
    let mut word_row = 0;
    for (index, group) in layout.groups().iter().enumerate() {
        for _ in 0..group.rows / BLOCK_ROWS {
            table.push([word_row, group.bits | (index as u32) << 8]);
            word_row += group.bits;
        }
    }
    table
}
