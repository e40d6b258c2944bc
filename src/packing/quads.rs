//! The order of codes that the device keeps: four rows to a word of bytes.
//!
//! A block of 32 rows of one column is eight *quads*: quad q holds the codes of rows 4q .. 4q + 3, one in each byte
//! of a word, lowest row in the lowest byte, as `dot4I8Packed` takes them. A block's words hold whole quads side by
//! side (a byte of eight bits has room for ⌊8 / bits⌋ codes), and the spare bits of the bytes hold the quads that are
//! left over, in pieces: every quad is put together with at most one shift and one mask for each piece. The size is
//! that of the file's order ([`super::pack`]), of which this one is a permutation of bits within a block and column.

/// Quads in a block of 32 rows.
pub const QUADS: u32 = 8;

/// Part of a quad: in each byte, `bits` bits at `from` of word `word` of the block are those at `to` of the quad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Word of the block, below the width.
    pub word: u32,
    /// First bit in each byte of the word.
    pub from: u32,
    /// Number of bits.
    pub bits: u32,
    /// First bit in each byte of the quad.
    pub to: u32,
}

/// The pieces of quad `quad` (below [`QUADS`]) of a block of `bits`-bit codes.
///
/// # Panics
/// If the width is not one of [`super::WIDTHS`].
pub fn quad_pieces(bits: u32, quad: u32) -> Vec<Piece> {
    let whole = 8 / bits;
    if quad < bits * whole {
        return vec![Piece { word: quad / whole, from: quad % whole * bits, bits, to: 0 }];
    }
    let piece = |word, from, bits, to| Piece { word, from, bits, to };
    match (bits, quad) {
        (3, 6) => vec![piece(0, 6, 2, 0), piece(2, 6, 1, 2)],
        (3, 7) => vec![piece(1, 6, 2, 0), piece(2, 7, 1, 2)],
        (5, 5) => vec![piece(0, 5, 3, 0), piece(3, 5, 2, 3)],
        (5, 6) => vec![piece(1, 5, 3, 0), piece(4, 5, 2, 3)],
        (5, 7) => vec![piece(2, 5, 3, 0), piece(3, 7, 1, 3), piece(4, 7, 1, 4)],
        (6, 6) => (0..3).map(|i| piece(i, 6, 2, 2 * i)).collect(),
        (6, 7) => (0..3).map(|i| piece(3 + i, 6, 2, 2 * i)).collect(),
        _ => panic!("there are {QUADS} quads of 2, 3, 4, 5, 6 or 8 bits"),
    }
}

/// `bits` ones at bit `at` of each byte.
pub fn byte_mask(bits: u32, at: u32) -> u32 {
    (((1_u32 << bits) - 1) << at) * 0x0101_0101
}

#[cfg(test)]
mod tests {
    use super::super::WIDTHS;
    use super::*;

    #[test]
    fn every_bit_has_one_place() {
        for bits in WIDTHS {
            let mut taken = vec![0_u32; bits as usize];
            for quad in 0..QUADS {
                let mut filled = 0;
                for piece in quad_pieces(bits, quad) {
                    let mask = byte_mask(piece.bits, piece.from);
                    assert_eq!(taken[piece.word as usize] & mask, 0, "{bits} bits, quad {quad}");
                    taken[piece.word as usize] |= mask;
                    assert_eq!(filled & byte_mask(piece.bits, piece.to), 0);
                    filled |= byte_mask(piece.bits, piece.to);
                }
                assert_eq!(filled, byte_mask(bits, 0), "{bits} bits, quad {quad}");
            }
            assert!(taken.iter().all(|&word| word == u32::MAX), "{bits} bits: {taken:x?}");
        }
    }
}
