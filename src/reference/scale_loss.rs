//! Oracle of the search for one group's scales by what rounding costs: each column with each of 16 codes and each maximum.

use half::f16;

use super::Real;
use super::dequantize::{group_maximum, scale};

/// `Σ ((v_i − q_i) / U_ii)²` of one column of a group with scale `s`, where `v_i = w_i − Σ_{j<i} U_ji · e_j`,
/// `e_i = (v_i − q_i) / U_ii` and `q_i` is `v_i` rounded to `clamp(rint(v_i / s), −2^(bits−1), 2^(bits−1) − 1) · s`.
/// `weights`: `[rows]`; `u`: upper triangle `[rows, rows]`.
pub fn column_loss<T: Real>(weights: &[T], u: &[T], s: f16, bits: u32) -> f64 {
    let rows = weights.len();
    let mut errors: Vec<f64> = Vec::with_capacity(rows);
    for i in 0..rows {
        let mut v = weights[i].to_f64();
        for (j, error) in errors.iter().enumerate() {
            v -= u[j * rows + i].to_f64() * error;
        }
        errors.push((v - nearest(v, s, bits)) / u[i * rows + i].to_f64());
    }
    errors.iter().map(|error| error * error).sum()
}

/// The value nearest to `v` that a code of so many bits has with scale `s`; 0 when `s` is 0.
pub fn nearest(v: f64, s: f16, bits: u32) -> f64 {
    let (zero, s) = (f64::from(1_u32 << (bits - 1)), s.to_f64());
    if s == 0.0 { 0.0 } else { (v / s).round_ties_even().clamp(-zero, zero - 1.0) * s }
}

/// The scales of a column whose group's largest scale is `largest`, for scale codes `1..=16`.
pub fn scales(largest: f32) -> [f16; 16] {
    let maximum = group_maximum(f16::from_f32(largest));
    std::array::from_fn(|code| scale(code as u32 + 1, maximum))
}

/// What the search finds for a group.
#[derive(Clone, Debug)]
pub struct LossScales {
    /// Number of the first maximum with the least loss of all columns.
    pub best: usize,
    /// Loss of all columns with each maximum, each column at its best code.
    pub losses: Vec<f64>,
    /// The columns' scale codes `1..=16` with the best maximum, the first of equals.
    pub codes: Vec<u8>,
}

/// The search. `weights`: `[rows, columns]`; `u`: upper triangle `[rows, rows]`; `maxima`: largest scales to try.
pub fn search<T: Real>(weights: &[T], columns: usize, u: &[T], maxima: &[f32], bits: u32) -> LossScales {
    let column_of = |column: usize| weights.iter().skip(column).step_by(columns).copied().collect::<Vec<T>>();
    let (mut losses, mut codes) = (Vec::new(), Vec::new());
    for &largest in maxima {
        let (mut total, mut found) = (0.0, Vec::new());
        for column in 0..columns {
            let column = column_of(column);
            let tried = scales(largest).map(|s| column_loss(&column, u, s, bits));
            let mut best = 0;
            for code in 1..16 {
                if tried[code] < tried[best] {
                    best = code;
                }
            }
            total += tried[best];
            found.push(best as u8 + 1);
        }
        losses.push(total);
        codes.push(found);
    }
    let mut best = 0;
    for tried in 1..maxima.len() {
        if losses[tried] < losses[best] {
            best = tried;
        }
    }
    LossScales { best, codes: codes.swap_remove(best), losses }
}
