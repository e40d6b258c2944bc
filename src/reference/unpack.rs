//! The oracle's own reader of packed EXL2 tensors: bit streams, groups and scale codes to integers.
//!
//! Bits are read one at a time. Layout facts: ExLlamaV2 0.3.2, as its quantizer writes them.

use rayon::prelude::*;

use half::f16;

/// The tensors of one packed matrix of `K` rows and `N` columns, as they stand in a file.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// Codes, `[word rows, N]`.
    pub q_weight: &'a [u32],
    /// Scale codes minus one, eight columns a word, `[G, N / 8]`.
    pub q_scale: &'a [u32],
    /// Largest scale of each group, `[G]`.
    pub q_scale_max: &'a [f16],
    /// `(bits, first word row)` of each group, `[2G]`.
    pub q_groups: &'a [u16],
    /// Packed row of each original row, `[K]`.
    pub q_invperm: &'a [u32],
}

/// Where one group of rows lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Bits per code.
    pub bits: usize,
    /// Its first packed row.
    pub first_row: usize,
    /// Its rows.
    pub rows: usize,
    /// Its first word row.
    pub first_word: usize,
}

impl Packed<'_> {
    /// Rows of the matrix, `K`.
    pub fn rows(&self) -> usize {
        self.q_invperm.len()
    }

    /// Columns of the matrix, padding included, `N`.
    pub fn columns(&self) -> usize {
        self.q_scale.len() * 8 / self.q_scale_max.len()
    }

    /// The groups, top to bottom. A group ends where the next one's words begin, and its rows follow from that.
    pub fn spans(&self) -> Vec<Span> {
        let word_rows = self.q_weight.len() / self.columns();
        let mut first_row = 0;
        let mut spans = Vec::new();
        for group in 0..self.q_scale_max.len() {
            let bits = usize::from(self.q_groups[2 * group]);
            let first_word = usize::from(self.q_groups[2 * group + 1]);
            let end = self.q_groups.get(2 * group + 3).map_or(word_rows, |&next| usize::from(next));
            let rows = (end - first_word) * 32 / bits;
            spans.push(Span { bits, first_row, rows, first_word });
            first_row += rows;
        }
        assert_eq!(first_row, self.rows(), "the groups' rows are the matrix's rows");
        spans
    }

    /// The code, `0..2^bits`, of packed row `first_row + row` in a group.
    pub fn code(&self, span: &Span, row: usize, column: usize) -> u32 {
        let words = &self.q_weight[span.first_word * self.columns()..];
        code(words, self.columns(), span.bits, row, column)
    }

    /// The scale code, `1..=16`, of a group and a column.
    pub fn scale_code(&self, group: usize, column: usize) -> u32 {
        let word = self.q_scale[group * (self.columns() / 8) + column / 8];
        let mut value = 0;
        for bit in 0..4 {
            value += ((word >> (4 * (column % 8) + bit)) & 1) << bit;
        }
        value + 1
    }

    /// All codes in packed row order, `[K, N]`.
    pub fn codes(&self) -> Vec<u8> {
        let columns = self.columns();
        let mut codes = vec![0; self.rows() * columns];
        for span in self.spans() {
            let part = &mut codes[span.first_row * columns..(span.first_row + span.rows) * columns];
            part.par_chunks_exact_mut(columns).enumerate().for_each(|(row, part)| {
                for (column, to) in part.iter_mut().enumerate() {
                    *to = self.code(&span, row, column) as u8;
                }
            });
        }
        codes
    }

    /// All scale codes, `1..=16`, `[G, N]`.
    pub fn scale_codes(&self) -> Vec<u8> {
        let mut codes = Vec::new();
        for group in 0..self.q_scale_max.len() {
            for column in 0..self.columns() {
                codes.push(self.scale_code(group, column) as u8);
            }
        }
        codes
    }
}

/// Field `row` of a column's bit stream in the words of one group, `[word rows, columns]`: stream bit `s` is
/// bit `s mod 32` of word row `s / 32`, and the field is bits `row·bits ..`, lowest first.
pub fn code(words: &[u32], columns: usize, bits: usize, row: usize, column: usize) -> u32 {
    let mut value = 0;
    for bit in 0..bits {
        let at = row * bits + bit;
        value += ((words[at / 32 * columns + column] >> (at % 32)) & 1) << bit;
    }
    value
}

/// All fields of one group: words `[rows·bits / 32, columns]` to codes `[rows, columns]`.
pub fn fields(words: &[u32], columns: usize, bits: usize) -> Vec<u8> {
    let rows = words.len() / columns * 32 / bits;
    let mut codes = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            codes.push(code(words, columns, bits, row, column) as u8);
        }
    }
    codes
}
