//! Oracle of the comparison of decoded weights with the float ones.

use half::f16;

/// Of a tile of 32 rows and 32 columns: the sum of the squared differences and the largest difference. `weights`:
/// `[k, n]`; `decoded`: `[n, k]`; `first`: the tile's first row and column.
pub fn tile(weights: &[f32], decoded: &[f16], n: usize, first: (usize, usize)) -> (f64, f64) {
    let k = weights.len() / n;
    let (mut sum, mut largest) = (0.0, 0.0_f64);
    for row in first.0..first.0 + 32 {
        for column in first.1..first.1 + 32 {
            let difference = f64::from(weights[row * n + column]) - decoded[column * k + row].to_f64();
            sum += difference * difference;
            largest = largest.max(difference.abs());
        }
    }
    (sum, largest)
}
