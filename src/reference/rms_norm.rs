//! Oracle of the root-mean-square norm.

use super::Real;

/// `y = x / sqrt(mean(x²) + eps) · weight` for each row. `x`: `[rows, columns]`; `weight`: `[columns]`;
/// result: `[rows, columns]`.
pub fn rms_norm<X: Real, W: Real>(x: &[X], weight: &[W], eps: f32, columns: usize) -> Vec<f64> {
    assert_eq!(weight.len(), columns, "one weight per column");
    assert_eq!(x.len() % columns, 0, "whole rows");
    let mut result = Vec::with_capacity(x.len());
    for row in x.chunks_exact(columns) {
        let mut sum = 0.0;
        for value in row {
            sum += value.to_f64() * value.to_f64();
        }
        let root = (sum / columns as f64 + f64::from(eps)).sqrt();
        for (value, weight) in row.iter().zip(weight) {
            result.push(value.to_f64() / root * weight.to_f64());
        }
    }
    result
}
