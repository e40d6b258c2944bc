//! Oracle of activations in half precision: blocks of 32 values as unit · half, the unit a power of two.

use half::f16;

/// The least step between halves of a block, in units: what is smaller than 2^-4 of them is a multiple of it.
const GRID: f64 = 1.0 / 16384.0;

/// Words of a row of `k` values: per block sixteen pairs of halves, then per block its unit, to whole 16 bytes.
pub fn row_words(k: usize) -> usize {
    let blocks = k / 32;
    16 * blocks + 4 * blocks.div_ceil(4)
}

/// Where value `i` of a block is: word of the block, and whether in its high half. Of four values the first and the third
/// share a word, and the second and the fourth.
fn place(i: usize) -> (usize, bool) {
    (i / 4 * 2 + i % 2, i % 4 >= 2)
}

/// Reads a row of `k` values: the values, and the unit of each block `[k / 32]`.
pub fn decode(words: &[u32], k: usize) -> (Vec<f64>, Vec<f64>) {
    let units: Vec<f64> =
        words[k / 2..][..k / 32].iter().map(|&bits| f64::from(f32::from_bits(bits))).collect();
    let value = |i: usize| {
        let (word, high) = place(i % 32);
        let word = words[i / 32 * 16 + word];
        units[i / 32] * f16::from_bits(if high { word >> 16 } else { word } as u16).to_f64()
    };
    ((0..k).map(value).collect(), units)
}

/// The row of values, each rounded to the nearest half of its block's unit that is a multiple of 2^-14.
pub fn encode(values: &[f32]) -> Vec<u32> {
    let mut words = vec![0; row_words(values.len())];
    for (block, own) in values.chunks_exact(32).enumerate() {
        let largest = own.iter().fold(0.0_f64, |largest, &value| largest.max(f64::from(value.abs())));
        let unit = if largest > 0.0 { 2_f64.powi(largest.log2().floor() as i32 - 4) } else { 0.0 };
        for (i, &value) in own.iter().enumerate() {
            let exact = if unit > 0.0 { f64::from(value) / unit } else { 0.0 };
            let half =
                f16::from_f64(if exact.abs() < 0.0625 { (exact / GRID).round() * GRID } else { exact });
            let (word, high) = place(i);
            words[16 * block + word] |= u32::from(half.to_bits()) << if high { 16 } else { 0 };
        }
        words[values.len() / 2 + block] = (unit as f32).to_bits();
    }
    words
}

/// By how much a value of a block with this unit may have changed, as it stands in memory: half of the distance of two
/// neighbours, which is at least the grid's.
pub fn slack(value: f64, unit: f64) -> f64 {
    let ulp = if value == 0.0 { 0.0 } else { 2_f64.powi(value.abs().log2().floor() as i32 - 10) };
    0.5 * ulp.max(GRID * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_within_half_a_step() {
        let values: Vec<f32> = (0..160)
            .map(|i| ((i * 37 % 101) as f32 - 50.0).powi(3) * if i < 32 { 1e-9 } else { 7.0 })
            .collect();
        let (decoded, units) = decode(&encode(&values), 160);
        for (i, (&value, &got)) in values.iter().zip(&decoded).enumerate() {
            let unit = units[i / 32];
            assert!((f64::from(value) - got).abs() <= slack(got, unit), "{i}: {value} {got}");
            assert!((got / unit / GRID).fract() == 0.0 && (got / unit).abs() <= 32.0, "{i}: {got} of {unit}");
        }
        assert!(decode(&encode(&[0.0; 32]), 32).0.iter().all(|&value| value == 0.0));
    }
}
