//! Hessians: summed on the device from the inputs of a linear ([`super::sums`]), and factored ([`super::factor`]).
//!
//! H is the mean over calibration rows of Xᵀ·diag(w)·X. Rows of the linear are ordered by H's falling diagonal, H is
//! damped, and U with (H + damping·I)⁻¹ = Uᵀ·U is kept on the device, where `gptq` needs it (ExLlamaV2 0.3.2). H is made in
//! the memory of its sum; with U that is two matrices [k, k] (6.6 GB for k = 28672), of which H can be forgotten
//! ([`PreparedHessian::forget`]) once nothing is measured by it any more.

use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

pub use super::factor::doubt::Doubt;
pub use super::factor::{Damping, FactoredOn};
use super::factor::{Factored, Moments};
use super::sums::ProductSum;
use crate::gpu::{Buffer, CommandList, Device};
use crate::ops::matmul_tn::{Product, Window, matmul_tn};
use crate::ops::symmetrize::symmetrize;
use crate::ops::{Permutation, TallMatrix, Tensor};
use crate::{Error, Result};

/// Columns of the inverse that are made together.
const PANEL: usize = 1024;

/// A Hessian ready for quantizing the linears that share it.
pub struct PreparedHessian {
    name: String,
    diagonal: Vec<f32>,
    order: Vec<u32>,
    order_buffer: Buffer,
    hessian: Option<TallMatrix>,
    factored: Factored,
    pub(super) permutation: OnceLock<Arc<Permutation>>,
}

impl PreparedHessian {
    /// Divides a sum over `rows` calibration rows by their number and factors it; `name` is a linear's, for messages. The
    /// damping is `damping` times the diagonal's mean, at least 1e-5; it is added again, up to ten times in all, while the
    /// matrix has no factor.
    ///
    /// # Errors
    /// [`Error::Numerical`] when a value is not finite or no damping helps; as the device reports.
    pub fn of_sum(name: &str, sum: ProductSum, rows: usize, damping: f64) -> Result<Self> {
        let on = FactoredOn::choose(sum.matrix().device());
        Self::of_sum_on(on, name, sum, rows, damping)
    }

    /// The same, factored where the caller says; on the host all the same where the device's factor is in doubt.
    ///
    /// # Errors
    /// As [`PreparedHessian::of_sum`].
    pub fn of_sum_on(on: FactoredOn, name: &str, sum: ProductSum, rows: usize, damping: f64) -> Result<Self> {
        Self::build(on, name, sum.into_matrix(), 1.0 / rows.max(1) as f32, damping)
    }

    /// Factors a symmetric Hessian `values` [k, k].
    ///
    /// # Errors
    /// [`Error::Shape`] when `values` is not square; as [`PreparedHessian::of_sum`].
    pub fn new(device: &Device, name: &str, values: &[f32], damping: f64) -> Result<Self> {
        Self::new_on(FactoredOn::choose(device), device, name, values, damping)
    }

    /// The same, factored where the caller says, as in [`PreparedHessian::of_sum_on`].
    ///
    /// # Errors
    /// As [`PreparedHessian::new`].
    pub fn new_on(on: FactoredOn, device: &Device, name: &str, values: &[f32], damping: f64) -> Result<Self> {
        let k = values.len().isqrt();
        if k == 0 || k * k != values.len() {
            return Err(Error::shape(name, format!("a Hessian of {} values is not square", values.len())));
        }
        let matrix = TallMatrix::upload(device, &format!("{name}.hessian"), values, k)?;
        Self::build(on, name, matrix, 1.0, damping)
    }

    fn build(on: FactoredOn, name: &str, hessian: TallMatrix, share: f32, damping: f64) -> Result<Self> {
        let device = hessian.device().clone();
        let (diagonal, finite) = whole(name, &hessian, share)?;
        if !finite {
            return Err(not_finite(name, &hessian)?);
        }
        let order = activation_order(&diagonal);
        let moments = Moments { name, matrix: &hessian, diagonal: &diagonal, order: &order };
        let factored = moments.factor(damping, on)?;
        Ok(Self {
            name: name.to_owned(),
            order_buffer: device.upload(&format!("{name}.order"), &order)?,
            order,
            diagonal,
            hessian: Some(hessian),
            factored,
            permutation: OnceLock::new(),
        })
    }

    /// The linear's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.order.len()
    }

    /// The input feature of each packed row: by falling diagonal of H, the lower feature first where equal.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// The same on the device.
    pub fn order_buffer(&self) -> &Buffer {
        &self.order_buffer
    }

    /// H [k, k] without damping, features in their own order.
    ///
    /// # Errors
    /// [`Error::Shape`] when it was forgotten.
    pub fn hessian(&self) -> Result<&TallMatrix> {
        self.hessian
            .as_ref()
            .ok_or_else(|| Error::shape(&self.name, "its Hessian was forgotten, its factor is left"))
    }

    /// Gives back the memory of H, which U does not need.
    pub fn forget(&mut self) {
        self.hessian = None;
    }

    /// U [k, k], upper triangular, features in packed order.
    pub fn factor(&self) -> &TallMatrix {
        &self.factored.factor
    }

    /// The damping in U.
    pub fn damping(&self) -> Damping {
        self.factored.damping
    }

    /// Where U was worked out.
    pub fn factored_on(&self) -> FactoredOn {
        self.factored.on
    }

    /// Why U is not the device's, where that was asked for.
    pub fn doubt(&self) -> Option<Doubt> {
        self.factored.doubt
    }

    /// The largest element, in size, of (H + damping·I)·Uᵀ·U − I, H scaled to a diagonal of ones, in the columns of the first
    /// 32 and the last packed rows.
    ///
    /// # Errors
    /// As the device reports; [`Error::Shape`] when k is no multiple of four.
    pub fn residual(&self) -> Result<f64> {
        let (Self { name, diagonal, order, .. }, matrix) = (self, self.hessian()?);
        Moments { name, matrix, diagonal, order }.residual(self.factor(), self.damping().amount, 0)
    }

    /// Adds `factor`·(H + damping·I)⁻¹·`right` to `to`, both [k, n] in packed order. Uᵀ·U is made a few columns at a time, in k³
    /// operations and as many as its product takes, and not kept.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ; as the device reports.
    pub fn add_solved(&self, right: &Tensor, to: &Tensor, factor: f32) -> Result<()> {
        let (device, k, n) = (self.factor().device(), self.k(), right.cols());
        right.expect("a solution", k, n)?;
        to.expect("a solution", k, n)?;
        let most = (device.max_slab_bytes() / (4 * k as u64)) as usize / 4 * 4;
        let panel =
            Tensor::zeros(device, &format!("{}.inverse", self.name), k, PANEL.min(k).min(most.max(4)))?;
        for first in (0..k).step_by(panel.cols()) {
            let count = panel.cols().min(k - first);
            let mut list = CommandList::new(device, format!("{}: solution", self.name));
            // Rows of U below the panel's columns have zeros in them.
            for (row, slab) in self.factor().slabs().filter(|(row, _)| *row < first + count) {
                let product = Product {
                    a: Window::whole(slab),
                    b: Window { matrix: slab, row: 0, col: first },
                    c: Window::whole(&panel),
                    rows: slab.rows().min(first + count - row),
                    m: k,
                    n: count,
                    alpha: 1.0,
                    beta: if row == 0 { 0.0 } else { 1.0 },
                    weights: None,
                    upper: false,
                };
                matmul_tn(&mut list, &product)?;
            }
            let product = Product {
                a: Window::whole(&panel),
                b: Window::whole(right),
                c: Window { matrix: to, row: first, col: 0 },
                rows: k,
                m: count,
                n,
                alpha: factor,
                beta: 1.0,
                weights: None,
                upper: false,
            };
            matmul_tn(&mut list, &product)?;
            list.run()?;
        }
        Ok(())
    }
}

/// Makes a matrix, [k, k], whole from its upper half times `share`; its diagonal, and whether all of it is finite.
fn whole(name: &str, matrix: &TallMatrix, share: f32) -> Result<(Vec<f32>, bool)> {
    let (device, k) = (matrix.device().clone(), matrix.cols());
    let diagonal = device.alloc(&format!("{name}: diagonal"), 4 * k as u64)?;
    let bad = device.alloc(&format!("{name}: not finite"), 4)?;
    let mut list = CommandList::new(&device, format!("{name}: mirrored"));
    symmetrize(&mut list, matrix, share, &diagonal, &bad)?;
    list.run()?;
    Ok((device.read(&diagonal, 0, k)?, device.read::<u32>(&bad, 0, 1)? == [0]))
}

/// Names a value that is not finite.
fn not_finite(name: &str, matrix: &TallMatrix) -> Result<Error> {
    let (values, k) = (matrix.read()?, matrix.cols());
    let at = values.par_iter().position_first(|value| !value.is_finite()).unwrap_or(0);
    let message = format!(
        "the Hessian holds {} at ({}, {}): activations before this layer are not finite; check the model's weights",
        values[at],
        at / k,
        at % k
    );
    Ok(Error::Numerical { place: name.to_owned(), message })
}

fn activation_order(diagonal: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..diagonal.len() as u32).collect();
    order.sort_by(|&a, &b| diagonal[b as usize].total_cmp(&diagonal[a as usize]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_come_by_falling_diagonal_the_lower_first() {
        assert_eq!(activation_order(&[1.0, 3.0, 0.0, 3.0, 2.0]), [1, 3, 4, 0, 2]);
    }
}
