//! One packed linear on the host, and its exact decoder.

use std::ops::Range;

use half::f16;
use rayon::prelude::*;

use super::bits::{field, group_maximum};
use super::{BLOCK_ROWS, COLUMN_MULTIPLE, Layout};
use crate::error::{Error, Result};

/// A packed linear: the tensors that an EXL2 file holds for it, checked against each other.
///
/// K input features are rows, N output features are columns. Packed rows are ordered by width;
/// `q_invperm` says where each input feature went. Codes and scale codes are the matrix's own, or [`Words`] that may be
/// somebody else's.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedMatrix<W = Vec<u32>> {
    /// Input features.
    pub k: usize,
    /// Output features, padded to a multiple of 32.
    pub n: usize,
    /// Widths and group sizes.
    pub layout: Layout,
    /// Codes, `[layout.word_rows(), n]`.
    pub q_weight: W,
    /// 4-bit scale codes, `[groups, n / 8]`.
    pub q_scale: W,
    /// Largest scale of each group, not yet divided by 256.
    pub q_scale_max: Vec<f16>,
    /// Packed row of each input feature, a permutation of `0..k`.
    pub q_invperm: Vec<u32>,
    /// Bias, `[n]`.
    pub bias: Option<Vec<f16>>,
}

/// Words that need not be in memory of their own, such as those of a mapped file.
#[derive(Debug, Clone)]
pub enum Words<'a> {
    /// In memory, as the processor has them.
    Own(Vec<u32>),
    /// Little-endian, anywhere.
    Bytes(&'a [u8]),
    /// So many words that are not told, for planning.
    Untold(usize),
}

impl Words<'_> {
    /// Number of words.
    pub fn len(&self) -> usize {
        match self {
            Self::Own(words) => words.len(),
            Self::Bytes(bytes) => bytes.len() / 4,
            Self::Untold(count) => *count,
        }
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As they lie in device memory, which is little-endian; nothing of what is not told.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(words) => bytemuck::cast_slice(words),
            Self::Bytes(bytes) => bytes,
            Self::Untold(_) => &[],
        }
    }
}

fn refuse(message: String) -> Error {
    Error::shape("packed matrix", message)
}

fn check_length(name: &str, length: usize, expected: usize) -> Result<()> {
    if length == expected {
        return Ok(());
    }
    Err(refuse(format!("{name} has {length} elements, {expected} are needed")))
}

impl PackedMatrix {
    /// A matrix of these tensors; `n` is the padded number of columns.
    ///
    /// # Errors
    /// If a length contradicts `layout` and `n`, `n` is zero or no multiple of 32, `q_invperm` is not a
    /// permutation, or a largest scale or bias is not finite.
    pub fn new(
        n: usize,
        layout: Layout,
        q_weight: Vec<u32>,
        q_scale: Vec<u32>,
        q_scale_max: Vec<f16>,
        q_invperm: Vec<u32>,
        bias: Option<Vec<f16>>,
    ) -> Result<Self> {
        let matrix = Self { k: layout.rows(), n, layout, q_weight, q_scale, q_scale_max, q_invperm, bias };
        matrix.check(matrix.q_weight.len(), matrix.q_scale.len())?;
        Ok(matrix)
    }

    /// The same with words that are lent.
    pub fn lend(&self) -> PackedMatrix<Words<'_>> {
        PackedMatrix {
            k: self.k,
            n: self.n,
            layout: self.layout.clone(),
            q_weight: Words::Bytes(bytemuck::cast_slice(&self.q_weight)),
            q_scale: Words::Bytes(bytemuck::cast_slice(&self.q_scale)),
            q_scale_max: self.q_scale_max.clone(),
            q_invperm: self.q_invperm.clone(),
            bias: self.bias.clone(),
        }
    }

    /// The weights `[k, n]` in the order of the input features, bit for bit those of ExLlamaV2's
    /// full-matrix reconstruction: three products, each rounded to f16 once.
    pub fn dequantize(&self) -> Vec<f16> {
        let n = self.n;
        let starts = self.group_starts();
        let scales: Vec<f16> = self.scales();
        let mut weights = vec![f16::ZERO; self.k * n];
        weights.par_chunks_exact_mut(n).zip(&self.q_invperm).for_each(|(out, &row)| {
            let row = row as usize;
            let group = starts.partition_point(|&(start, _)| start <= row) - 1;
            let (start, word_start) = starts[group];
            let bits = self.layout.groups()[group].bits;
            let words = &self.q_weight[word_start * n..];
            let zero = 1_i16 << (bits - 1);
            for (column, (out, &scale)) in out.iter_mut().zip(&scales[group * n..]).enumerate() {
                let code = i16::from(field(words, n, bits, row - start, column)) - zero;
                *out = f16::from_f32(f32::from(code)) * scale;
            }
        });
        weights
    }

    /// The scale of every group and column, `[groups, n]`, as the decoder uses it: the square of the
    /// scale code times [`group_maximum`], rounded to f16.
    pub fn scales(&self) -> Vec<f16> {
        let maxima = self.q_scale_max.iter().map(|&scale| group_maximum(scale));
        let rows = self.q_scale.chunks_exact(self.n / 8);
        let squares =
            |words: &[u32]| super::unpack_scales(words).into_iter().map(|n| u16::from(n) * u16::from(n));
        rows.zip(maxima)
            .flat_map(|(words, maximum)| {
                squares(words).map(move |square| f16::from_f32(f32::from(square)) * maximum)
            })
            .collect()
    }

    /// First packed row and first word row of each group.
    fn group_starts(&self) -> Vec<(usize, usize)> {
        let mut next = (0, 0);
        let step = |group: &super::Group| {
            let start = next;
            next.0 += group.rows;
            next.1 += group.rows / BLOCK_ROWS * group.bits as usize;
            start
        };
        self.layout.groups().iter().map(step).collect()
    }

    /// The columns in `range` as a matrix of their own over the whole of K, with the same permutation.
    ///
    /// # Panics
    /// If the range is empty, out of bounds, or its ends are no multiples of 32.
    pub fn columns(&self, range: Range<usize>) -> Self {
        let whole = |column: usize| column.is_multiple_of(COLUMN_MULTIPLE);
        assert!(range.start < range.end && range.end <= self.n, "the range lies inside the matrix");
        assert!(whole(range.start) && whole(range.end), "columns are cut at multiples of 32");
        let nibbles = range.start / 8..range.end / 8;
        Self {
            k: self.k,
            n: range.len(),
            layout: self.layout.clone(),
            q_weight: cut(&self.q_weight, self.n, range.clone()),
            q_scale: cut(&self.q_scale, self.n / 8, nibbles),
            q_scale_max: self.q_scale_max.clone(),
            q_invperm: self.q_invperm.clone(),
            bias: self.bias.as_ref().map(|bias| bias[range].to_vec()),
        }
    }

    /// Stored bits of `q_weight`, `q_scale`, `q_scale_max`, `q_groups` and `q_invperm`; the bias is not counted.
    pub fn stored_bits(&self) -> u64 {
        let words = self.q_weight.len() + self.q_scale.len() + self.q_invperm.len();
        let halves = self.q_scale_max.len() + 2 * self.layout.groups().len();
        32 * words as u64 + 16 * halves as u64
    }
}

impl<'a> PackedMatrix<Words<'a>> {
    /// A matrix whose words are somebody else's, as [`PackedMatrix::new`].
    ///
    /// # Errors
    /// As [`PackedMatrix::new`].
    pub fn lent(
        n: usize,
        layout: Layout,
        [q_weight, q_scale]: [Words<'a>; 2],
        q_scale_max: Vec<f16>,
        q_invperm: Vec<u32>,
        bias: Option<Vec<f16>>,
    ) -> Result<Self> {
        let matrix = Self { k: layout.rows(), n, layout, q_weight, q_scale, q_scale_max, q_invperm, bias };
        matrix.check(matrix.q_weight.len(), matrix.q_scale.len())?;
        Ok(matrix)
    }
}

impl<W> PackedMatrix<W> {
    /// Refuses what [`PackedMatrix::new`] does.
    fn check(&self, q_weight: usize, q_scale: usize) -> Result<()> {
        let (n, layout) = (self.n, &self.layout);
        let groups = layout.groups().len();
        if n == 0 || !n.is_multiple_of(COLUMN_MULTIPLE) {
            return Err(refuse(format!("{n} columns; a multiple of {COLUMN_MULTIPLE} is needed")));
        }
        check_length("q_weight", q_weight, layout.word_rows() * n)?;
        check_length("q_scale", q_scale, groups * (n / 8))?;
        check_length("q_scale_max", self.q_scale_max.len(), groups)?;
        check_length("q_invperm", self.q_invperm.len(), self.k)?;
        check_permutation(&self.q_invperm)?;
        if let Some(group) = self.q_scale_max.iter().position(|scale| !scale.is_finite()) {
            return Err(refuse(format!("q_scale_max of group {group} is {}", self.q_scale_max[group])));
        }
        if let Some(bias) = &self.bias {
            check_length("bias", bias.len(), n)?;
            if let Some(column) = bias.iter().position(|value| !value.is_finite()) {
                return Err(refuse(format!("bias of column {column} is {}", bias[column])));
            }
        }
        Ok(())
    }
}

fn cut(words: &[u32], columns: usize, range: Range<usize>) -> Vec<u32> {
    words.chunks_exact(columns).flat_map(|row| &row[range.clone()]).copied().collect()
}

fn check_permutation(rows: &[u32]) -> Result<()> {
    let mut taken = vec![false; rows.len()];
    for (feature, &row) in rows.iter().enumerate() {
        match taken.get_mut(row as usize) {
            Some(taken) if !*taken => *taken = true,
            Some(_) => return Err(refuse(format!("q_invperm names packed row {row} twice"))),
            None => {
                let count = rows.len();
                return Err(refuse(format!("q_invperm sends feature {feature} to row {row} of {count}")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Group, pack, pack_scales};
    use super::*;

    /// K = 64, N = 32: a 4-bit group of codes 9, then a 3-bit group of codes `row % 8`.
    fn two_groups() -> PackedMatrix {
        let layout = Layout::new(vec![Group { bits: 4, rows: 32 }, Group { bits: 3, rows: 32 }]).unwrap();
        let mut q_weight = pack(&[9; 32 * 32], 32, 4);
        let rising: Vec<u8> = (0..32 * 32).map(|i| (i / 32 % 8) as u8).collect();
        q_weight.extend(pack(&rising, 32, 3));
        let q_scale = pack_scales(&[[16; 32], [4; 32]].concat());
        let scales = [0.25, 0.5].map(f16::from_f32).to_vec();
        PackedMatrix::new(32, layout, q_weight, q_scale, scales, (0..64).collect(), None).unwrap()
    }

    #[test]
    fn worked_example_decodes() {
        let matrix = two_groups();
        let column: Vec<u32> = matrix.q_weight.iter().step_by(32).copied().collect();
        assert_eq!(
            column,
            [0x99999999, 0x99999999, 0x99999999, 0x99999999, 0x88fac688, 0xc688fac6, 0xfac688fa]
        );
        let weights = matrix.dequantize();
        let rows = [0, 32, 33, 39].map(|row| weights[row * 32].to_f32());
        assert_eq!(rows, [0.25, -0.125, -0.09375, 0.09375]);
        assert_eq!(matrix.stored_bits(), matrix.layout.total_bits(32));
    }

    #[test]
    fn permutation_is_undone() {
        let mut matrix = two_groups();
        matrix.q_invperm.reverse();
        let weights = matrix.dequantize();
        let expected: Vec<f16> = two_groups().dequantize().chunks(32).rev().flatten().copied().collect();
        assert_eq!(weights, expected);
    }

    #[test]
    fn bad_parts_are_refused() {
        let check = |change: fn(&mut PackedMatrix), word: &str| {
            let mut m = two_groups();
            change(&mut m);
            let new =
                PackedMatrix::new(m.n, m.layout, m.q_weight, m.q_scale, m.q_scale_max, m.q_invperm, m.bias);
            let message = new.unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        };
        check(|m| m.n = 40, "40 columns");
        check(|m| m.n = 0, "0 columns");
        check(|m| m.n = 64, "q_weight");
        check(|m| m.q_weight.truncate(5), "q_weight has 5");
        check(|m| m.q_scale.push(0), "q_scale has 9");
        check(|m| m.q_scale_max.truncate(1), "q_scale_max has 1");
        check(|m| m.q_invperm.truncate(63), "q_invperm has 63");
        check(|m| m.q_invperm[3] = 4, "row 4 twice");
        check(|m| m.q_invperm[3] = 64, "row 64 of 64");
        check(|m| m.q_invperm[3] = u32::MAX, "feature 3");
        check(|m| m.q_scale_max[1] = f16::NAN, "group 1 is NaN");
        check(|m| m.bias = Some(vec![f16::ONE; 31]), "bias has 31");
        check(|m| m.bias = Some(vec![f16::INFINITY; 32]), "column 0 is inf");
    }
}
