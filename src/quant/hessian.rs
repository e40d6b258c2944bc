//! Hessians: summed on the device from the inputs of a linear ([`super::sums`]), and factored ([`super::factor`]).
//!
//! H is the mean over calibration rows of Xᵀ·diag(w)·X. Rows of the linear are ordered by H's falling diagonal, H is
//! damped, and U with (H + damping·I)⁻¹ = Uᵀ·U is kept on the device, where `gptq` needs it (ExLlamaV2 0.3.2). H is made in
//! the memory of its sum; with U that is two matrices [k, k] (6.6 GB for k = 28672), and [`PreparedHessian::inverse`] is a
//! third.

use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

pub use super::factor::doubt::Doubt;
pub use super::factor::{Damping, FactoredOn};
use super::factor::{Factored, Moments};
use super::sums::ProductSum;
use crate::gpu::{Buffer, CommandList, Device};
use crate::ops::matmul_tn::{Product, Window, matmul_tn};
use crate::ops::symmetrize::symmetrize;
use crate::ops::{Permutation, TallMatrix};
use crate::{Error, Result};

/// Rows of the inverse that are made together.
const INVERSE_ROWS: usize = 2048;

/// A Hessian ready for quantizing the linears that share it.
pub struct PreparedHessian {
    name: String,
    diagonal: Vec<f32>,
    order: Vec<u32>,
    order_buffer: Buffer,
    hessian: TallMatrix,
    factored: Factored,
    inverse: OnceLock<TallMatrix>,
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
            hessian,
            factored,
            inverse: OnceLock::new(),
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
    pub fn hessian(&self) -> &TallMatrix {
        &self.hessian
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
        let Self { name, hessian: matrix, diagonal, order, .. } = self;
        Moments { name, matrix, diagonal, order }.residual(self.factor(), self.damping().amount, 0)
    }

    /// (H + damping·I)⁻¹ = Uᵀ·U [k, k], features in packed order; made when it is first wanted, in k³/3 operations and a
    /// little: only above the diagonal, and only of the rows of U that are not zero there. Predicted for an H100 at 15 TFLOP/s:
    /// 0.1 ms, 2 ms, 0.55 s for k = 1536, 4096, 28672.
    ///
    /// # Errors
    /// As the device reports.
    pub fn inverse(&self) -> Result<&TallMatrix> {
        if let Some(inverse) = self.inverse.get() {
            return Ok(inverse);
        }
        let (device, k) = (self.factor().device().clone(), self.k());
        let inverse = TallMatrix::zeros(&device, &format!("{}.inverse", self.name), k, k)?;
        for (slab_first, slab) in inverse.slabs() {
            for row in (0..slab.rows()).step_by(INVERSE_ROWS) {
                let mut list = CommandList::new(&device, format!("{}: inverse", self.name));
                let (first, m) = (slab_first + row, INVERSE_ROWS.min(slab.rows() - row));
                for (from, factor) in self.factor().slabs().filter(|(from, _)| *from < first + m) {
                    let product = Product {
                        a: Window { matrix: factor, row: 0, col: first },
                        b: Window { matrix: factor, row: 0, col: first },
                        c: Window { matrix: slab, row, col: first },
                        rows: factor.rows().min(first + m - from),
                        m,
                        n: k - first,
                        alpha: 1.0,
                        beta: if from == 0 { 0.0 } else { 1.0 },
                        weights: None,
                        upper: true,
                    };
                    matmul_tn(&mut list, &product)?;
                }
                list.run()?;
            }
        }
        whole(&self.name, &inverse, 1.0)?;
        Ok(self.inverse.get_or_init(|| inverse))
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
