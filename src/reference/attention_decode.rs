//! Oracle of the rows that a decode attention takes out of a product's partial sums: queries, keys and values.
//!
//! Storing them is [`super::cache_write`], the attention itself [`super::attention`].

use std::ops::Range;

use super::Real;
use super::rope::rope;

/// Queries, keys and values of some rows.
pub struct Projected {
    /// `[rows, heads, dim]`.
    pub queries: Vec<f64>,
    /// `[rows, kv_heads, dim]`.
    pub keys: Vec<f64>,
    /// `[rows, kv_heads, dim]`.
    pub values: Vec<f64>,
}

/// Sums `partial` `[sums, rows, columns]` over the sums.
pub fn sum<T: Real>(partial: &[T], sums: usize) -> Vec<f64> {
    let one = partial.len() / sums;
    (0..one).map(|at| (0..sums).map(|part| partial[part * one + at].to_f64()).sum()).collect()
}

/// Cuts summed rows `[rows, columns]`; queries, keys and values are given by their columns.
pub fn cut(summed: &[f64], columns: usize, parts: [Range<usize>; 3]) -> Projected {
    let [queries, keys, values] = parts.map(|part| {
        summed.chunks_exact(columns).flat_map(|row| &row[part.clone()]).copied().collect::<Vec<_>>()
    });
    Projected { queries, keys, values }
}

/// Rotates queries and keys to their positions; `inverse_frequencies` and `scale` as in [`rope`].
pub fn rotate(cut: &Projected, positions: &[u32], inverse_frequencies: &[f64], scale: f64) -> Projected {
    let width = positions.len() * 2 * inverse_frequencies.len();
    let turn = |x: &[f64]| rope(x, x.len() / width, positions, inverse_frequencies, scale);
    Projected { queries: turn(&cut.queries), keys: turn(&cut.keys), values: cut.values.clone() }
}
