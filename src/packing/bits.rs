//! Codes and scale codes to words and back.
//!
//! Every column of a group is a little-endian bit stream of its own: field `i` lies in stream bits
//! `[i * bits, (i + 1) * bits)`, stream bit `s` is bit `s % 32` of word row `s / 32`.

use half::f16;

/// Packs `codes`, row-major `[rows, columns]`, each below `2^bits`, into words `[rows * bits / 32, columns]`.
///
/// # Panics
/// If the codes are not whole rows, or the rows do not fill whole words.
pub fn pack(codes: &[u8], columns: usize, bits: u32) -> Vec<u32> {
    let bits = bits as usize;
    assert!(columns > 0 && codes.len().is_multiple_of(columns), "codes come in whole rows");
    let rows = codes.len() / columns;
    assert!((rows * bits).is_multiple_of(32), "rows fill whole words");
    let mut words = vec![0_u32; rows * bits / 32 * columns];
    for (row, codes) in codes.chunks_exact(columns).enumerate() {
        let (word, shift) = (row * bits / 32, row * bits % 32);
        for (column, &code) in codes.iter().enumerate() {
            let field = u64::from(code) << shift;
            words[word * columns + column] |= field as u32;
            if shift + bits > 32 {
                words[(word + 1) * columns + column] |= (field >> 32) as u32;
            }
        }
    }
    words
}

/// The inverse of [`pack`]: words `[word_rows, columns]` to codes `[word_rows * 32 / bits, columns]`.
///
/// # Panics
/// If the words are not whole rows, or hold no whole number of codes.
pub fn unpack(words: &[u32], columns: usize, bits: u32) -> Vec<u8> {
    assert!(columns > 0 && words.len().is_multiple_of(columns), "words come in whole rows");
    let word_rows = words.len() / columns;
    assert!((word_rows * 32).is_multiple_of(bits as usize), "words hold whole codes");
    let rows = word_rows * 32 / bits as usize;
    let mut codes = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        codes.extend((0..columns).map(|column| field(words, columns, bits, row, column)));
    }
    codes
}

/// The code of one row and column of a group whose words are `[word_rows, columns]`.
pub(super) fn field(words: &[u32], columns: usize, bits: u32, row: usize, column: usize) -> u8 {
    let (word, shift) = (row * bits as usize / 32, (row * bits as usize % 32) as u32);
    let low = words[word * columns + column] >> shift;
    let high = if shift + bits > 32 { words[(word + 1) * columns + column] << (32 - shift) } else { 0 };
    ((low | high) & ((1 << bits) - 1)) as u8
}

/// Packs scale codes in `1..=16`, row-major `[groups, columns]`, eight to a word, the lowest nibble first.
///
/// # Panics
/// If the number of codes is not a multiple of 8.
pub fn pack_scales(codes: &[u8]) -> Vec<u32> {
    assert!(codes.len().is_multiple_of(8), "columns are a multiple of 8");
    let nibble = |(i, &code): (usize, &u8)| ((u32::from(code).wrapping_sub(1)) & 15) << (4 * i);
    codes.chunks_exact(8).map(|codes| codes.iter().enumerate().map(nibble).sum()).collect()
}

/// The inverse of [`pack_scales`]: codes in `1..=16`.
pub fn unpack_scales(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| (0..8).map(move |i| (word >> (4 * i) & 15) as u8 + 1)).collect()
}

/// The largest scale of a group as the decoder uses it: `scale_max / 256`, rounded once to f16.
///
/// Subnormal for a `scale_max` below 2^-6, where the division loses bits; ExLlamaV2 loses the same ones.
pub fn group_maximum(scale_max: f16) -> f16 {
    f16::from_f32(scale_max.to_f32() * (1.0 / 256.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One column of 32 rows, `i % 2^bits`, as ExLlamaV2's packer writes it.
    #[test]
    fn golden_words() {
        let golden: [(u32, &[u32]); 6] = [
            (2, &[0xe4e4e4e4, 0xe4e4e4e4]),
            (3, &[0x88fac688, 0xc688fac6, 0xfac688fa]),
            (4, &[0x76543210, 0xfedcba98, 0x76543210, 0xfedcba98]),
            (5, &[0x8a418820, 0xc5a92839, 0xca307b9a, 0x38bdab49, 0xffbbcdeb]),
            (6, &[0x440c2040, 0xa2481c61, 0x3ce34c2c, 0x544d2450, 0xa6585d65, 0x7de75c6d]),
            (
                8,
                &[
                    0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c, 0x13121110, 0x17161514, 0x1b1a1918,
                    0x1f1e1d1c,
                ],
            ),
        ];
        for (bits, words) in golden {
            let codes: Vec<u8> = (0..32).map(|i| (i % (1_u32 << bits)) as u8).collect();
            assert_eq!(pack(&codes, 1, bits), words, "{bits} bits");
            assert_eq!(unpack(words, 1, bits), codes, "{bits} bits");
        }
    }

    #[test]
    fn scale_codes_put_the_first_column_lowest() {
        let codes: Vec<u8> = (1..=16).collect();
        assert_eq!(pack_scales(&codes), [0x76543210, 0xfedcba98]);
        assert_eq!(unpack_scales(&[0x76543210, 0xfedcba98]), codes);
    }

    #[test]
    fn group_maximum_rounds_once_and_keeps_subnormals() {
        assert_eq!(group_maximum(f16::from_bits(0x2e66)).to_bits(), 0x0e66);
        // 3 * 2^-24 (the third subnormal) / 256 is below half the smallest subnormal.
        assert_eq!(group_maximum(f16::from_bits(3)).to_bits(), 0);
        // 2^-7 * (1 + 2^-10) / 256 = 2^-15 + 2^-25: a tie between subnormals, which goes to the even one.
        assert_eq!(group_maximum(f16::from_bits(0x2001)).to_bits(), 0x0200);
    }
}
