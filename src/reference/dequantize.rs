//! Oracle of decoding a packed matrix, with the roundings of ExLlamaV2 0.3.2's reconstruction:
//! `m = f16(scale_max / 256)`, `s = f16(n² · m)`, `w = f16((q - 2^(bits-1)) · s)`.
//!
//! Each product of two `f16` values is exact in `f32`, so one conversion rounds it once.

use half::f16;
use rayon::prelude::*;

use super::unpack::{Packed, Span};

/// The group's maximum as the decoder uses it: `f16(scale_max / 256)`.
pub fn group_maximum(scale_max: f16) -> f16 {
    f16::from_f32(scale_max.to_f32() * (1.0 / 256.0))
}

/// The scale of a column: `f16(n² · maximum)` for its scale code `n`, `1..=16`.
pub fn scale(code: u32, maximum: f16) -> f16 {
    f16::from_f32((code * code) as f32 * maximum.to_f32())
}

/// One weight: `f16((code - 2^(bits-1)) · scale)`.
pub fn weight(code: u32, bits: usize, scale: f16) -> f16 {
    f16::from_f32(centred(code, bits) * scale.to_f32())
}

/// `code - 2^(bits-1)`.
fn centred(code: u32, bits: usize) -> f32 {
    code as f32 - (1_u32 << (bits - 1)) as f32
}

/// One column in packed row order, `[K]`.
pub fn column(packed: Packed<'_>, column: usize) -> Vec<f16> {
    let mut result = Vec::with_capacity(packed.rows());
    for (group, span) in packed.spans().iter().enumerate() {
        let scale = scale(packed.scale_code(group, column), group_maximum(packed.q_scale_max[group]));
        for row in 0..span.rows {
            result.push(weight(packed.code(span, row, column), span.bits, scale));
        }
    }
    result
}

/// One column in packed row order without the two later roundings: `(q - 2^(bits-1)) · n² · m` with the rounded
/// group maximum `m`, which is what a fused kernel may compute.
pub fn column_unrounded(packed: Packed<'_>, column: usize) -> Vec<f64> {
    let mut result = Vec::with_capacity(packed.rows());
    for (group, span) in packed.spans().iter().enumerate() {
        let code = f64::from(packed.scale_code(group, column));
        let scale = code * code * group_maximum(packed.q_scale_max[group]).to_f64();
        for row in 0..span.rows {
            result.push(f64::from(centred(packed.code(span, row, column), span.bits)) * scale);
        }
    }
    result
}

/// The matrix in packed row order, `[K, N]`.
pub fn packed_order(packed: Packed<'_>) -> Vec<f16> {
    let columns = packed.columns();
    let rows: Vec<(usize, Span, usize)> = packed
        .spans()
        .into_iter()
        .enumerate()
        .flat_map(|(group, span)| (0..span.rows).map(move |row| (group, span, row)))
        .collect();
    let mut result = vec![f16::ZERO; packed.rows() * columns];
    result.par_chunks_exact_mut(columns).zip(rows).for_each(|(out, (group, span, row))| {
        let maximum = group_maximum(packed.q_scale_max[group]);
        for (column, out) in out.iter_mut().enumerate() {
            let scale = scale(packed.scale_code(group, column), maximum);
            *out = weight(packed.code(&span, row, column), span.bits, scale);
        }
    });
    result
}

/// The matrix in the order of the original rows, `[K, N]`: row `r` is packed row `q_invperm[r]`.
pub fn original_order(packed: Packed<'_>) -> Vec<f16> {
    let columns = packed.columns();
    let by_packed_row = packed_order(packed);
    let mut result = Vec::with_capacity(by_packed_row.len());
    for &row in packed.q_invperm {
        result.extend_from_slice(&by_packed_row[row as usize * columns..(row as usize + 1) * columns]);
    }
    result
}
