//! Packed matrices of random codes and scales with the spread of trained weights.

use half::f16;
use rayon::prelude::*;

use crate::Result;
use crate::packing::{BLOCK_ROWS, Layout, PackedMatrix, Words};
use crate::random::Random;

/// Root of the mean fourth power of 1 ..= 16: of the square of a uniform scale code, the root mean square.
const SQUARED_CODE: f64 = 123.45;

/// Columns of a block that are made at a time, so that its rows of words stay in the nearest cache.
const TILE: usize = 512;

/// A matrix of this layout and `n` columns (a multiple of 32), of weights around 0 with deviation 1/√k, so that a product
/// has the deviation of its input. `random` is its own, `order` that of all matrices with the same input.
///
/// # Errors
/// As [`PackedMatrix::new`].
pub(super) fn packed(
    layout: Layout,
    n: usize,
    random: &Random,
    order: &Random,
) -> Result<PackedMatrix<Words<'static>>> {
    let mut words = vec![0_u32; layout.word_rows() * n];
    let mut blocks = Vec::with_capacity(layout.rows() / BLOCK_ROWS);
    let mut rest = words.as_mut_slice();
    for group in layout.groups() {
        for _ in 0..group.rows / BLOCK_ROWS {
            let (block, after) = rest.split_at_mut(group.bits as usize * n);
            blocks.push((group.bits, block));
            rest = after;
        }
    }
    blocks.into_par_iter().enumerate().for_each(|(index, (bits, block))| {
        let first = (index * n) as u64 * WORDS as u64 / 2;
        fill(block, n, bits, |column, pair| random.bits(first + (column * WORDS / 2 + pair) as u64));
    });
    let scales = Random::new(random.bits(0), "scales").words(layout.groups().len() * (n / 8));
    Ok(PackedMatrix {
        q_weight: Words::Own(words),
        q_scale: Words::Own(scales),
        ..outline(layout, n, order)?
    })
}

/// The same without codes.
///
/// # Errors
/// As [`packed`].
pub(super) fn outline(layout: Layout, n: usize, order: &Random) -> Result<PackedMatrix<Words<'static>>> {
    let k = layout.rows();
    let maxima = layout.groups().iter().map(|group| largest_scale(group.bits, k)).collect();
    let words = [layout.word_rows() * n, layout.groups().len() * (n / 8)].map(Words::Untold);
    PackedMatrix::lent(n, layout, words, maxima, order.permutation(k), None)
}

/// The largest scale of a group, as a file has it, that gives its weights the deviation 1/√k.
fn largest_scale(bits: u32, k: usize) -> f16 {
    // Codes −m ..= m, the middle one twice as likely: mean square Σ 2q² / 2^bits.
    let most = f64::from((1_u32 << (bits - 1)) - 1);
    let square = most * (most + 1.0) * (2.0 * most + 1.0) / 3.0 / f64::from(1_u32 << bits);
    f16::from_f64(256.0 / ((k as f64).sqrt() * SQUARED_CODE * square.sqrt()))
}

/// Words of the widest column of a block.
const WORDS: usize = 8;

/// Fills a block of 32 rows [bits, n]; `random` yields words in pairs by column and number of the pair.
fn fill(block: &mut [u32], n: usize, bits: u32, random: impl Fn(usize, usize) -> u64) {
    let bits = bits as usize;
    let tops = top_bits(bits);
    for first in (0..n).step_by(TILE) {
        for column in first..n.min(first + TILE) {
            let mut words = [0_u32; WORDS];
            for (pair, two) in words[..bits].chunks_mut(2).enumerate() {
                let drawn = random(column, pair);
                two.iter_mut().zip([drawn as u32, (drawn >> 32) as u32]).for_each(|(word, new)| *word = new);
            }
            centre(&mut words[..bits], &tops);
            words[..bits].iter().enumerate().for_each(|(row, &word)| block[row * n + column] = word);
        }
    }
}

/// The highest bit of each code in the words of a column of a block.
fn top_bits(bits: usize) -> [u32; WORDS] {
    let mut tops = [0; WORDS];
    (1..=BLOCK_ROWS).map(|code| code * bits - 1).for_each(|bit| tops[bit / 32] |= 1 << (bit % 32));
    tops
}

/// Makes each code 0, the only one without a counterpart of the other sign, a code of value 0: else all columns would
/// share an offset, which grows with the square root of k and drowns what a product tells of its input.
fn centre(words: &mut [u32], tops: &[u32; WORDS]) {
    let mut shifted = [0; WORDS];
    shifted[..words.len()].copy_from_slice(words);
    // At the highest bit of a code in the end: whether any of its bits is set.
    let mut any = shifted;
    for _ in 1..words.len() {
        let mut carry = 0;
        for (shifted, any) in shifted[..words.len()].iter_mut().zip(&mut any) {
            let next = *shifted >> 31;
            *shifted = *shifted << 1 | carry;
            *any |= *shifted;
            carry = next;
        }
    }
    words.iter_mut().zip(any).zip(tops).for_each(|((word, any), top)| *word |= !any & top);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::{Group, WIDTHS, unpack};

    #[test]
    fn codes_are_symmetric_and_weights_have_the_promised_spread() {
        for bits in WIDTHS {
            let layout = Layout::new(vec![Group { bits, rows: 64 }; 4]).unwrap();
            let (random, order) = (Random::new(5, "w"), Random::new(5, "order"));
            let matrix = packed(layout, 96, &random, &order).unwrap();
            let own = |words| if let Words::Own(words) = words { words } else { Vec::new() };
            let PackedMatrix { n, layout, q_scale_max, q_invperm, .. } = matrix;
            let (words, scales) = (own(matrix.q_weight), own(matrix.q_scale));
            let matrix = PackedMatrix::new(n, layout, words, scales, q_scale_max, q_invperm, None).unwrap();
            for group in matrix.q_weight.chunks(2 * bits as usize * 96) {
                let codes = unpack(group, 96, bits);
                assert!(codes.iter().all(|&code| code > 0), "{bits} bits");
                let most = (1_usize << bits) - 1;
                assert!(codes.contains(&1) && codes.contains(&(most as u8)), "{bits} bits");
            }
            let weights: Vec<f64> = matrix.dequantize().iter().map(|weight| weight.to_f64()).collect();
            let count = weights.len() as f64;
            let mean = weights.iter().sum::<f64>() / count;
            let deviation = (weights.iter().map(|w| w * w).sum::<f64>() / count).sqrt();
            // Means of 24576 weights spread by 1/157 of their deviation; maxima are coarse at 8 bits.
            assert!(mean.abs() < 0.03 * deviation, "{bits} bits: mean {mean}");
            assert!((deviation * 16.0 - 1.0).abs() < 0.06, "{bits} bits: deviation {deviation}");
        }
    }

    #[test]
    fn only_code_zero_is_changed() {
        let codes: Vec<u8> = (0..32).map(|row| row % 8).collect();
        let mut words = crate::packing::pack(&codes, 1, 3);
        centre(&mut words, &top_bits(3));
        let expected: Vec<u8> = codes.iter().map(|&code| if code == 0 { 4 } else { code }).collect();
        assert_eq!(unpack(&words, 1, 3), expected);
    }
}
