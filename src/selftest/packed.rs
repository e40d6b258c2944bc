//! Packed matrices of random codes: every word is a legal one.

use half::f16;

use super::Random;
use crate::Result;
use crate::packing::{Group, Layout, PackedMatrix, padded_columns};
use crate::reference::unpack::Packed;

/// The shape of a packed matrix.
#[derive(Clone, Debug)]
pub struct Packing {
    /// (bits, rows) of each group, widths descending, rows a multiple of 32.
    pub groups: Vec<(u32, usize)>,
    /// Outputs; the columns are padded to a multiple of 32.
    pub n: usize,
    /// With a bias.
    pub bias: bool,
}

impl Packing {
    /// k rows shared out among `widths` (descending) in groups of `group_rows`, the last of a width perhaps shorter.
    pub fn mixed(k: usize, n: usize, widths: &[u32], group_rows: usize, bias: bool) -> Self {
        let blocks = k / 32;
        let mut groups = Vec::new();
        for (index, &bits) in widths.iter().enumerate() {
            let share = blocks * (index + 1) / widths.len() - blocks * index / widths.len();
            let mut rows = 32 * share;
            while rows > 0 {
                groups.push((bits, rows.min(group_rows)));
                rows -= rows.min(group_rows);
            }
        }
        Self { groups, n, bias }
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.groups.iter().map(|&(_, rows)| rows).sum()
    }

    /// The shape in words: `[k, n] 8/6/4b`.
    pub fn words(&self) -> String {
        let mut widths: Vec<String> = self.groups.iter().map(|(bits, _)| bits.to_string()).collect();
        widths.dedup();
        format!("[{}, {}] {}b", self.k(), self.n, widths.join("/"))
    }

    /// Device memory of the codes and scales, in bytes.
    pub fn bytes(&self) -> u64 {
        let columns = padded_columns(self.n) as u64;
        self.groups.iter().map(|&(bits, rows)| (rows as u64 * u64::from(bits) + 4) * columns / 8).sum()
    }

    /// A matrix of this shape. Largest scales range from those that vanish to 0.25, so that some decoded scales
    /// are subnormal.
    ///
    /// # Errors
    /// As [`PackedMatrix::new`].
    pub fn matrix(&self, seed: u64) -> Result<PackedMatrix> {
        let (k, columns) = (self.k(), padded_columns(self.n));
        let layout = Layout::new(self.groups.iter().map(|&(bits, rows)| Group { bits, rows }).collect())?;
        let largest = Random::new(seed, "largest scales");
        let largest = (0..self.groups.len() as u64).map(|group| match group {
            0 => f16::from_f32(0.25),
            _ => f16::from_f64(
                0.25 * 2_f64.powf(-20.0 * (largest.bits(group) >> 11) as f64 / (1_u64 << 53) as f64),
            ),
        });
        PackedMatrix::new(
            columns,
            layout.clone(),
            Random::new(seed, "words").words(layout.word_rows() * columns),
            Random::new(seed, "scales").words(self.groups.len() * columns / 8),
            largest.collect(),
            Random::new(seed, "order").permutation(k),
            self.bias.then(|| Random::new(seed, "bias").weights(0..columns as u64)),
        )
    }
}

/// The oracle's view; `q_groups` is the matrix's own.
pub(super) fn view<'a>(matrix: &'a PackedMatrix, q_groups: &'a [u16]) -> Packed<'a> {
    Packed {
        q_weight: &matrix.q_weight,
        q_scale: &matrix.q_scale,
        q_scale_max: &matrix.q_scale_max,
        q_groups,
        q_invperm: &matrix.q_invperm,
    }
}

/// Flips the highest bit of the code of a packed row and column.
pub(super) fn flip_code(matrix: &mut PackedMatrix, row: usize, column: usize) {
    let q_groups = matrix.layout.q_groups();
    let span = view(matrix, &q_groups)
        .spans()
        .into_iter()
        .find(|span| (span.first_row..span.first_row + span.rows).contains(&row))
        .expect("the row lies in a group");
    let bit = (row - span.first_row) * span.bits + span.bits - 1;
    matrix.q_weight[(span.first_word + bit / 32) * matrix.n + column] ^= 1 << (bit % 32);
}
