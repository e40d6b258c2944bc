//! What a linear is fitted to when the layers before it are quantized.
//!
//! With X the inputs that the quantized model makes, R those of the unquantized one, S what the residual stream has lost
//! (unquantized less quantized) and W the weights, GPTQ rounds the W' that minimizes, damping aside,
//! ‖X·W' − (X + α·(R − X))·W − β·S‖²:
//!
//! W' = W + (XᵀX + damping·I)⁻¹·(α·Xᵀ(R − X)·W + β·XᵀS)
//!
//! with α = 1 for the whole of asymmetric calibration (GPTAQ, arXiv 2504.02692, whose correction is made column by
//! column and without damping), and β for linears whose output is added to the residual stream. What the inverse is
//! multiplied with is summed as a [`Lack`], with α and β in it.

use super::accumulate::Lack;
use super::hessian::PreparedHessian;
use crate::gpu::CommandList;
use crate::ops::Tensor;
use crate::ops::gather_rows::gather_rows;
use crate::ops::matmul_tn::{Product, Window, matmul_tn};
use crate::{Error, Result};

/// What a group lacks.
#[derive(Clone, Copy)]
pub struct Correction<'a> {
    /// The sums.
    pub lack: &'a Lack,
    /// Calibration rows that they are over.
    pub rows: usize,
}

impl Correction<'_> {
    /// Adds W' − W to the rows of `ordered` [k, columns], a slab of W in the Hessian's order; `slab` is its number, and
    /// `weights` the same in the order of the features. Holds one or two more of that size meanwhile.
    ///
    /// # Errors
    /// [`Error::Shape`] when the sums are not of this linear; as [`CommandList::run`].
    pub(super) fn apply(
        &self,
        hessian: &PreparedHessian,
        slab: usize,
        weights: &Tensor,
        ordered: &Tensor,
    ) -> Result<()> {
        let (device, k, n) = (weights.device(), weights.rows(), weights.cols());
        let turned = Tensor::zeros(device, "correction in order", k, n)?;
        let mut list = CommandList::new(device, format!("{}: correction", hessian.name()));
        match self.lack {
            Lack::Inputs(sum) => {
                let found = Tensor::zeros(device, "correction", k, n)?;
                for (row, part) in sum.matrix().slabs() {
                    let product = Product {
                        a: Window::whole(part),
                        b: Window { matrix: weights, row, col: 0 },
                        c: Window::whole(&found),
                        rows: part.rows(),
                        m: k,
                        n,
                        alpha: 1.0,
                        beta: if row == 0 { 0.0 } else { 1.0 },
                        weights: None,
                        upper: false,
                    };
                    matmul_tn(&mut list, &product)?;
                }
                gather_rows(&mut list, &found, hessian.order_buffer(), &turned)?;
            }
            Lack::Outputs(slabs) => {
                let parts = slabs.get(slab).map(|sum| sum.matrix().slabs().collect::<Vec<_>>());
                let Some([(_, whole)]) = parts.as_deref() else {
                    let message = "a slab of columns is missing or has more than one of rows";
                    return Err(Error::shape("correction", message));
                };
                gather_rows(&mut list, whole, hessian.order_buffer(), &turned)?;
            }
        }
        list.run()?;
        drop(list);
        hessian.add_solved(&turned, ordered, 1.0 / self.rows.max(1) as f32)
    }
}
