//! Oracle of the rotary position embedding, in Hugging Face's `rotate_half` form.
//!
//! Frequencies and their scaling come from the caller (`formats::config::Rope`).

use super::Real;

/// Rotates the pairs `(i, i + dim/2)` of every head by `position · inverse_frequencies[i]`; cosine and
/// sine are multiplied by `scale` (YaRN's attention factor, else 1).
///
/// `x`: `[rows, heads, dim]` with `dim = 2 · inverse_frequencies.len()`; `positions`: `[rows]`; result as `x`.
pub fn rope<T: Real>(
    x: &[T],
    heads: usize,
    positions: &[u32],
    inverse_frequencies: &[f64],
    scale: f64,
) -> Vec<f64> {
    let half = inverse_frequencies.len();
    let dim = 2 * half;
    assert_eq!(x.len(), positions.len() * heads * dim, "x is [rows, heads, dim]");
    let mut result = vec![0.0; x.len()];
    for (row, &position) in positions.iter().enumerate() {
        for head in 0..heads {
            let first = (row * heads + head) * dim;
            for i in 0..half {
                let angle = f64::from(position) * inverse_frequencies[i];
                let (cos, sin) = (angle.cos() * scale, angle.sin() * scale);
                let (low, high) = (x[first + i].to_f64(), x[first + half + i].to_f64());
                result[first + i] = low * cos - high * sin;
                result[first + half + i] = high * cos + low * sin;
            }
        }
    }
    result
}
