//! Oracle of the rows that a decode attention takes out of a product's partial sums: queries, keys and values.
//!
//! Storing them is [`super::cache_write`], the attention itself [`super::attention`].

use super::Real;
use super::rope::rope;

/// Queries and keys (rotated) and values of some rows.
pub struct Projected {
    /// `[rows, heads, dim]`.
    pub queries: Vec<f64>,
    /// `[rows, kv_heads, dim]`.
    pub keys: Vec<f64>,
    /// `[rows, kv_heads, dim]`.
    pub values: Vec<f64>,
}

/// Sums `partial` `[parts, rows, cols]` over the parts.
pub fn sum<T: Real>(partial: &[T], parts: usize) -> Vec<f64> {
    let one = partial.len() / parts;
    (0..one).map(|at| (0..parts).map(|part| partial[part * one + at].to_f64()).sum()).collect()
}

/// Cuts summed rows `[rows, q | k | v]` and rotates queries and keys to their positions; `inverse_frequencies` and
/// `scale` as in [`rope`].
pub fn project(
    summed: &[f64],
    (heads, kv_heads): (usize, usize),
    positions: &[u32],
    inverse_frequencies: &[f64],
    scale: f64,
) -> Projected {
    let dim = 2 * inverse_frequencies.len();
    let cols = (heads + 2 * kv_heads) * dim;
    let part = |from: usize, count: usize| -> Vec<f64> {
        summed.chunks_exact(cols).flat_map(|row| &row[from * dim..(from + count) * dim]).copied().collect()
    };
    Projected {
        queries: rope(&part(0, heads), heads, positions, inverse_frequencies, scale),
        keys: rope(&part(heads, kv_heads), kv_heads, positions, inverse_frequencies, scale),
        values: part(heads + kv_heads, kv_heads),
    }
}
