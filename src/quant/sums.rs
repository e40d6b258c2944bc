//! Sums over calibration tokens of products of two activations, on the device.

use crate::gpu::{Buffer, CommandList, Device};
use crate::ops::matmul_tn::{Product, Window, matmul_tn};
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

    /// Adds leftᵀ·diag(w)·right to the list; `left` is [rows, m], `right` [rows, n].
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
    pub fn add(
        &self,
        list: &mut CommandList,
        left: &Tensor,
        right: &Tensor,
        Tokens { rows, weights }: Tokens<'_>,
    ) -> Result<()> {
        right.expect("sum of products", rows, self.sum.cols())?;
        self.add_columns(list, left, right, 0, Tokens { rows, weights })
    }

    /// The same with columns of `right` from `first` on, as many as it has and at most n.
    ///
    /// # Errors
    /// As [`ProductSum::add`].
    pub fn add_columns(
        &self,
        list: &mut CommandList,
        left: &Tensor,
        right: &Tensor,
        first: usize,
        Tokens { rows, weights }: Tokens<'_>,
    ) -> Result<()> {
        left.expect("sum of products", rows, self.sum.rows())?;
        if self.symmetric && !left.buffer().is(right.buffer()) {
            return Err(Error::shape("sum of products", "half a matrix is kept of a product that has two"));
        }
        for (row, slab) in self.sum.slabs() {
            let product = Product {
                a: Window { matrix: left, row: 0, col: row },
                b: Window { matrix: right, row: 0, col: first },
                c: Window::whole(slab),
                rows,
                m: slab.rows(),
                n: self.sum.cols().min(right.cols().saturating_sub(first)),
                alpha: 1.0,
                beta: 1.0,
                weights,
                upper: self.symmetric,
            };
            matmul_tn(list, &product)?;
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
