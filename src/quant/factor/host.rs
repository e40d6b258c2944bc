//! The factor of a Hessian's inverse on the host in double precision: the oracle of [`super::device`], and what takes over
//! where single precision is not enough.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{MatMut, MatRef, Par};
use rayon::prelude::*;

use super::{ATTEMPTS, Damping};
use crate::{Error, Result};

/// U [k, k] in packed order, of the symmetric `values` [k, k] in the features' own; `step` is the damping of one attempt. The
/// Cholesky factor of the matrix with its rows and columns reversed, inverted and reversed back, is U itself: with J the
/// reversal, J·H·J = L·Lᵀ makes H⁻¹ = (J·L⁻¹·J)ᵀ·(J·L⁻¹·J). Holds 20 bytes a value beside `values`.
///
/// # Errors
/// [`Error::Numerical`] naming `name` when no damping helps.
pub fn factor(name: &str, values: &[f32], order: &[u32], step: f64) -> Result<(Vec<f32>, Damping)> {
    let k = order.len();
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

    /// (H + damping)⁻¹ = Uᵀ·U, checked as U·(H + damping)·Uᵀ = I.
    #[test]
    fn factor_inverts_the_damped_matrix() {
        let k = 45;
        let x =
            |row: usize, column: usize| ((row * 37 + column * column * 11 + row * column) % 29) as f32 - 14.0;
        let element = |i: usize, j: usize| (0..80).map(|row| x(row, i) * x(row, j)).sum::<f32>() / 80.0;
        let symmetric: Vec<f32> = (0..k * k).map(|at| element(at / k, at % k)).collect();
        let order: Vec<u32> = (0..k as u32).map(|at| (at * 7 + 3) % k as u32).collect();
        let (upper, damping) = factor("test", &symmetric, &order, 1.7).unwrap();
        assert_eq!(damping, Damping { amount: 1.7, attempts: 1 });
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
                // U has single precision, and the condition number is below 45 · 70 / 1.7.
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-5, "({i}, {j}): {product}");
            }
        }
    }

    #[test]
    fn ill_conditioned_matrices_get_more_damping() {
        // Eigenvalues 1 + 2.5 and 1 − 2.5: damping of 0.12 must be added 13 times, of 0.2 eight times.
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
            pool.install(|| factor("test", &values, &order, 0.1).unwrap().0)
        };
        assert!(with(1) == with(4));
    }
}
