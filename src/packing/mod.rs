//! How EXL2 codes, scales and groups lie in 32-bit words, and the exact host decoder.
//!
//! Owns the bit layout of a packed matrix and its arithmetic on the host; knows nothing of files
//! (`formats::exl2`) or of the device (`ops`). Facts are those of the ExLlamaV2 0.3.2 loader.

mod bits;
mod layout;
mod matrix;
mod quads;

pub use bits::{group_maximum, pack, pack_scales, unpack, unpack_scales};
pub use layout::{Group, Layout};
pub use matrix::{PackedMatrix, Words};
pub use quads::{Piece, QUADS, byte_mask, quad_pieces};

/// The legal code widths in bits, in the order in which a file must hold them.
pub const WIDTHS: [u32; 6] = [8, 6, 5, 4, 3, 2];

/// Rows of a group are counted in blocks of this many.
pub const BLOCK_ROWS: usize = 32;

/// The most rows that a matrix may have: ExLlamaV2 keeps its permutation in 16 bits.
pub const MAX_ROWS: usize = 65535;

/// The number of columns is padded to a multiple of this.
pub const COLUMN_MULTIPLE: usize = 32;

/// `out_features` rounded up to whole multiples of [`COLUMN_MULTIPLE`]: the columns of the packed matrix.
pub fn padded_columns(out_features: usize) -> usize {
    out_features.div_ceil(COLUMN_MULTIPLE) * COLUMN_MULTIPLE
}
