//! Oracle of activations in fixed point: blocks of 32 values as step · (256 · high + low).

/// Words of a row of `k` values: per block eight of high bytes and eight of low ones, then per block step and sum, to whole
/// 16 bytes.
pub fn row_words(k: usize) -> usize {
    let blocks = k / 32;
    16 * blocks + 4 * blocks.div_ceil(2)
}

/// A row as it stands in memory.
pub struct Decoded {
    /// The values `[k]`.
    pub values: Vec<f64>,
    /// The step of each block `[k / 32]`.
    pub steps: Vec<f64>,
    /// Every block's sum is that of its integers.
    pub sums_agree: bool,
}

/// Reads a row of `k` values.
pub fn decode(words: &[u32], k: usize) -> Decoded {
    let (mut values, mut steps, mut sums_agree) = (Vec::new(), Vec::new(), true);
    for block in 0..k / 32 {
        let step = f64::from(f32::from_bits(words[16 * (k / 32) + 2 * block]));
        let mut sum = 0;
        for i in 0..32 {
            let byte = |first: usize| {
                let word = words[16 * block + first + i / 4];
                i32::from((word >> (8 * (i % 4))) as u8 as i8)
            };
            let integer = 256 * byte(0) + byte(8);
            sum += integer;
            values.push(step * f64::from(integer));
        }
        sums_agree &= words[16 * (k / 32) + 2 * block + 1] as i32 == sum;
        steps.push(step);
    }
    Decoded { values, steps, sums_agree }
}

/// The row of values, each rounded to the nearest step of 1/32639 of its block's largest.
pub fn encode(values: &[f32]) -> Vec<u32> {
    let blocks = values.len() / 32;
    let mut words = vec![0; row_words(values.len())];
    for (block, values) in values.chunks_exact(32).enumerate() {
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let step = largest / 32639.0;
        let mut sum = 0;
        for (i, &value) in values.iter().enumerate() {
            let exact = if step > 0.0 { (f64::from(value) / f64::from(step)).round() } else { 0.0 };
            let integer = exact.clamp(-32639.0, 32639.0) as i32;
            let low = (integer as u32 & 255) as u8 as i8;
            let high = ((integer - i32::from(low)) / 256) as i8;
            words[16 * block + i / 4] |= u32::from(high as u8) << (8 * (i % 4));
            words[16 * block + 8 + i / 4] |= u32::from(low as u8) << (8 * (i % 4));
            sum += integer;
        }
        words[16 * blocks + 2 * block] = step.to_bits();
        words[16 * blocks + 2 * block + 1] = sum as u32;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_within_half_a_step() {
        let values: Vec<f32> =
            (0..96).map(|i| ((i * 37 % 101) as f32 - 50.0) * if i < 32 { 1e-3 } else { 7.0 }).collect();
        let decoded = decode(&encode(&values), 96);
        assert!(decoded.sums_agree);
        for (i, (&value, &got)) in values.iter().zip(&decoded.values).enumerate() {
            let bound = decoded.steps[i / 32] * 0.5001;
            assert!((f64::from(value) - got).abs() <= bound, "{i}: {value} {got}");
        }
        assert!(decode(&encode(&[0.0; 32]), 32).values.iter().all(|&value| value == 0.0));
    }
}
