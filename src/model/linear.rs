//! One linear, dense or packed, and linears that share an input: the only place that tells the two apart.

use std::sync::Arc;

use super::block::LinearSpec;
use super::scratch::Scratch;
use super::source::WeightSource;
use crate::Result;
use crate::gpu::{CommandList, Device};
use crate::ops::matmul::{Store, matmul};
use crate::ops::quant_matmul::quant_matmul;
use crate::ops::{DenseMatrix, GroupMember, Operand, Permutation, QuantGroup, QuantMatrix, Tensor};
use crate::packing::{PackedMatrix, Words};

/// Weights of a linear on a device.
pub enum Linear {
    /// Half precision.
    Dense(DenseMatrix),
    /// 2 to 8 bits.
    Packed(QuantMatrix),
}

impl Linear {
    /// Loads `spec` in half precision.
    ///
    /// # Errors
    /// As the source and the device report, with the tensor's name.
    fn load_dense(device: &Device, source: &dyn WeightSource, spec: &LinearSpec) -> Result<Self> {
        let weight = format!("{}.weight", spec.name);
        let bias = spec.bias.then(|| source.vector(&format!("{}.bias", spec.name), spec.n)).transpose()?;
        Ok(Self::Dense(load_dense(device, source, &weight, [spec.n, spec.k], bias.as_deref())?))
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
        x: &Operand,
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

/// Loads linears of which not all are packed, each by itself.
fn load_apart(
    device: &Device,
    source: &dyn WeightSource,
    specs: &[LinearSpec],
    packed: Vec<Option<PackedMatrix<Words<'_>>>>,
) -> Result<Vec<Arc<Linear>>> {
    let mut known: Vec<Arc<Permutation>> = Vec::new();
    let mut linears = Vec::with_capacity(specs.len());
    for (spec, matrix) in specs.iter().zip(packed) {
        let loaded = match matrix {
            Some(matrix) => {
                Linear::Packed(QuantMatrix::upload_lent(device, &spec.name, &matrix, spec.n, &known)?)
            }
            None => Linear::load_dense(device, source, spec)?,
        };
        known.extend(loaded.permutation().cloned());
        linears.push(Arc::new(loaded));
    }
    Ok(linears)
}

/// Uploads the float matrix `name` of shape [n, k] slab by slab.
///
/// # Errors
/// As [`WeightSource::rows`] and [`DenseMatrix::upload`].
pub(super) fn load_dense(
    device: &Device,
    source: &dyn WeightSource,
    name: &str,
    shape: [usize; 2],
    bias: Option<&[f32]>,
) -> Result<DenseMatrix> {
    let [n, k] = shape;
    DenseMatrix::upload(device, name, n, k, |range| source.rows(name, shape, range), bias)
}

/// Linears that share an input; a copy shares them.
#[derive(Clone)]
pub struct LinearGroup {
    linears: Vec<Arc<Linear>>,
    together: Option<Arc<QuantGroup>>,
}

impl LinearGroup {
    /// A group in the order of its specification.
    pub fn new(linears: Vec<Arc<Linear>>) -> Self {
        Self { linears, together: None }
    }

    /// Loads a group; if all of its linears are packed, they lie together ([`LinearGroup::together`]).
    ///
    /// # Errors
    /// As the source and the device report, with the tensor's name.
    pub fn load(device: &Device, source: &dyn WeightSource, specs: &[LinearSpec]) -> Result<Self> {
        let packed = |spec| if device.counts() { source.outline(spec) } else { source.packed(spec) };
        let packed: Vec<Option<PackedMatrix<Words<'_>>>> = specs.iter().map(packed).collect::<Result<_>>()?;
        if packed.iter().any(Option::is_none) {
            return Ok(Self::new(load_apart(device, source, specs, packed)?));
        }
        let members: Vec<GroupMember<'_>> = specs
            .iter()
            .zip(packed.iter().flatten())
            .map(|(spec, matrix)| GroupMember { label: &spec.name, matrix, n: spec.n })
            .collect();
        let label = specs.first().map_or("", |spec| &spec.name);
        let (together, matrices) = QuantGroup::upload(device, label, &members)?;
        let linears = matrices.into_iter().map(|matrix| Arc::new(Linear::Packed(matrix))).collect();
        Ok(Self { linears, together: Some(Arc::new(together)) })
    }

    /// All linears as operands of one product, where they are packed and were loaded as a group.
    pub fn together(&self) -> Option<&QuantGroup> {
        self.together.as_deref()
    }

    /// The linears.
    pub fn linears(&self) -> &[Arc<Linear>] {
        &self.linears
    }

    /// Puts another linear in the place of one.
    pub fn replace(&mut self, index: usize, linear: Arc<Linear>) {
        self.linears[index] = linear;
        self.together = None;
    }

    /// Adds `outputs[i]` = x·`W[i]` for all linears; x is gathered and put into another form once for each order that occurs.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when a shape differs; as [`CommandList::dispatch`].
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
            let operand = Operand::prepare(list, x, order.as_deref(), &scratch.operand_room(x), rows)?;
            let same = |linear: &Linear| match (linear.permutation(), &order) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one.order() == other.order(),
                (None, None) => true,
                _ => false,
            };
            let (now, later): (Vec<_>, Vec<_>) = pending.into_iter().partition(|(linear, _)| same(linear));
            for (linear, y) in now {
                linear.record(list, scratch, &operand, y, rows, store)?;
            }
            pending = later;
        }
        Ok(())
    }
}
