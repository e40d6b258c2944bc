//! Device values against an oracle's, each within a bound of its own.

use half::f16;

use super::output::POISON;

/// Rounding a real number to the nearest single-precision one errs by at most this fraction of it.
pub(super) const ROUNDOFF: f64 = 1.0 / (1 << 24) as f64;

/// A unit in the last place as a fraction of the value, at most: what WGSL's accuracy table counts in.
pub(super) const ULP: f64 = 2.0 * ROUNDOFF;

/// The value that comes closest to its bound, or exceeds it the most.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    compared: u64,
    worst_error: f64,
    bound: f64,
    ratio: f64,
}

impl Comparison {
    /// Nothing compared yet, which does not pass.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compares a value; what is not a number exceeds every bound.
    pub fn value(&mut self, actual: f32, expected: f64, bound: f64) {
        self.real(f64::from(actual), expected, bound);
    }

    /// Compares a number that was worked out from what the device gave.
    pub fn real(&mut self, actual: f64, expected: f64, bound: f64) {
        let error = (actual - expected).abs();
        self.note(if error.is_nan() || bound.is_nan() { f64::INFINITY } else { error }, bound);
    }

    /// Compares a half bit for bit.
    pub fn half(&mut self, actual: u16, expected: f16) {
        let distance = (f16::from_bits(actual).to_f64() - expected.to_f64()).abs();
        let error = match (actual == expected.to_bits(), distance > 0.0) {
            (true, _) => 0.0,
            (false, true) => distance,
            (false, false) => f64::INFINITY,
        };
        self.note(error, 0.0);
    }

    /// Compares a single-precision value bit for bit.
    pub fn exact(&mut self, actual: f32, expected: f32) {
        let distance = (f64::from(actual) - f64::from(expected)).abs();
        let error = match (actual.to_bits() == expected.to_bits(), distance > 0.0) {
            (true, _) => 0.0,
            (false, true) => distance,
            (false, false) => f64::INFINITY,
        };
        self.note(error, 0.0);
    }

    /// Values that the kernel has no business with must still be [`POISON`].
    pub fn untouched(&mut self, values: &[f32]) {
        if values.iter().any(|value| value.to_bits() != POISON) {
            self.note(f64::INFINITY, 0.0);
        }
    }

    /// Values that are not compared one by one must at least be numbers.
    pub fn finite(&mut self, values: &[f32]) {
        if values.iter().any(|value| !value.is_finite()) {
            self.note(f64::INFINITY, 0.0);
        }
    }

    fn note(&mut self, error: f64, bound: f64) {
        let ratio = match error {
            0.0 => 0.0,
            f64::INFINITY => f64::INFINITY,
            _ => error / bound,
        };
        if self.compared == 0 || ratio > self.ratio {
            (self.worst_error, self.bound, self.ratio) = (error, bound, ratio);
        }
        self.compared += 1;
    }

    /// Adds what another comparison saw.
    pub fn merge(&mut self, other: &Self) {
        if self.compared == 0 || other.compared > 0 && other.ratio > self.ratio {
            (self.worst_error, self.bound, self.ratio) = (other.worst_error, other.bound, other.ratio);
        }
        self.compared += other.compared;
    }

    /// Something was compared and all of it lies within its bound.
    pub fn passed(&self) -> bool {
        self.compared > 0 && self.ratio <= 1.0
    }

    /// How many values were compared.
    pub fn compared(&self) -> u64 {
        self.compared
    }

    /// Error of the worst value.
    pub fn worst_error(&self) -> f64 {
        self.worst_error
    }

    /// Bound of the worst value.
    pub fn bound(&self) -> f64 {
        self.bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_measured_against_its_own_bound() {
        let mut comparison = Comparison::new();
        assert!(!comparison.passed(), "nothing compared is no success");
        comparison.value(1.0, 1.5, 1.0);
        comparison.value(1.0, 1.25, 0.25);
        comparison.value(3.0, 3.0, 0.0);
        assert!(comparison.passed());
        assert_eq!((comparison.worst_error(), comparison.bound()), (0.25, 0.25));
        comparison.value(0.0, 1e-30, 0.0);
        assert!(!comparison.passed());
    }

    #[test]
    fn what_is_not_a_number_never_passes() {
        for (actual, expected, bound) in [
            (f32::NAN, 0.0, f64::INFINITY),
            (f32::NAN, f64::NAN, 1.0),
            (f32::INFINITY, f64::INFINITY, 1.0),
            (0.0, 0.0, f64::NAN),
        ] {
            let mut comparison = Comparison::new();
            comparison.value(actual, expected, bound);
            assert!(!comparison.passed(), "{actual} {expected} {bound}");
        }
    }

    #[test]
    fn bits_must_agree_where_numbers_do() {
        let mut comparison = Comparison::new();
        comparison.half(0x8000, f16::ZERO);
        assert!(!comparison.passed());
        let mut comparison = Comparison::new();
        comparison.exact(1.0, 1.0);
        comparison.untouched(&[f32::from_bits(POISON)]);
        assert!(comparison.passed());
        comparison.untouched(&[0.0]);
        assert!(!comparison.passed());
    }
}
