//! Oracle of the weighted product of two activations over their rows, `C = beta·C + alpha·Aᵀ·diag(w)·B`:
//! the Hessian's accumulation.

use rayon::prelude::*;

use super::Real;
use super::real::widen;

/// Element `(i, j)` of `Aᵀ·diag(w)·B`. `a`: `[R, m]`; `b`: `[R, n]`; `weights`: `[R]`, or 1 for every row.
pub fn element<A: Real, B: Real>(
    a: &[A],
    b: &[B],
    weights: Option<&[f32]>,
    (m, n): (usize, usize),
    (i, j): (usize, usize),
) -> f64 {
    let rows = a.len() / m;
    let mut sum = 0.0;
    for row in 0..rows {
        let weight = weights.map_or(1.0, |weights| f64::from(weights[row]));
        sum += a[row * m + i].to_f64() * weight * b[row * n + j].to_f64();
    }
    sum
}

/// The whole product: `beta·c + alpha·Aᵀ·diag(w)·B`, `[m, n]`. Shapes as in [`element`]; `c`: `[m, n]`.
pub fn matmul_tn<A: Real, B: Real>(
    a: &[A],
    b: &[B],
    weights: Option<&[f32]>,
    (m, n): (usize, usize),
    (alpha, beta): (f64, f64),
    c: &[f32],
) -> Vec<f64> {
    assert_eq!(a.len() * n, b.len() * m, "A and B have as many rows");
    assert_eq!(c.len(), m * n, "C is [m, n]");
    let (a, b) = (widen(a), widen(b));
    (0..m * n)
        .into_par_iter()
        .map(|at| beta * f64::from(c[at]) + alpha * element(&a, &b, weights, (m, n), (at / n, at % n)))
        .collect()
}
