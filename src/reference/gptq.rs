//! Oracle of GPTQ with activation order over groups of rows, as ExLlamaV2 0.3.2 defines it, in double
//! precision except for the scales, which are those that the decoder gives.

use half::f16;

use super::Real;
use super::dequantize::weight;
use super::real::widen;
use super::scale_search::scale_search;

/// One quantized linear, rows in packed order unless said otherwise.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// Original row of each packed row, `[K]`.
    pub permutation: Vec<u32>,
    /// Codes, `[K, N]`.
    pub codes: Vec<u8>,
    /// Scale codes `1..=16`, `[G, N]`.
    pub scale_codes: Vec<u8>,
    /// Largest scales, `[G]`.
    pub scale_max: Vec<f16>,
    /// Decoded weights in the order of the original rows, `[K, N]`.
    pub decoded: Vec<f16>,
    /// `Σ` of the squared errors `((w - decoded) / U[c, c])²`, which is `tr ΔᵀHΔ` with the damped Hessian.
    pub squared_error: f64,
}

/// Quantizes `weights` (`[K, columns]`) for the Hessian (`[K, K]`); `layout` is `(bits, rows)` of each group.
/// `None` if the damped Hessian is not positive definite.
pub fn gptq<T: Real>(
    weights: &[T],
    columns: usize,
    hessian: &[f64],
    layout: &[(u32, usize)],
    damping: f64,
) -> Option<Quantized> {
    let k = weights.len() / columns;
    let (permutation, u) = factor(hessian, k, damping)?;
    let mut w = Vec::with_capacity(weights.len());
    for &row in &permutation {
        w.extend(widen(&weights[row as usize * columns..(row as usize + 1) * columns]));
    }
    let (mut codes, mut scale_codes, mut scale_max) = (Vec::new(), Vec::new(), Vec::new());
    let (mut decoded, mut squared_error, mut first) = (vec![f16::ZERO; weights.len()], 0.0, 0);
    for &(bits, rows) in layout {
        let end = first + rows;
        let found = scale_search(&w[first * columns..end * columns], columns, bits);
        let group = round_group(&mut w, columns, &u, (first, end), &found.scales, bits);
        correct_rest(&mut w, columns, &u, (first, end), &group.errors);
        for (i, row) in group.decoded.chunks_exact(columns).enumerate() {
            let original = permutation[first + i] as usize;
            decoded[original * columns..(original + 1) * columns].copy_from_slice(row);
        }
        squared_error += group.errors.iter().map(|error| error * error).sum::<f64>();
        codes.extend(group.codes);
        scale_codes.extend(found.codes);
        scale_max.push(found.scale_max);
        first = end;
    }
    assert_eq!(first, k, "the layout covers every row");
    Some(Quantized { permutation, codes, scale_codes, scale_max, decoded, squared_error })
}

/// The row order (descending diagonal, the lower row first where equal) and the upper factor `U` with
/// `(P·(H + damp·I)·Pᵀ)⁻¹ = Uᵀ·U`, `[k, k]`, where `damp = max(damping · mean(diag H), 1e-5)`.
pub fn factor(hessian: &[f64], k: usize, damping: f64) -> Option<(Vec<u32>, Vec<f64>)> {
    let diagonal = |row: u32| hessian[row as usize * k + row as usize];
    let mut permutation: Vec<u32> = (0..k as u32).collect();
    permutation.sort_by(|&a, &b| diagonal(b).total_cmp(&diagonal(a)));
    let mean = (0..k as u32).map(diagonal).sum::<f64>() / k as f64;
    let mut h = Vec::with_capacity(k * k);
    for &row in &permutation {
        for &column in &permutation {
            h.push(hessian[row as usize * k + column as usize]);
        }
    }
    for i in 0..k {
        h[i * k + i] += (damping * mean).max(1e-5);
    }
    let inverse = invert(&cholesky(&h, k)?, k);
    let lower = cholesky(&inverse, k)?;
    let mut u = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..k {
            u[j * k + i] = lower[i * k + j];
        }
    }
    Some((permutation, u))
}

/// The lower `L` with `A = L·Lᵀ`, or `None` if there is none. `[k, k]`.
pub fn cholesky(a: &[f64], k: usize) -> Option<Vec<f64>> {
    let mut l = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..=i {
            let mut sum = a[i * k + j];
            for p in 0..j {
                sum -= l[i * k + p] * l[j * k + p];
            }
            if i != j {
                l[i * k + j] = sum / l[j * k + j];
            } else if sum > 0.0 && sum.is_finite() {
                l[i * k + i] = sum.sqrt();
            } else {
                return None;
            }
        }
    }
    Some(l)
}

/// `(L·Lᵀ)⁻¹` from the lower `L`, `[k, k]`: column by column, forward and back.
pub fn invert(l: &[f64], k: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; k * k];
    for column in 0..k {
        let mut y = vec![0.0; k];
        for i in column..k {
            let mut sum = if i == column { 1.0 } else { 0.0 };
            for p in column..i {
                sum -= l[i * k + p] * y[p];
            }
            y[i] = sum / l[i * k + i];
        }
        for i in (0..k).rev() {
            for p in i + 1..k {
                y[i] -= l[p * k + i] * y[p];
            }
            y[i] /= l[i * k + i];
        }
        inverse[column * k..(column + 1) * k].copy_from_slice(&y);
    }
    inverse
}

/// What rounding one group gives, each `[rows, columns]`.
#[derive(Clone, Debug)]
pub struct RoundedGroup {
    /// Codes.
    pub codes: Vec<u8>,
    /// Decoded weights.
    pub decoded: Vec<f16>,
    /// `(w - decoded) / U[c, c]`.
    pub errors: Vec<f64>,
}

/// Rounds the rows `first..end` of `w` (`[K, columns]`) one after the other with the given scales (`[columns]`) and
/// corrects the later rows of the group for each. `u`: `[K, K]`.
pub fn round_group(
    w: &mut [f64],
    columns: usize,
    u: &[f64],
    (first, end): (usize, usize),
    scales: &[f16],
    bits: u32,
) -> RoundedGroup {
    let k = w.len() / columns;
    let mut group = RoundedGroup { codes: Vec::new(), decoded: Vec::new(), errors: Vec::new() };
    for row in first..end {
        for column in 0..columns {
            let value = w[row * columns + column];
            let code = round(value, scales[column], bits);
            let decoded = weight(code, bits as usize, scales[column]);
            let error = (value - decoded.to_f64()) / u[row * k + row];
            for later in row..end {
                w[later * columns + column] -= u[row * k + later] * error;
            }
            group.codes.push(code as u8);
            group.decoded.push(decoded);
            group.errors.push(error);
        }
    }
    group
}

/// `clamp(rint(value / scale) + 2^(bits-1), 0, 2^bits - 1)`; 0 divided by a scale of 0 gives the largest code.
pub fn round(value: f64, scale: f16, bits: u32) -> u32 {
    let zero = f64::from(1_u32 << (bits - 1));
    let code = (value / scale.to_f64()).round_ties_even() + zero;
    // `min` prefers a number to NaN, as the original's `fmin` does.
    code.min(2.0 * zero - 1.0).max(0.0) as u32
}

/// Corrects the rows from `end` on for the errors of the group `first..end`: `W[end..] -= U[first..end, end..]ᵀ · errors`.
pub fn correct_rest(w: &mut [f64], columns: usize, u: &[f64], (first, end): (usize, usize), errors: &[f64]) {
    let k = w.len() / columns;
    for later in end..k {
        for row in first..end {
            let factor = u[row * k + later];
            for column in 0..columns {
                w[later * columns + column] -= factor * errors[(row - first) * columns + column];
            }
        }
    }
}
