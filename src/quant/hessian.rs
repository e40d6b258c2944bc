//! Hessians: summed on the device from the inputs of a linear ([`super::sums`]), factored on the host.
//!
//! H is the mean over calibration rows of Xᵀ·diag(w)·X. Rows of the linear are ordered by H's falling diagonal, H is
//! damped, and U with (H + damping·I)⁻¹ = Uᵀ·U goes back to the device, where `gptq` needs it (ExLlamaV2 0.3.2).

use std::sync::{Arc, OnceLock};

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{MatMut, MatRef, Par};
use rayon::prelude::*;

use super::sums::ProductSum;
use crate::gpu::{Buffer, CommandList, Device};
use crate::ops::matmul_tn::{Product, Window, matmul_tn};
use crate::ops::{Permutation, TallMatrix};
use crate::{Error, Result};

/// The least damping.
const DAMPING_FLOOR: f64 = 1e-5;

/// How often a Hessian that has no factor gets the damping added once more.
const ATTEMPTS: u32 = 10;

/// Copies what is above the diagonal below it.
fn mirror(values: &mut [f32], k: usize) {
    for row in 1..k {
        let (above, below) = values.split_at_mut(row * k);
        for (column, value) in below[..row].iter_mut().enumerate() {
            *value = above[column * k + row];
        }
    }
}

/// What a Hessian needed to be factored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damping {
    /// Added to the diagonal in all.
    pub amount: f64,
    /// 1 unless the matrix was ill-conditioned: the damping was added so many times.
    pub attempts: u32,
}

/// A Hessian ready for quantizing the linears that share it.
pub struct PreparedHessian {
    name: String,
    order: Vec<u32>,
    order_buffer: Buffer,
    hessian: TallMatrix,
    factor: TallMatrix,
    damping: Damping,
    inverse: OnceLock<TallMatrix>,
    pub(super) permutation: OnceLock<Arc<Permutation>>,
}

impl PreparedHessian {
    /// Divides a sum over `rows` calibration rows by their number and factors it; `name` is a linear's, for messages.
    ///
    /// # Errors
    /// As [`PreparedHessian::new`] and [`Device::read`].
    pub fn of_sum(name: &str, sum: ProductSum, rows: usize, damping: f64) -> Result<Self> {
        let sum = sum.into_matrix();
        let mut values = sum.read()?;
        let divisor = rows.max(1) as f64;
        values.par_iter_mut().for_each(|value| *value = (f64::from(*value) / divisor) as f32);
        mirror(&mut values, sum.cols());
        let device = sum.device().clone();
        Self::build(&device, name, values, damping, Some(sum))
    }

    /// Factors a symmetric Hessian `values` [k, k]. The damping is `damping` times the diagonal's mean, at least 1e-5; it
    /// is added again, up to ten times in all, while the matrix has no factor.
    ///
    /// # Errors
    /// [`Error::Shape`] when `values` is not square, [`Error::Numerical`] when a value is not finite or no damping helps;
    /// as [`Device::upload`].
    pub fn new(device: &Device, name: &str, values: Vec<f32>, damping: f64) -> Result<Self> {
        Self::build(device, name, values, damping, None)
    }

    fn build(
        device: &Device,
        name: &str,
        values: Vec<f32>,
        damping: f64,
        memory: Option<TallMatrix>,
    ) -> Result<Self> {
        let k = values.len().isqrt();
        if k == 0 || k * k != values.len() {
            return Err(Error::shape(name, format!("a Hessian of {} values is not square", values.len())));
        }
        if let Some(at) = values.par_iter().position_any(|value| !value.is_finite()) {
            let message = format!(
                "the Hessian holds {} at ({}, {}): activations before this layer are not finite; check the model's weights",
                values[at],
                at / k,
                at % k
            );
            return Err(Error::Numerical { place: name.to_owned(), message });
        }
        let order = activation_order(&values, k);
        let (factor, damping) = factor(name, &values, &order, damping)?;
        let hessian = match memory {
            Some(memory) => memory,
            None => TallMatrix::zeros(device, &format!("{name}.hessian"), k, k)?,
        };
        hessian.write(&values)?;
        drop(values);
        Ok(Self {
            name: name.to_owned(),
            order_buffer: device.upload(&format!("{name}.order"), &order)?,
            order,
            hessian,
            factor: TallMatrix::upload(device, &format!("{name}.factor"), &factor, k)?,
            damping,
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
        &self.factor
    }

    /// (H + damping·I)⁻¹ = Uᵀ·U [k, k], features in packed order; made when it is first wanted.
    ///
    /// # Errors
    /// As the device reports.
    pub fn inverse(&self) -> Result<&TallMatrix> {
        if let Some(inverse) = self.inverse.get() {
            return Ok(inverse);
        }
        let (device, k) = (self.factor.device().clone(), self.k());
        let inverse = TallMatrix::zeros(&device, &format!("{}.inverse", self.name), k, k)?;
        let mut list = CommandList::new(&device, format!("{}: inverse", self.name));
        for (first, slab) in inverse.slabs() {
            for (row, factor) in self.factor.slabs() {
                let product = Product {
                    a: Window { matrix: factor, row: 0, col: first },
                    b: Window::whole(factor),
                    c: Window::whole(slab),
                    rows: factor.rows(),
                    m: slab.rows(),
                    n: k,
                    alpha: 1.0,
                    beta: if row == 0 { 0.0 } else { 1.0 },
                    weights: None,
                    upper: false,
                };
                matmul_tn(&mut list, &product)?;
            }
        }
        list.run()?;
        Ok(self.inverse.get_or_init(|| inverse))
    }

    /// The damping in U.
    pub fn damping(&self) -> Damping {
        self.damping
    }
}

fn activation_order(values: &[f32], k: usize) -> Vec<u32> {
    let diagonal = |row: u32| values[row as usize * (k + 1)];
    let mut order: Vec<u32> = (0..k as u32).collect();
    order.sort_by(|&a, &b| diagonal(b).total_cmp(&diagonal(a)));
    order
}

/// U [k, k] in packed order. The Cholesky factor of the matrix with its rows and columns reversed, inverted and reversed
/// back, is U itself: with J the reversal, J·H·J = L·Lᵀ makes H⁻¹ = (J·L⁻¹·J)ᵀ·(J·L⁻¹·J).
fn factor(name: &str, values: &[f32], order: &[u32], damping: f64) -> Result<(Vec<f32>, Damping)> {
    let k = order.len();
    let mean = (0..k).map(|row| f64::from(values[row * (k + 1)])).sum::<f64>() / k as f64;
    let step = (damping * mean).max(DAMPING_FLOOR);
    let reversed: Vec<usize> = order.iter().rev().map(|&row| row as usize).collect();
    let mut lower = vec![0.0_f64; k * k];
    let mut inverse = vec![0.0_f64; k * k];
    for attempts in 1..=ATTEMPTS {
        let amount = step * f64::from(attempts);
        lower.par_chunks_exact_mut(k).enumerate().for_each(|(column, out)| {
            let row = &values[reversed[column] * k..][..k];
            for (out, &from) in out.iter_mut().zip(&reversed) {
                *out = f64::from(row[from]);
            }
            out[column] += amount;
        });
        if invert_factor(&mut lower, &mut inverse, k) {
            let factor = reverse(&inverse, k);
            if factor.par_iter().all(|value| value.is_finite()) {
                return Ok((factor, Damping { amount, attempts }));
            }
        }
    }
    let message = format!(
        "the Hessian is not positive definite even with {:.3e} added to its diagonal; use more calibration rows",
        step * f64::from(ATTEMPTS)
    );
    Err(Error::Numerical { place: name.to_owned(), message })
}

/// L⁻¹ of the factor L of a matrix [k, k], column-major; false when there is none. Destroys the matrix.
fn invert_factor(matrix: &mut [f64], inverse: &mut [f64], k: usize) -> bool {
    let parallel = Par::rayon(0);
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(k, parallel, Default::default()));
    let lower = MatMut::from_column_major_slice_mut(&mut *matrix, k, k);
    let stack = MemStack::new(&mut memory);
    if cholesky_in_place(lower, Default::default(), parallel, stack, Default::default()).is_err() {
        return false;
    }
    let lower = MatRef::from_column_major_slice(matrix, k, k);
    invert_lower_triangular(MatMut::from_column_major_slice_mut(inverse, k, k), lower, parallel);
    true
}

/// The upper triangle U[i, j] = inverse[k − 1 − i, k − 1 − j], row-major, from the lower one, column-major.
fn reverse(inverse: &[f64], k: usize) -> Vec<f32> {
    const ROWS: usize = 32;
    let mut upper = vec![0.0_f32; k * k];
    upper.par_chunks_mut(ROWS * k).enumerate().for_each(|(chunk, out)| {
        let first = chunk * ROWS;
        for column in first..k {
            let from = &inverse[(k - 1 - column) * k..][..k];
            for (row, out) in out.chunks_exact_mut(k).enumerate().take(column - first + 1) {
                out[column] = from[k - 1 - first - row] as f32;
            }
        }
    });
    upper
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::method::DAMPING;

    /// (H + damping)⁻¹ = Uᵀ·U, checked as U·(H + damping)·Uᵀ = I.
    #[test]
    fn factor_inverts_the_damped_matrix() {
        let k = 45;
        let x =
            |row: usize, column: usize| ((row * 37 + column * column * 11 + row * column) % 29) as f32 - 14.0;
        let element = |i: usize, j: usize| (0..80).map(|row| x(row, i) * x(row, j)).sum::<f32>() / 80.0;
        let symmetric: Vec<f32> = (0..k * k).map(|at| element(at / k, at % k)).collect();
        let order = activation_order(&symmetric, k);
        assert!(
            order.windows(2).all(|pair| {
                symmetric[pair[0] as usize * (k + 1)] >= symmetric[pair[1] as usize * (k + 1)]
            })
        );
        let (upper, damping) = factor("test", &symmetric, &order, DAMPING).unwrap();
        assert_eq!(damping.attempts, 1);
        let h = |i: usize, j: usize| {
            let value = f64::from(symmetric[order[i] as usize * k + order[j] as usize]);
            if i == j { value + damping.amount } else { value }
        };
        let u = |i: usize, j: usize| f64::from(upper[i * k + j]);
        for i in 0..k {
            for j in 0..k {
                if j < i {
                    assert_eq!(u(i, j), 0.0);
                }
                let product: f64 = (0..k)
                    .flat_map(|a| (0..k).map(move |b| (a, b)))
                    .map(|(a, b)| u(i, a) * h(a, b) * u(j, b))
                    .sum();
                // U has single precision, and the damping keeps the condition number below 45 / 0.12.
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-5, "({i}, {j}): {product}");
            }
        }
    }

    #[test]
    fn ill_conditioned_matrices_get_more_damping() {
        // Eigenvalues 1 + 2.5 and 1 − 2.5: damping of 0.12 · 1 must be added 13 times, of 0.2 eight times.
        let values = [1.0, 2.5, 2.5, 1.0];
        let (_, damping) = factor("test", &values, &[0, 1], 0.2).unwrap();
        assert_eq!(damping.attempts, 8);
        assert!((damping.amount - 1.6).abs() < 1e-6);
        let message = factor("layer 3", &values, &[0, 1], 0.12).unwrap_err().to_string();
        assert!(message.contains("layer 3") && message.contains("positive definite"), "{message}");
    }

    #[test]
    fn thread_count_does_not_change_the_factor() {
        let k = 300;
        let values: Vec<f32> = (0..k * k)
            .map(|at| {
                let (i, j): (usize, usize) = (at / k, at % k);
                if i == j { 4.0 + (i % 7) as f32 } else { 1.0 / (1 + i.abs_diff(j)) as f32 }
            })
            .collect();
        let order: Vec<u32> = (0..k as u32).collect();
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| factor("test", &values, &order, DAMPING).unwrap().0)
        };
        assert!(with(1) == with(4));
    }
}
