//! Oracle of activations in pairs of halves: blocks of 32 values as unit · (high + low), an integer and a multiple of 2^-12.

use half::f16;

/// Units in the largest value of a block.
const MOST: f64 = 16.0;

/// Steps of the low part in a unit.
const STEPS: f64 = 4096.0;

/// Words of a row of `k` values: per block sixteen pairs of high halves and sixteen of low ones, then per block its unit, to
/// whole 16 bytes.
pub fn row_words(k: usize) -> usize {
    let blocks = k / 32;
    32 * blocks + 4 * blocks.div_ceil(4)
}

/// A row as it stands in memory.
pub struct Decoded {
    /// The values `[k]`.
    pub values: Vec<f64>,
    /// What the low halves have of them `[k]`.
    pub low: Vec<f64>,
    /// The unit of each block `[k / 32]`.
    pub units: Vec<f64>,
}

/// Where value `i` of a block is: word of sixteen, and bits from. Of four values the first and the third share a word, and the
/// second and the fourth.
fn place(i: usize) -> (usize, u32) {
    (i / 4 * 2 + i % 2, if i % 4 >= 2 { 16 } else { 0 })
}

/// Reads a row of `k` values.
pub fn decode(words: &[u32], k: usize) -> Decoded {
    let units: Vec<f64> = words[k..][..k / 32].iter().map(|&bits| f64::from(f32::from_bits(bits))).collect();
    let part = |i: usize, first: usize| {
        let (word, from) = place(i % 32);
        let word = words[i / 32 * 32 + first + word];
        units[i / 32] * f16::from_bits((word >> from) as u16).to_f64()
    };
    let low: Vec<f64> = (0..k).map(|i| part(i, 16)).collect();
    Decoded { values: (0..k).map(|i| part(i, 0) + low[i]).collect(), low, units }
}

/// The row of values, each rounded to the nearest step.
pub fn encode(values: &[f32]) -> Vec<u32> {
    let mut words = vec![0; row_words(values.len())];
    for (block, own) in values.chunks_exact(32).enumerate() {
        let largest = own.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let unit = largest / MOST as f32;
        for (i, &value) in own.iter().enumerate() {
            let exact = if unit > 0.0 { f64::from(value) / f64::from(unit) } else { 0.0 };
            let high = exact.round();
            let low = ((exact - high) * STEPS).round() / STEPS;
            let (word, from) = place(i);
            words[32 * block + word] |= u32::from(f16::from_f64(high).to_bits()) << from;
            words[32 * block + 16 + word] |= u32::from(f16::from_f64(low).to_bits()) << from;
        }
        words[values.len() + block] = unit.to_bits();
    }
    words
}

/// By how much a value of a block with this unit may have changed: half a step, and what the reciprocal of the unit and the
/// product with it round.
pub fn slack(unit: f64) -> f64 {
    0.51 * unit / STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_within_half_a_step() {
        let value = |i: i32| ((i * 37 % 101) as f32 - 50.0).powi(3) * if i < 32 { 1e-9 } else { 7.0 };
        let values: Vec<f32> = (0..160).map(value).collect();
        let decoded = decode(&encode(&values), 160);
        for (i, (&value, &got)) in values.iter().zip(&decoded.values).enumerate() {
            let unit = decoded.units[i / 32];
            assert!((f64::from(value) - got).abs() <= slack(unit), "{i}: {value} {got}");
            assert!(decoded.low[i].abs() <= 0.5 * unit && decoded.low[i].abs() <= 1.001 * got.abs(), "{i}");
        }
        assert!(decode(&encode(&[0.0; 32]), 32).values.iter().all(|&value| value == 0.0));
    }
}
