//! Oracle of differences in place.

/// x − y, rounded once.
pub fn subtract(x: &[f32], y: &[f32]) -> Vec<f32> {
    x.iter().zip(y).map(|(&x, &y)| (f64::from(x) - f64::from(y)) as f32).collect()
}
