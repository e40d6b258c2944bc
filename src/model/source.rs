//! Where a model's weights come from: files, or anything else that can answer the same five questions.

use std::ops::Range;

use half::f16;

use super::block::LinearSpec;
use crate::formats::exl2;
use crate::formats::safetensors::{Checkpoint, TensorView};
use crate::packing::{PackedMatrix, Words};
use crate::{Error, Result};

/// Weights by name, on the host. A [`Checkpoint`] is one, [`super::Synthetic`] another.
pub trait WeightSource: Send + Sync {
    /// Whether there is a float tensor of this name.
    fn has(&self, name: &str) -> bool;

    /// Whether the linear `spec` is packed.
    fn has_packed(&self, spec: &LinearSpec) -> bool;

    /// The linear `spec` where it is packed; `None` where it is not.
    ///
    /// # Errors
    /// As the file and the format report, with the tensor's name; when it has a bias and `spec` has none, or the
    /// reverse.
    fn packed(&self, spec: &LinearSpec) -> Result<Option<PackedMatrix<Words<'_>>>>;

    /// The same for a plan, which needs no words.
    ///
    /// # Errors
    /// As [`WeightSource::packed`].
    fn outline(&self, spec: &LinearSpec) -> Result<Option<PackedMatrix<Words<'_>>>> {
        self.packed(spec)
    }

    /// Rows `range` of the float matrix `name` of shape [rows, columns], rounded to halves.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is missing, has another shape or holds what is no half.
    fn rows(&self, name: &str, shape: [usize; 2], range: Range<usize>) -> Result<Vec<f16>>;

    /// The float vector `name` of `length` values.
    ///
    /// # Errors
    /// As [`WeightSource::rows`].
    fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>>;
}

impl WeightSource for Checkpoint {
    fn has(&self, name: &str) -> bool {
        Self::has(self, name)
    }

    fn has_packed(&self, spec: &LinearSpec) -> bool {
        exl2::has_packed(self, &spec.name)
    }

    fn packed(&self, spec: &LinearSpec) -> Result<Option<PackedMatrix<Words<'_>>>> {
        if !exl2::has_packed(self, &spec.name) {
            return Ok(None);
        }
        let matrix = exl2::lend_packed(self, &spec.name, spec.k, spec.n)?;
        if matrix.bias.is_some() != spec.bias {
            let expected = if spec.bias { "is missing" } else { "is there, config.json has none" };
            return Err(Error::tensor(self.directory(), format!("{}.bias", spec.name), expected));
        }
        Ok(Some(matrix))
    }

    fn rows(&self, name: &str, shape: [usize; 2], range: Range<usize>) -> Result<Vec<f16>> {
        let view = self.get(name)?;
        view.expect_shape(&shape)?;
        let row_bytes = view.dtype.size() * shape[1];
        let bytes = &view.bytes[range.start * row_bytes..range.end * row_bytes];
        TensorView { bytes, ..view }.to_f16()
    }

    fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>> {
        let view = self.get(name)?;
        view.expect_shape(&[length])?;
        view.to_f32()
    }
}
