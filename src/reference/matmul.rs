//! Oracle of the dense product `y = x · Wᵀ (+ bias) (+ residual)`, the form of every linear layer.
//!
//! [`element`] and [`columns`] serve shapes whose full product would take too long.

use rayon::prelude::*;

use super::Real;
use super::real::widen;

/// One element: the dot product of a row of `x` and a row of `W`, both `[K]`.
pub fn element<X: Real, W: Real>(x_row: &[X], w_row: &[W]) -> f64 {
    assert_eq!(x_row.len(), w_row.len(), "both rows have K elements");
    let mut sum = 0.0;
    for (x, w) in x_row.iter().zip(w_row) {
        sum += x.to_f64() * w.to_f64();
    }
    sum
}

/// `Σ |x·w|` of one element: the magnitude that rounding errors of a sum scale with.
pub fn magnitude<X: Real, W: Real>(x_row: &[X], w_row: &[W]) -> f64 {
    assert_eq!(x_row.len(), w_row.len(), "both rows have K elements");
    let mut sum = 0.0;
    for (x, w) in x_row.iter().zip(w_row) {
        sum += (x.to_f64() * w.to_f64()).abs();
    }
    sum
}

/// The product. `x`: `[M, k]`; `w`: `[N, k]`; `bias`: `[N]`; `residual`: `[M, N]`; result: `[M, N]`.
pub fn matmul<X: Real, W: Real>(
    x: &[X],
    w: &[W],
    k: usize,
    bias: Option<&[f64]>,
    residual: Option<&[f64]>,
) -> Vec<f64> {
    let n = w.len() / k;
    let all: Vec<usize> = (0..n).collect();
    let mut result = columns(x, w, k, &all);
    for (row, outputs) in result.chunks_exact_mut(n).enumerate() {
        for (column, output) in outputs.iter_mut().enumerate() {
            if let Some(bias) = bias {
                *output += bias[column];
            }
            if let Some(residual) = residual {
                *output += residual[row * n + column];
            }
        }
    }
    result
}

/// The given output columns of `x · Wᵀ` alone. `x`: `[M, k]`; `w`: `[N, k]`; result: `[M, chosen]`.
pub fn columns<X: Real, W: Real>(x: &[X], w: &[W], k: usize, chosen: &[usize]) -> Vec<f64> {
    assert_eq!(x.len() % k, 0, "x has whole rows");
    assert_eq!(w.len() % k, 0, "W has whole rows");
    let x = widen(x);
    let by_column: Vec<Vec<f64>> = chosen
        .par_iter()
        .map(|&column| {
            let w_row = widen(&w[column * k..(column + 1) * k]);
            x.chunks_exact(k).map(|x_row| element(x_row, &w_row)).collect()
        })
        .collect();
    transpose(&by_column, x.len() / k)
}

/// `[columns][rows]` to one vector `[rows, columns]`.
pub(super) fn transpose(by_column: &[Vec<f64>], rows: usize) -> Vec<f64> {
    let mut result = Vec::with_capacity(rows * by_column.len());
    for row in 0..rows {
        for column in by_column {
            result.push(column[row]);
        }
    }
    result
}
