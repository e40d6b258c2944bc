//! Packed matrices on a device, cut by columns where a binding ends.
//!
//! The words' order on the device (`packing::quad_pieces`) is a property of this type, made from the file's at upload;
//! beside that only the generated text that takes words apart knows it.

use std::ops::Range;
use std::sync::Arc;

use super::reorder::reorder;
use crate::gpu::{Buffer, CommandList, Device, Rows};
use crate::packing::{BLOCK_ROWS, Layout, PackedMatrix, Words, group_maximum};
use crate::{Error, Result};

/// Columns of a slab are a multiple of this, except in the last one.
const SLAB_COLUMNS: usize = 128;

/// Bytes that a slab may take when it is decoded to halves for a prompt.
const SLAB_HALVES: u64 = 64 << 20;

/// The order in which a packed matrix takes its input features.
pub struct Permutation {
    order: Vec<u32>,
    buffer: Buffer,
}

impl Permutation {
    /// The order of a matrix, one of `known` if that is equal and on this device.
    fn shared(device: &Device, label: &str, q_invperm: &[u32], known: &[Arc<Self>]) -> Result<Arc<Self>> {
        let mut order = vec![0; q_invperm.len()];
        for (feature, &row) in q_invperm.iter().enumerate() {
            order[row as usize] = feature as u32;
        }
        if let Some(one) = known.iter().find(|one| one.order == order && one.buffer.device().is(device)) {
            return Ok(Arc::clone(one));
        }
        Ok(Arc::new(Self { buffer: device.upload(&format!("{label}.order"), &order)?, order }))
    }

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
        Self::upload_lent(device, label, &matrix.lend(), n, known)
    }

    /// [`QuantMatrix::upload`] of words that may lie elsewhere.
    ///
    /// # Errors
    /// As [`QuantMatrix::upload`].
    pub fn upload_lent(
        device: &Device,
        label: &str,
        matrix: &PackedMatrix<Words<'_>>,
        n: usize,
        known: &[Arc<Permutation>],
    ) -> Result<Self> {
        let mut words = |bytes| device.alloc(&format!("{label}.words"), bytes);
        let mut scales = |bytes| device.alloc(&format!("{label}.scales"), bytes);
        Self::place(device, label, matrix, n, known, &mut Room { words: &mut words, scales: &mut scales })
    }

    /// [`QuantMatrix::upload`] into memory that the caller lends, slab by slab.
    pub(super) fn place(
        device: &Device,
        label: &str,
        matrix: &PackedMatrix<Words<'_>>,
        n: usize,
        known: &[Arc<Permutation>],
        room: &mut Room<'_>,
    ) -> Result<Self> {
        if n > matrix.n || n == 0 {
            return Err(Error::shape(label, format!("{n} outputs from {} columns", matrix.n)));
        }
        let permutation = Permutation::shared(device, label, &matrix.q_invperm, known)?;
        let blocks = device.upload(&format!("{label}.blocks"), &block_table(&matrix.layout))?;
        let slabs = slab_ranges(device, label, matrix)?
            .into_iter()
            .map(|range| {
                let (first, columns) = (range.start, range.len());
                let bias: Option<Vec<f32>> =
                    matrix.bias.as_ref().map(|bias| bias[range].iter().map(|value| value.to_f32()).collect());
                let words = (room.words)((4 * matrix.layout.word_rows() * columns) as u64)?;
                let scales = (room.scales)((matrix.layout.groups().len() * columns / 2) as u64)?;
                if !device.counts() {
                    let (bytes, stride) = (matrix.q_weight.bytes(), 4 * matrix.n);
                    device.write_rows(
                        &words,
                        0,
                        &Rows { bytes, stride, first: 4 * first, width: 4 * columns },
                    )?;
                    let (bytes, stride) = (matrix.q_scale.bytes(), matrix.n / 2);
                    device.write_rows(
                        &scales,
                        0,
                        &Rows { bytes, stride, first: first / 2, width: columns / 2 },
                    )?;
                    let mut list = CommandList::new(device, format!("order of {label}"));
                    reorder(&mut list, &matrix.layout, &blocks, &words, columns)?;
                    list.run()?;
                }
                let bias = bias.map(|bias| device.upload(&format!("{label}.bias"), &bias)).transpose()?;
                Ok(QuantSlab { first, columns, words, scales, bias })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            k: matrix.k,
            n,
            slabs,
            maxima: device.upload(&format!("{label}.maxima"), &maxima(matrix))?,
            blocks,
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

/// Where the slabs of a matrix find memory: functions that yield so many bytes.
pub(super) struct Room<'a> {
    pub(super) words: &'a mut dyn FnMut(u64) -> Result<Buffer>,
    pub(super) scales: &'a mut dyn FnMut(u64) -> Result<Buffer>,
}

/// Columns of each slab of a matrix.
///
/// # Errors
/// [`Error::Shape`] when the narrowest slab exceeds a binding.
pub(super) fn slab_ranges<W>(
    device: &Device,
    label: &str,
    matrix: &PackedMatrix<W>,
) -> Result<Vec<Range<usize>>> {
    let most = slab_columns(device, matrix.k);
    if most == 0 {
        let message = format!("{SLAB_COLUMNS} columns of {} rows exceed a binding", matrix.k);
        return Err(Error::shape(label, message));
    }
    Ok((0..matrix.n).step_by(most).map(|first| first..matrix.n.min(first + most)).collect())
}

/// Group maxima rounded to half and divided by 256 `[groups]`.
pub(super) fn maxima<W>(matrix: &PackedMatrix<W>) -> Vec<f32> {
    matrix.q_scale_max.iter().map(|&value| group_maximum(value).to_f32()).collect()
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
pub fn block_table(layout: &Layout) -> Vec<[u32; 2]> {
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
