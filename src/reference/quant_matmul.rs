//! Oracle of the product of activations with a packed matrix, `y[m, c] = Σ_r x[m, r] · w[q_invperm[r], c]`.
//!
//! `x` is in the order of the original rows; for activations already gathered into packed order, give a
//! [`Packed`] whose `q_invperm` is the identity.

use rayon::prelude::*;

use super::Real;
use super::dequantize::{column, column_unrounded};
use super::matmul::{element, magnitude, transpose};
use super::real::widen;
use super::unpack::Packed;

/// Which weights are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// The exact `f16` weights of the file.
    Exact,
    /// Only the group maximum is rounded to `f16`; the two later roundings are left out.
    Maximum,
}

/// The whole product. `x`: `[M, K]`; result: `[M, N]`, padded columns included, no bias.
pub fn quant_matmul<X: Real>(x: &[X], packed: Packed<'_>, rounding: Rounding) -> Vec<f64> {
    let all: Vec<usize> = (0..packed.columns()).collect();
    columns(x, packed, &all, rounding)
}

/// The given output columns alone. `x`: `[M, K]`; result: `[M, chosen]`.
pub fn columns<X: Real>(x: &[X], packed: Packed<'_>, chosen: &[usize], rounding: Rounding) -> Vec<f64> {
    over_columns(x, packed, chosen, element, rounding)
}

/// `Σ |x·w|` of the given output columns: what rounding errors of their sums scale with. Shapes as [`columns`].
pub fn magnitudes<X: Real>(x: &[X], packed: Packed<'_>, chosen: &[usize]) -> Vec<f64> {
    over_columns(x, packed, chosen, magnitude, Rounding::Exact)
}

fn over_columns<X: Real>(
    x: &[X],
    packed: Packed<'_>,
    chosen: &[usize],
    combine: impl Fn(&[f64], &[f64]) -> f64 + Sync,
    rounding: Rounding,
) -> Vec<f64> {
    let k = packed.rows();
    let x = widen(x);
    let by_column: Vec<Vec<f64>> = chosen
        .par_iter()
        .map(|&chosen| {
            let weights = match rounding {
                Rounding::Exact => widen(&column(packed, chosen)),
                Rounding::Maximum => column_unrounded(packed, chosen),
            };
            let original: Vec<f64> = packed.q_invperm.iter().map(|&row| weights[row as usize]).collect();
            x.chunks_exact(k).map(|x_row| combine(x_row, &original)).collect()
        })
        .collect();
    transpose(&by_column, x.len() / k)
}
