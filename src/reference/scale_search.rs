//! Oracle of the search for one group's scales: 97 multipliers of the scales that would just fit, and the
//! error of each.
//!
//! Scales that the original keeps in `f32` are rounded to it where it does; all else is double precision.

use half::f16;
use rayon::prelude::*;

use super::Real;
use super::dequantize::{group_maximum, scale};

/// Multipliers tried.
pub const STEPS: usize = 97;

/// What the search finds for a group of `[rows, N]` weights.
#[derive(Clone, Debug)]
pub struct GroupScales {
    /// Scale with which each column's largest weight would just fit, `[N]`.
    pub base: Vec<f32>,
    /// The largest of `base`, before the multiplier.
    pub largest: f32,
    /// Scale codes `1..=16`, `[N]`.
    pub codes: Vec<u8>,
    /// `Σ |error|^3.5` of the group for each multiplier.
    pub errors: Vec<f64>,
    /// The first multiplier with the smallest error.
    pub best: usize,
    /// `f16(largest · multiplier(best))`, as stored.
    pub scale_max: f16,
    /// The scales that rounding uses and the decoder gives, `[N]`.
    pub scales: Vec<f16>,
}

/// Multiplier `step` of `0..97`: from 0.70 to 1.20, computed in `f32`.
pub fn multiplier(step: usize) -> f32 {
    let part = step as f32 / (STEPS - 1) as f32;
    0.70 * (1.0 - part) + 1.20 * part
}

/// The search. `weights`: `[rows, columns]`, one group.
pub fn scale_search<T: Real>(weights: &[T], columns: usize, bits: u32) -> GroupScales {
    let base = base_scales(weights, columns, bits);
    let largest = base.iter().copied().fold(0.0, f32::max);
    let codes: Vec<u8> = base.iter().map(|&base| scale_code(base, largest)).collect();
    let errors = errors(weights, &codes, largest, bits);
    let mut best = 0;
    for step in 1..STEPS {
        if errors[step] < errors[best] {
            best = step;
        }
    }
    let scale_max = f16::from_f32(largest * multiplier(best));
    let scales = codes.iter().map(|&code| scale(u32::from(code), group_maximum(scale_max))).collect();
    GroupScales { base, largest, codes, errors, best, scale_max, scales }
}

/// `(max |w| + 1e-12) / (2^(bits-1) - 0.5)` of each column, rounded to `f32`.
pub fn base_scales<T: Real>(weights: &[T], columns: usize, bits: u32) -> Vec<f32> {
    let mut maxima = vec![0.0_f64; columns];
    for row in weights.chunks_exact(columns) {
        for (maximum, weight) in maxima.iter_mut().zip(row) {
            *maximum = maximum.max(weight.to_f64().abs());
        }
    }
    let top = f64::from(1_u32 << (bits - 1)) - 0.5;
    maxima.iter().map(|maximum| ((maximum + 1e-12) / top) as f32).collect()
}

/// `round(16 · √(base / largest))`, clamped to `1..=16`.
pub fn scale_code(base: f32, largest: f32) -> u8 {
    let code = (16.0 * (f64::from(base) / f64::from(largest)).sqrt()).round_ties_even();
    code.clamp(1.0, 16.0) as u8
}

/// `Σ |clamp(rint(w/s), -z, z-1)·s - w|^3.5` over a group for each multiplier, `[97]`, with
/// `s = (n/16)² · largest · multiplier`.
pub fn errors<T: Real>(weights: &[T], codes: &[u8], largest: f32, bits: u32) -> Vec<f64> {
    let zero = f64::from(1_u32 << (bits - 1));
    (0..STEPS)
        .into_par_iter()
        .map(|step| {
            let mut sum = 0.0;
            for row in weights.chunks_exact(codes.len()) {
                for (weight, &code) in row.iter().zip(codes) {
                    let part = f64::from(code) / 16.0;
                    let scale = part * part * f64::from(largest) * f64::from(multiplier(step));
                    let rounded = (weight.to_f64() / scale).round_ties_even().clamp(-zero, zero - 1.0);
                    sum += (rounded * scale - weight.to_f64()).abs().powf(3.5);
                }
            }
            sum
        })
        .collect()
}
