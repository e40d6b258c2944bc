//! What a packed linear takes: its input in packed row order and in the form that its arithmetic wants.

use super::QuantGroup;
use crate::gpu::{Arithmetic, Buffer, Device, Variant};
use crate::packing::BLOCK_ROWS;
use crate::{Error, Result};

impl Arithmetic {
    /// Words of a row of `k` values, a multiple of 32. Fixed: for each block of 32 values eight words of high bytes and
    /// eight of low ones, then for each block its scale (f32) and the sum of its integers (i32), to whole 16 bytes. Pairs: for
    /// each block sixteen words of two high halves and sixteen of two low ones, then for each block its unit (f32), to whole
    /// 16 bytes.
    pub fn row_words(self, k: usize) -> usize {
        let blocks = k / BLOCK_ROWS;
        self.value_words(k)
            + match self {
                Self::Single => 0,
                Self::Fixed => (2 * blocks).next_multiple_of(4),
                Self::Pairs => blocks.next_multiple_of(4),
            }
    }

    /// Of these, those of the values, which come first: a multiple of four.
    pub(super) fn value_words(self, k: usize) -> usize {
        match self {
            Self::Single | Self::Pairs => k,
            Self::Fixed => k / 2,
        }
    }

    /// Puts the storing of this form behind `common/put_single.wgsl`: the one place that tells kernels how.
    pub(super) fn put(self, variant: Variant) -> Variant {
        match self {
            Self::Single => variant,
            Self::Fixed => variant.import("common/put_single.wgsl", "common/put_fixed.wgsl"),
            Self::Pairs => variant.import("common/put_single.wgsl", "common/put_pairs.wgsl"),
        }
    }
}

/// Room for the inputs of groups of linears, one after the other: [copies, rows, row words].
pub struct Activation {
    buffer: Buffer,
    form: Arithmetic,
}

impl Activation {
    /// Room for `words` words: [`Arithmetic::row_words`] for each row and copy.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn new(device: &Device, form: Arithmetic, words: usize) -> Result<Self> {
        Ok(Self { buffer: device.alloc("activation", 4 * words as u64)?, form })
    }

    /// The memory.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// How values are stored.
    pub fn form(&self) -> Arithmetic {
        self.form
    }

    /// Refuses where the inputs of `group` do not fit.
    ///
    /// # Errors
    /// [`Error::Shape`] with both sizes.
    pub fn expect(&self, operation: &str, group: &QuantGroup, rows: usize) -> Result<()> {
        let words = group.copies() * rows * self.form.row_words(group.k());
        if self.buffer.bytes() < 4 * words as u64 {
            let message = format!("an activation of {} bytes for {words} words", self.buffer.bytes());
            return Err(Error::shape(operation, message));
        }
        Ok(())
    }
}

/// Sums that a product leaves for its consumer: f32 [sums, rows, columns], to be added as a binary tree.
pub struct Partial {
    buffer: Buffer,
}

impl Partial {
    /// Room for `values` values.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn new(device: &Device, values: usize) -> Result<Self> {
        Ok(Self { buffer: device.alloc("partial sums", 4 * values as u64)? })
    }

    /// The memory.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}
