//! Oracle of the device's order of packed words: where each bit of each code lies, told one by one.

use super::unpack::code;

/// Spare bits of the bytes that hold the codes of rows past the whole ones: for each such quad of rows, (word, bit in
/// each byte) of the code's bits, lowest first.
fn left_over(bits: usize, quad: usize) -> &'static [(usize, usize)] {
    match (bits, quad) {
        (3, 6) => &[(0, 6), (0, 7), (2, 6)],
        (3, 7) => &[(1, 6), (1, 7), (2, 7)],
        (5, 5) => &[(0, 5), (0, 6), (0, 7), (3, 5), (3, 6)],
        (5, 6) => &[(1, 5), (1, 6), (1, 7), (4, 5), (4, 6)],
        (5, 7) => &[(2, 5), (2, 6), (2, 7), (3, 7), (4, 7)],
        (6, 6) => &[(0, 6), (0, 7), (1, 6), (1, 7), (2, 6), (2, 7)],
        (6, 7) => &[(3, 6), (3, 7), (4, 6), (4, 7), (5, 6), (5, 7)],
        _ => &[],
    }
}

/// The words `[rows · bits / 32, columns]` of rows of one width, in the file's order, in the device's order. Rows come in
/// blocks of 32; in a block, row r has byte r mod 4 of the words, and of those `⌊8 / bits⌋` codes a byte, as far as
/// the words reach; `left_over` tells the rest.
pub fn reorder(words: &[u32], columns: usize, bits: usize) -> Vec<u32> {
    let rows = words.len() / columns * 32 / bits;
    let whole = 8 / bits;
    let mut device = vec![0; words.len()];
    for row in 0..rows {
        let (block, quad, byte) = (row / 32, row % 32 / 4, row % 4);
        for column in 0..columns {
            let value = code(words, columns, bits, row, column);
            for bit in 0..bits {
                let (word, place) = if quad / whole < bits {
                    (quad / whole, quad % whole * bits + bit)
                } else {
                    left_over(bits, quad)[bit]
                };
                let at = (block * bits + word) * columns + column;
                device[at] |= ((value >> bit) & 1) << (8 * byte + place);
            }
        }
    }
    device
}
