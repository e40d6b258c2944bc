//! Samples of one quantity, told by their median and their ends.

use serde::{Deserialize, Serialize};

/// Median, least and most of some samples, and the samples in the order of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The sample in the middle, or the mean of the two there.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
    /// All, the first one first.
    pub samples: Vec<f64>,
}

impl Spread {
    /// The spread of at least one sample; without any, all is 0.
    pub fn of(samples: Vec<f64>) -> Self {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
        let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
        let median = if low == high { at(low) } else { (at(low) + at(high)) / 2.0 };
        Self { median, least: at(0), most: at(sorted.len().saturating_sub(1)), samples }
    }

    /// The same samples through a monotonous function, such as seconds to a rate.
    pub fn map(&self, function: impl Fn(f64) -> f64) -> Self {
        Self::of(self.samples.iter().map(|&sample| function(sample)).collect())
    }

    /// Half of what lies between the ends, as a fraction of the median.
    pub fn relative(&self) -> f64 {
        (self.most - self.least) / 2.0 / self.median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_of_odd_and_even_counts() {
        let odd = Spread::of(vec![3.0, 1.0, 8.0]);
        assert_eq!((odd.median, odd.least, odd.most), (3.0, 1.0, 8.0));
        let even = Spread::of(vec![4.0, 1.0, 2.0, 8.0]);
        assert_eq!((even.median, even.least, even.most), (3.0, 1.0, 8.0));
        assert_eq!(even.samples, [4.0, 1.0, 2.0, 8.0]);
        assert_eq!(even.map(|x| 8.0 / x).least, 1.0);
        assert!((odd.relative() - 3.5 / 3.0).abs() < 1e-12);
        assert_eq!(Spread::of(vec![7.0]).median, 7.0);
        assert_eq!(Spread::of(Vec::new()).median, 0.0);
    }
}
