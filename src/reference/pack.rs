//! The oracle's own writer of packed EXL2 tensors, bit by bit.

use half::f16;

use super::permute::inverse;
use super::unpack::Packed;

/// The tensors of one packed matrix; shapes as in [`Packed`].
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of `Packed`")]
pub struct PackedTensors {
    pub q_weight: Vec<u32>,
    pub q_scale: Vec<u32>,
    pub q_scale_max: Vec<f16>,
    pub q_groups: Vec<u16>,
    pub q_invperm: Vec<u32>,
}

impl PackedTensors {
    /// The tensors for the oracles that read them.
    pub fn view(&self) -> Packed<'_> {
        Packed {
            q_weight: &self.q_weight,
            q_scale: &self.q_scale,
            q_scale_max: &self.q_scale_max,
            q_groups: &self.q_groups,
            q_invperm: &self.q_invperm,
        }
    }
}

/// Packs a matrix. `codes`: `[K, columns]` in packed row order, each below `2^bits` of its group;
/// `scale_codes`: `1..=16`, `[G, columns]`; `scale_max`: `[G]`; `permutation[i]`: the original row of packed row
/// `i`; `layout`: `(bits, rows)` of each group. `columns` is a multiple of 8.
pub fn pack(
    codes: &[u8],
    scale_codes: &[u8],
    scale_max: &[f16],
    permutation: &[u32],
    layout: &[(u32, usize)],
) -> PackedTensors {
    let columns = codes.len() / permutation.len();
    let (mut q_weight, mut q_groups, mut row) = (Vec::new(), Vec::new(), 0);
    for &(bits, rows) in layout {
        q_groups.push(bits as u16);
        q_groups.push((q_weight.len() / columns) as u16);
        q_weight.extend(fields(&codes[row * columns..(row + rows) * columns], columns, bits as usize));
        row += rows;
    }
    assert_eq!(row, permutation.len(), "the layout covers every row");
    PackedTensors {
        q_weight,
        q_scale: scale_words(scale_codes),
        q_scale_max: scale_max.to_vec(),
        q_groups,
        q_invperm: inverse(permutation),
    }
}

/// Codes of one group, `[rows, columns]` with `rows · bits` a multiple of 32, to words
/// `[rows·bits / 32, columns]`; the inverse of [`super::unpack::fields`].
pub fn fields(codes: &[u8], columns: usize, bits: usize) -> Vec<u32> {
    let rows = codes.len() / columns;
    assert_eq!(rows * bits % 32, 0, "whole words");
    let mut words = vec![0; rows * bits / 32 * columns];
    for row in 0..rows {
        for column in 0..columns {
            let code = u32::from(codes[row * columns + column]);
            for bit in 0..bits {
                let at = row * bits + bit;
                words[at / 32 * columns + column] |= ((code >> bit) & 1) << (at % 32);
            }
        }
    }
    words
}

/// Scale codes `1..=16`, `[G, columns]`, to words `[G, columns / 8]`: each minus one, the first column lowest.
pub fn scale_words(codes: &[u8]) -> Vec<u32> {
    let mut words = vec![0; codes.len() / 8];
    for (at, &code) in codes.iter().enumerate() {
        words[at / 8] |= u32::from(code - 1) << (4 * (at % 8));
    }
    words
}
