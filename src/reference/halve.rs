//! Oracle of rows in halves: what a row's values become when they are divided by a power of two and rounded.

use half::f16;

/// A row as one or two halves a value.
pub struct Halved {
    /// The power of two that it was divided by.
    pub unit: f64,
    /// First the rounded values, then what rounding left of each, rounded; so many planes as were asked for.
    pub planes: Vec<Vec<f16>>,
}

/// The row as `planes` halves a value. Divided by its unit the largest value lies in [2^14, 2^15); rows below 2^-112 are
/// divided by 2^-126.
pub fn halve(row: &[f32], planes: usize) -> Halved {
    let largest = row.iter().fold(0.0, |largest: f64, &x| largest.max(f64::from(x).abs()));
    let mut unit = 2.0_f64.powi(-126);
    while largest / unit >= 32768.0 {
        unit *= 2.0;
    }
    let mut left: Vec<f64> = row.iter().map(|&x| f64::from(x) / unit).collect();
    let planes = (0..planes).map(|_| {
        let rounded: Vec<f16> = left.iter().map(|&value| f16::from_f64(value)).collect();
        left.iter_mut().zip(&rounded).for_each(|(value, half)| *value -= half.to_f64());
        rounded
    });
    Halved { planes: planes.collect(), unit }
}

impl Halved {
    /// What the halves stand for.
    pub fn values(&self) -> Vec<f64> {
        let cols = self.planes.first().map_or(0, Vec::len);
        (0..cols)
            .map(|i| self.unit * self.planes.iter().map(|plane| plane[i].to_f64()).sum::<f64>())
            .collect()
    }
}
