//! Oracle of the factor of a Hessian's inverse, step by step: the mirrored half, the scaled matrix, the inverse of a Cholesky
//! factor, and its turning.

/// The whole of a symmetric matrix, from what is on and above the diagonal of `half`, `[k, k]`, times `factor`.
pub fn symmetrize(half: &[f32], k: usize, factor: f32) -> Vec<f64> {
    (0..k * k)
        .map(|at| f64::from(factor) * f64::from(half[(at / k).min(at % k) * k + (at / k).max(at % k)]))
        .collect()
}

/// Element (r, c) of the matrix in another order, scaled: `h[order[r], order[c]]·scale[r]·scale[c]`; 1 on the diagonal.
/// `h`: `[k, k]`; `order`, `scale`: `[k]`.
pub fn unit_diagonal(h: &[f32], order: &[u32], scale: &[f32], (r, c): (usize, usize)) -> f64 {
    if r == c {
        return 1.0;
    }
    let value = h[order[r] as usize * order.len() + order[c] as usize];
    f64::from(value) * f64::from(scale[r]) * f64::from(scale[c])
}

/// The lower factor L of `matrix` = L·Lᵀ, `[k, k]`, which is read on and below its diagonal; `None` without one.
pub fn lower_factor(matrix: &[f64], k: usize) -> Option<Vec<f64>> {
    let mut factor = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..=i {
            let known: f64 = (0..j).map(|r| factor[i * k + r] * factor[j * k + r]).sum();
            let left = matrix[i * k + j] - known;
            if i == j && (left.is_nan() || left <= 0.0) {
                return None;
            }
            factor[i * k + j] = if i == j { left.sqrt() } else { left / factor[j * k + j] };
        }
    }
    Some(factor)
}

/// The inverse of a lower triangle, `[k, k]`.
pub fn lower_inverse(lower: &[f64], k: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; k * k];
    for j in 0..k {
        for i in j..k {
            let known: f64 = (j..i).map(|r| lower[i * k + r] * inverse[r * k + j]).sum();
            let unit = if i == j { 1.0 } else { 0.0 };
            inverse[i * k + j] = (unit - known) / lower[i * k + i];
        }
    }
    inverse
}

/// Element (i, j) of a lower triangle `x`, `[k, k]`, turned by half a circle with its columns scaled; `scale`: `[k]`.
pub fn turned(x: &[f32], scale: &[f32], (i, j): (usize, usize)) -> f64 {
    let k = scale.len();
    let (row, column) = (k - 1 - i, k - 1 - j);
    if column > row { 0.0 } else { f64::from(x[row * k + column]) * f64::from(scale[column]) }
}
