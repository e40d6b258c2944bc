//! What a packed linear takes: its input in packed row order and in the form that its arithmetic wants.

use super::QuantGroup;
use crate::gpu::{Buffer, Capabilities, Device, Variant};
use crate::packing::BLOCK_ROWS;
use crate::{Error, Result};

/// How the values of an activation are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Single precision.
    Single,
    /// Blocks of 32 in 16-bit fixed point, split into two signed bytes, with a scale and a sum: exact integer products
    /// by `dot4I8Packed`. Errs by at most half a step of 1/32639 of the block's largest value.
    Fixed,
}

impl Form {
    /// All forms.
    pub const ALL: [Self; 2] = [Self::Single, Self::Fixed];

    /// The form for an adapter: fixed point where a packed dot product is one instruction.
    pub fn of(capabilities: &Capabilities) -> Self {
        if capabilities.packed_dot { Self::Fixed } else { Self::Single }
    }

    /// Words of a row of `k` values, a multiple of 32. Fixed: for each block of 32 values eight words of high bytes and
    /// eight of low ones, then for each block its scale (f32) and the sum of its integers (i32), to whole 16 bytes.
    pub fn row_words(self, k: usize) -> usize {
        match self {
            Self::Single => k,
            Self::Fixed => k / BLOCK_ROWS * 16 + (k / BLOCK_ROWS * 2).next_multiple_of(4),
        }
    }

    /// Puts the storing of this form behind `common/put_single.wgsl`: the one place that tells kernels how.
    pub(super) fn put(self, variant: Variant) -> Variant {
        match self {
            Self::Single => variant,
            Self::Fixed => variant.import("common/put_single.wgsl", "common/put_fixed.wgsl"),
        }
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Single => "f32",
            Self::Fixed => "fx16",
        })
    }
}

impl std::str::FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|form| form.to_string() == text)
            .ok_or_else(|| format!("unknown arithmetic `{text}`; use f32 or fx16"))
    }
}

/// Room for the inputs of groups of linears, one after the other: [copies, rows, row words].
pub struct Activation {
    buffer: Buffer,
    form: Form,
}

impl Activation {
    /// Room for `rows` rows of inputs of length `k` in `copies` orders.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn new(device: &Device, form: Form, copies: usize, rows: usize, k: usize) -> Result<Self> {
        let bytes = 4 * (copies * rows * form.row_words(k)) as u64;
        Ok(Self { buffer: device.alloc("activation", bytes)?, form })
    }

    /// The memory.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// How values are stored.
    pub fn form(&self) -> Form {
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
