//! Oracle of differences.

use super::Real;

/// `factor · (y − x)`, element by element.
pub fn difference<Y: Real, X: Real>(y: &[Y], x: &[X], factor: f64) -> Vec<f64> {
    assert_eq!(y.len(), x.len(), "one value less another");
    y.iter().zip(x).map(|(y, x)| factor * (y.to_f64() - x.to_f64())).collect()
}
