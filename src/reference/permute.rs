//! Oracle of the gather of columns into a packed matrix's row order.

use super::Real;

/// `y[row, i] = x[row, permutation[i]]`. `x`: `[rows, columns]`; result: `[rows, permutation.len()]`.
pub fn permute<T: Real>(x: &[T], columns: usize, permutation: &[u32]) -> Vec<f64> {
    let mut result = Vec::with_capacity(x.len() / columns * permutation.len());
    for row in x.chunks_exact(columns) {
        for &from in permutation {
            result.push(row[from as usize].to_f64());
        }
    }
    result
}

/// The inverse: `result[permutation[i]] = i`.
pub fn inverse(permutation: &[u32]) -> Vec<u32> {
    let mut result = vec![0; permutation.len()];
    for (i, &from) in permutation.iter().enumerate() {
        result[from as usize] = i as u32;
    }
    result
}
