//! Whether a factor made in single precision is to be trusted.

use std::fmt;

use super::Moments;
use crate::Result;
use crate::gpu::CommandList;
use crate::ops::gather_rows::gather_rows;
use crate::ops::matmul_tn::{Product, Window, matmul_tn};
use crate::ops::{TallMatrix, Tensor};

/// Columns of the inverse that are checked at a time.
const WINDOW: usize = 32;

/// The largest element of M·M⁻¹ − I that is let pass, M being H + damping·I scaled to a diagonal of ones. Single precision
/// gives about 1e-7 times an element of M⁻¹.
const MOST_RESIDUAL: f64 = 0.05;

/// Why a factor was not taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Doubt {
    /// A feature is all but determined by others.
    Pivot {
        /// What is left of its 1.
        pivot: f32,
        /// What should be left at least.
        least: f32,
    },
    /// There was none, however often damping was added.
    Indefinite {
        /// How often.
        attempts: u32,
    },
    /// It does not invert the matrix.
    Residual {
        /// The largest element of M·M⁻¹ − I among those looked at.
        found: f64,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pivot { pivot, least } => {
                write!(f, "a pivot of {pivot:.1e} where single precision needs {least:.1e}")
            }
            Self::Indefinite { attempts } => write!(f, "not positive definite when damped {attempts} times"),
            Self::Residual { found } => {
                write!(f, "H·H⁻¹ differs from 1 by {found:.1e} where {MOST_RESIDUAL} is the most")
            }
        }
    }
}

/// The least pivot for k rows: what is taken from a diagonal of 1 in k / 256 parts errs by a rounding each, of random sign; a
/// pivot should be 16 times that.
fn least_pivot(k: usize) -> f32 {
    16.0 * (f32::EPSILON / 2.0) * (k as f32 / 256.0).max(1.0).sqrt()
}

/// The number of the least of the pivots.
///
/// # Errors
/// In the order in which they were made, the first that is too small decides: if it could as well be positive, the doubt, and
/// otherwise `None`, as there is no factor.
pub(super) fn of_pivots(pivots: &[f32]) -> std::result::Result<usize, Option<Doubt>> {
    let least = least_pivot(pivots.len());
    if let Some(&pivot) = pivots.iter().find(|&&pivot| pivot.is_nan() || pivot < least) {
        return Err((pivot > -least).then_some(Doubt::Pivot { pivot, least }));
    }
    let worst = pivots.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
    Ok(worst.map_or(0, |(at, _)| at))
}

/// What to say of a residual.
pub(super) fn of_residual(found: f64) -> Option<Doubt> {
    (found.is_nan() || found > MOST_RESIDUAL).then_some(Doubt::Residual { found })
}

impl Moments<'_> {
    /// The largest element, in size, of M·M⁻¹ − I with M⁻¹ as `factor` has it, of the columns around packed row `worst` and of
    /// the last ones, which all rows of the factor enter.
    ///
    /// # Errors
    /// As the device reports.
    pub(in crate::quant) fn residual(&self, factor: &TallMatrix, amount: f64, worst: usize) -> Result<f64> {
        let k = self.order.len();
        let mut largest = 0.0_f64;
        for first in [worst / WINDOW * WINDOW, (k - 1) / WINDOW * WINDOW] {
            let found = self.residual_of(factor, amount, first)?;
            if found.is_nan() {
                return Ok(found);
            }
            largest = largest.max(found);
        }
        Ok(largest)
    }

    fn residual_of(&self, factor: &TallMatrix, amount: f64, first: usize) -> Result<f64> {
        let (device, k) = (factor.device().clone(), self.order.len());
        let n = WINDOW.min(k - first);
        let mut place = vec![0_u32; k];
        for (at, &feature) in self.order.iter().enumerate() {
            place[feature as usize] = at as u32;
        }
        let place_buffer = device.upload("place", &place)?;
        let tensor = |label: &str| Tensor::zeros(&device, label, k, n);
        let (ordered, inverse, product) = (tensor("ordered")?, tensor("inverse")?, tensor("product")?);
        let mut list = CommandList::new(&device, format!("{}: residual", self.name));
        let add = |list: &mut CommandList, a: &Tensor, rows: usize, b: Window<'_>, c: &Tensor| {
            let (a, c) = (Window::whole(a), Window::whole(c));
            let product =
                Product { a, b, c, rows, m: k, n, alpha: 1.0, beta: 1.0, weights: None, upper: false };
            matmul_tn(list, &product)
        };
        // Rows of U below the window have zeros in it.
        for (row, slab) in factor.slabs().filter(|(row, _)| *row < first + n) {
            let rows = slab.rows().min(first + n - row);
            add(&mut list, slab, rows, Window { matrix: slab, row: 0, col: first }, &ordered)?;
        }
        gather_rows(&mut list, &ordered, &place_buffer, &inverse)?;
        for (row, slab) in self.matrix.slabs() {
            add(&mut list, slab, slab.rows(), Window { matrix: &inverse, row, col: 0 }, &product)?;
        }
        list.run()?;
        let (inverse, product) = (inverse.read(k)?, product.read(k)?);
        let size = |feature: usize| (f64::from(self.diagonal[feature]) + amount).sqrt();
        let mut largest = 0.0_f64;
        for (at, (&product, &inverse)) in product.iter().zip(&inverse).enumerate() {
            let (feature, column) = (at / n, self.order[first + at % n] as usize);
            let unit = if feature == column { 1.0 } else { 0.0 };
            let element = f64::from(product) + amount * f64::from(inverse) - unit;
            let scaled = (element * size(column) / size(feature)).abs();
            if scaled.is_nan() {
                return Ok(scaled);
            }
            largest = largest.max(scaled);
        }
        Ok(largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_small_pivot_decides() {
        assert_eq!(of_pivots(&[1.0, 0.2, 0.7]), Ok(1));
        let least = least_pivot(3);
        assert_eq!(of_pivots(&[1.0, 1e-9, -5.0]), Err(Some(Doubt::Pivot { pivot: 1e-9, least })));
        assert_eq!(of_pivots(&[1.0, -0.01, 1e-9]), Err(None));
        assert_eq!(of_pivots(&[1.0, f32::NAN]), Err(None));
        assert!(least_pivot(28672) < 1.1e-5);
        assert_eq!(of_residual(0.01), None);
        assert!(of_residual(f64::NAN).is_some() && of_residual(0.06).is_some());
    }
}
