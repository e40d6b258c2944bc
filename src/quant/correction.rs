//! What a linear is fitted to when the layers before it are quantized.
//!
//! With X the inputs that the quantized model makes, R those of the unquantized one, S what the residual stream has lost
//! (unquantized less quantized) and W the weights, GPTQ rounds the W' that minimizes, damping aside,
//! ‖X·W' − (X + α·(R − X))·W − β·S‖²:
//!
//! W' = W + (XᵀX + damping·I)⁻¹·(α·Xᵀ(R − X)·W + β·XᵀS)
//!
//! with α = 1 for the whole of asymmetric calibration (GPTAQ, arXiv 2504.02692, whose correction is made column by
//! column and without damping), and β for linears whose output is added to the residual stream.

use super::accumulate::PairedSums;
use super::hessian::PreparedHessian;
use super::method::Method;
use crate::gpu::CommandList;
use crate::ops::Tensor;
use crate::ops::gather_rows::gather_rows;
use crate::ops::matmul_tn::{Product, Window, matmul_tn};
use crate::{Error, Result};

/// The sums of a group and the parts that are taken of them.
pub struct Correction<'a> {
    /// Of the group's inputs.
    pub sums: &'a PairedSums,
    /// α and β.
    pub method: Method,
    /// Calibration rows that the sums are over.
    pub rows: usize,
}

impl Correction<'_> {
    /// Adds W' − W to the rows of `ordered` [k, columns], a slab of W in the Hessian's order; `slab` is its number, and
    /// `weights` the same in the order of the features.
    ///
    /// # Errors
    /// [`Error::Shape`] when the sums are not of this linear; as [`CommandList::dispatch`].
    pub(super) fn record(
        &self,
        list: &mut CommandList,
        hessian: &PreparedHessian,
        slab: usize,
        weights: &Tensor,
        ordered: &Tensor,
    ) -> Result<()> {
        let Method { asymmetry, residual, .. } = self.method;
        let stream = self.sums.residual.get(slab).filter(|_| residual != 0.0);
        if stream.is_none() && asymmetry == 0.0 {
            return Ok(());
        }
        let (k, n) = (weights.rows(), weights.cols());
        let zeros = |label| Tensor::zeros(list.device(), label, k, n);
        let (sum, turned) = (zeros("correction")?, zeros("correction in order")?);
        // XᵀS is taken as it is summed, everything else in units of it.
        let (unit, rows) = (if stream.is_some() { residual } else { 1.0 }, self.rows.max(1) as f32);
        // sum[c, :] += factor·Σ_r a[r, c]·b[r, :], of which `a` holds the rows from `row` on.
        let add =
            |list: &mut CommandList, (row, a): (usize, &Tensor), b: &Tensor, c: &Tensor, factor: f32| {
                let product = Product {
                    a: Window::whole(a),
                    b: Window { matrix: b, row, col: 0 },
                    c: Window::whole(c),
                    rows: a.rows(),
                    m: k,
                    n,
                    alpha: factor,
                    beta: 1.0,
                    weights: None,
                    upper: false,
                };
                matmul_tn(list, &product)
            };
        match stream.map(|stream| stream.matrix().slabs().collect::<Vec<_>>()).as_deref() {
            None => list.clear(sum.buffer()),
            Some([(_, whole)]) => list.copy(whole.buffer(), 0, sum.buffer(), 0, (4 * k * n) as u64)?,
            Some(_) => return Err(Error::shape("correction", "a slab of columns has more than one of rows")),
        }
        if asymmetry != 0.0 {
            for part in self.sums.cross.matrix().slabs() {
                add(list, part, weights, &sum, asymmetry / unit)?;
            }
        }
        gather_rows(list, &sum, hessian.order_buffer(), &turned)?;
        for part in hessian.inverse()?.slabs() {
            add(list, part, &turned, ordered, unit / rows)?;
        }
        Ok(())
    }
}
