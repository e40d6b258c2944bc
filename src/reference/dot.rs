//! Oracle of the scalar product.

use super::Real;

/// `Σ x·y`.
pub fn dot<X: Real, Y: Real>(x: &[X], y: &[Y]) -> f64 {
    assert_eq!(x.len(), y.len(), "as many values");
    x.iter().zip(y).map(|(x, y)| x.to_f64() * y.to_f64()).sum()
}
