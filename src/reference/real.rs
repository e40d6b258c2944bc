//! The numbers an oracle takes: `f16`, `f32` and `f64`, each widened to `f64` before anything else.
//!
//! It does not round: an oracle that must round says so where it does.

use half::f16;

/// A number that widens to `f64` without loss.
pub trait Real: Copy + Send + Sync {
    /// The same value in double precision.
    fn to_f64(self) -> f64;
}

impl Real for f16 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn to_f64(self) -> f64 {
        self
    }
}

/// Every element of `values` in double precision.
pub fn widen<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}
