//! One linear, dense or packed, and linears that share an input: the only place that tells the two apart.

use std::sync::Arc;

use half::f16;

use super::block::LinearSpec;
use super::scratch::Scratch;
use crate::formats::exl2;
use crate::formats::safetensors::{Checkpoint, TensorView};
use crate::gpu::{CommandList, Device};
use crate::ops::matmul::{Store, matmul};
use crate::ops::permute::permute;
use crate::ops::quant_matmul::quant_matmul;
use crate::ops::{DenseMatrix, Permutation, QuantMatrix, Tensor};
use crate::packing::PackedMatrix;
use crate::{Error, Result};

/// Weights of a linear on a device.
pub enum Linear {
    /// Half precision.
    Dense(DenseMatrix),
    /// 2 to 8 bits.
    Packed(QuantMatrix),
}

impl Linear {
    /// Loads `spec` from a checkpoint, packed if it is stored so. `known` are permutations to share.
    ///
    /// # Errors
    /// As the file, the format and the device report, with the tensor's name.
    pub fn load(
        device: &Device,
        checkpoint: &Checkpoint,
        spec: &LinearSpec,
        known: &[Arc<Permutation>],
    ) -> Result<Self> {
        if exl2::has_packed(checkpoint, &spec.name) {
            let matrix = exl2::read_packed(checkpoint, &spec.name, spec.k, spec.n)?;
            if matrix.bias.is_some() != spec.bias {
                let expected = if spec.bias { "is missing" } else { "is there, config.json has none" };
                return Err(Error::tensor(checkpoint.directory(), format!("{}.bias", spec.name), expected));
            }
            return Self::packed(device, spec, &matrix, known);
        }
        let view = checkpoint.get(&format!("{}.weight", spec.name))?;
        view.expect_shape(&[spec.n, spec.k])?;
        let bias = if spec.bias {
            let bias = checkpoint.get(&format!("{}.bias", spec.name))?;
            bias.expect_shape(&[spec.n])?;
            Some(bias.to_f32()?)
        } else {
            None
        };
        Self::dense(device, &view, spec.n, spec.k, bias.as_deref())
    }

    /// Uploads a stored matrix [n, k] slab by slab.
    ///
    /// # Errors
    /// As [`DenseMatrix::upload`] and [`TensorView::to_f16`].
    pub fn dense(
        device: &Device,
        view: &TensorView<'_>,
        n: usize,
        k: usize,
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let row_bytes = view.dtype.size() * k;
        let rows = |range: std::ops::Range<usize>| -> Result<Vec<f16>> {
            let bytes = &view.bytes[range.start * row_bytes..range.end * row_bytes];
            TensorView { bytes, ..*view }.to_f16()
        };
        Ok(Self::Dense(DenseMatrix::upload(device, view.name, n, k, rows, bias)?))
    }

    /// Uploads a packed matrix as the linear `spec`.
    ///
    /// # Errors
    /// As [`QuantMatrix::upload`].
    pub fn packed(
        device: &Device,
        spec: &LinearSpec,
        matrix: &PackedMatrix,
        known: &[Arc<Permutation>],
    ) -> Result<Self> {
        Ok(Self::Packed(QuantMatrix::upload(device, &spec.name, matrix, spec.n, known)?))
    }

    /// Output features.
    pub fn n(&self) -> usize {
        match self {
            Self::Dense(matrix) => matrix.n(),
            Self::Packed(matrix) => matrix.n(),
        }
    }

    /// The order of its inputs, unless that is the stored one.
    pub fn permutation(&self) -> Option<&Arc<Permutation>> {
        match self {
            Self::Dense(_) => None,
            Self::Packed(matrix) => Some(matrix.permutation()),
        }
    }

    /// Adds y = x·W to a list, x being in this linear's order.
    fn record(
        &self,
        list: &mut CommandList,
        scratch: &Scratch,
        x: &Tensor,
        y: &Tensor,
        rows: usize,
        store: Store,
    ) -> Result<()> {
        match self {
            Self::Dense(matrix) => matmul(list, x, matrix, y, rows, store),
            Self::Packed(matrix) => quant_matmul(list, x, matrix, y, scratch.decoded(), rows, store),
        }
    }
}

/// Linears that share an input; a copy shares them.
#[derive(Clone)]
pub struct LinearGroup {
    linears: Vec<Arc<Linear>>,
}

impl LinearGroup {
    /// A group in the order of its specification.
    pub fn new(linears: Vec<Arc<Linear>>) -> Self {
        Self { linears }
    }

    /// The linears.
    pub fn linears(&self) -> &[Arc<Linear>] {
        &self.linears
    }

    /// Puts another linear in the place of one.
    pub fn replace(&mut self, index: usize, linear: Arc<Linear>) {
        self.linears[index] = linear;
    }

    /// Adds `outputs[i]` = x·`W[i]` for all linears; one gather of x for each order that occurs.
    ///
    /// # Errors
    /// [`Error::Shape`] when a shape differs; as [`CommandList::dispatch`].
    pub fn record(
        &self,
        list: &mut CommandList,
        scratch: &Scratch,
        x: &Tensor,
        outputs: &[&Tensor],
        rows: usize,
        store: Store,
    ) -> Result<()> {
        let mut pending: Vec<_> = self.linears.iter().zip(outputs).collect();
        while let Some((first, _)) = pending.first() {
            let order = first.permutation().cloned();
            let gathered = match &order {
                Some(order) => {
                    let gathered = scratch.gathered(x.cols())?;
                    permute(list, x, order, &gathered, rows)?;
                    gathered
                }
                None => x.clone(),
            };
            let same = |linear: &Linear| match (linear.permutation(), &order) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one.order() == other.order(),
                (None, None) => true,
                _ => false,
            };
            let (now, later): (Vec<_>, Vec<_>) = pending.into_iter().partition(|(linear, _)| same(linear));
            for (linear, y) in now {
                linear.record(list, scratch, &gathered, y, rows, store)?;
            }
            pending = later;
        }
        Ok(())
    }
}
