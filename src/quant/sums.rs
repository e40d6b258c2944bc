//! Sums over calibration tokens of products of two activations, on the device.

use crate::gpu::{Buffer, CommandList, Device};
use crate::ops::column_product::Columns;
use crate::ops::{TallMatrix, Tensor};
use crate::{Error, Result};

/// Σ leftᵀ·diag(w)·right, [m, n], in slabs of rows.
pub struct ProductSum {
    sum: TallMatrix,
    symmetric: bool,
}

/// The tokens of a term.
#[derive(Clone, Copy)]
pub struct Tokens<'a> {
    /// The first rows of the activations.
    pub rows: usize,
    /// f32 `[rows]`, or 1 for every token.
    pub weights: Option<&'a Buffer>,
}

impl Tokens<'_> {
    /// Records the making of an activation into a side of the products over these tokens.
    ///
    /// # Errors
    /// As [`Columns::record`].
    pub fn columns(&self, list: &mut CommandList, x: &Tensor) -> Result<Columns> {
        Columns::record(list, x, self.weights, self.rows)
    }
}

impl ProductSum {
    /// Zeros [m, n].
    ///
    /// # Errors
    /// As [`TallMatrix::zeros`].
    pub fn zeros(device: &Device, name: &str, (m, n): (usize, usize)) -> Result<Self> {
        Ok(Self { sum: TallMatrix::zeros(device, name, m, n)?, symmetric: false })
    }

    /// Zeros [k, k] of which only the part above the diagonal is kept.
    ///
    /// # Errors
    /// As [`TallMatrix::zeros`].
    pub fn symmetric(device: &Device, name: &str, k: usize) -> Result<Self> {
        Ok(Self { sum: TallMatrix::zeros(device, name, k, k)?, symmetric: true })
    }

    /// Adds leftᵀ·diag(w)·right to the list; `left` is of [rows, m], `right` of [rows, n].
    ///
    /// # Errors
    /// As [`ProductSum::add_columns`].
    pub fn add(&self, list: &mut CommandList, left: &Columns, right: &Columns) -> Result<()> {
        self.add_columns(list, left, right, 0)
    }

    /// The same with n columns of `right` from `first` on.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
    pub fn add_columns(
        &self,
        list: &mut CommandList,
        left: &Columns,
        right: &Columns,
        first: usize,
    ) -> Result<()> {
        if self.symmetric && !std::ptr::eq(left, right) {
            return Err(Error::shape("sum of products", "half a matrix is kept of a product that has two"));
        }
        for (row, slab) in self.sum.slabs() {
            Columns::add_product(list, (left, row), (right, first), slab, self.symmetric)?;
        }
        Ok(())
    }

    /// The sum.
    pub fn matrix(&self) -> &TallMatrix {
        &self.sum
    }

    /// The sum.
    pub fn into_matrix(self) -> TallMatrix {
        self.sum
    }
}
