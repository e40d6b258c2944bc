//! Which rows of a packed matrix have which width.

use super::{BLOCK_ROWS, MAX_ROWS, WIDTHS};
use crate::error::{Error, Result};

/// Consecutive packed rows that share a width and, per column, a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Width of a code in bits, one of [`WIDTHS`].
    pub bits: u32,
    /// Number of rows, a multiple of [`BLOCK_ROWS`].
    pub rows: usize,
}

/// The groups of a matrix from its first packed row to its last: legal widths in descending order,
/// whole blocks of rows, at most [`MAX_ROWS`] rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    groups: Vec<Group>,
    rows: usize,
    word_rows: usize,
}

fn refuse(message: String) -> Error {
    Error::shape("packed layout", message)
}

impl Layout {
    /// A layout of these groups.
    ///
    /// # Errors
    /// If there is no group, a width is illegal or above its predecessor's, a group is empty or no
    /// multiple of [`BLOCK_ROWS`], or the rows are more than [`MAX_ROWS`].
    pub fn new(groups: Vec<Group>) -> Result<Self> {
        if groups.is_empty() {
            return Err(refuse("there are no groups".into()));
        }
        let (mut rows, mut word_rows, mut previous) = (0_usize, 0_usize, WIDTHS[0]);
        for (index, &Group { bits, rows: group_rows }) in groups.iter().enumerate() {
            if !WIDTHS.contains(&bits) {
                return Err(refuse(format!("group {index} has {bits} bits; legal are 8, 6, 5, 4, 3 and 2")));
            }
            if bits > previous {
                let order = "groups must run from most to fewest bits";
                return Err(refuse(format!("group {index} has {bits} bits after {previous}; {order}")));
            }
            if group_rows == 0 || !group_rows.is_multiple_of(BLOCK_ROWS) || group_rows > MAX_ROWS {
                let rule = format!("a multiple of {BLOCK_ROWS} from {BLOCK_ROWS} to {MAX_ROWS} is needed");
                return Err(refuse(format!("group {index} has {group_rows} rows; {rule}")));
            }
            rows += group_rows;
            word_rows += group_rows / BLOCK_ROWS * bits as usize;
            previous = bits;
            if rows > MAX_ROWS {
                return Err(refuse(format!("more than {MAX_ROWS} rows, which the format cannot permute")));
            }
        }
        Ok(Self { groups, rows, word_rows })
    }

    /// Reads the `q_groups` of a file: pairs of a width and the group's first row in `q_weight`, which
    /// has `word_rows` rows.
    ///
    /// # Errors
    /// If the pairs do not describe all of `q_weight` in order, or as for [`Layout::new`].
    pub fn from_q_groups(q_groups: &[u16], word_rows: usize) -> Result<Self> {
        if q_groups.is_empty() || !q_groups.len().is_multiple_of(2) {
            return Err(refuse(format!("q_groups has {} entries; pairs are needed", q_groups.len())));
        }
        if q_groups[1] != 0 {
            return Err(refuse(format!("the first group begins at word row {}, not at 0", q_groups[1])));
        }
        let count = q_groups.len() / 2;
        let mut groups = Vec::with_capacity(count);
        for index in 0..count {
            let (bits, start) = (u32::from(q_groups[2 * index]), usize::from(q_groups[2 * index + 1]));
            let end = q_groups.get(2 * index + 3).map_or(word_rows, |&next| usize::from(next));
            if end <= start || end > word_rows {
                let outside = format!("group {index} covers word rows {start}..{end} of {word_rows}");
                return Err(refuse(outside));
            }
            if !WIDTHS.contains(&bits) {
                return Err(refuse(format!("group {index} has {bits} bits; legal are 8, 6, 5, 4, 3 and 2")));
            }
            let words = end - start;
            if !words.is_multiple_of(bits as usize) {
                let blocks = format!("group {index} has {words} word rows of {bits} bits");
                return Err(refuse(format!("{blocks}, which is no whole number of {BLOCK_ROWS} rows")));
            }
            groups.push(Group { bits, rows: words / bits as usize * BLOCK_ROWS });
        }
        Self::new(groups)
    }

    /// The `q_groups` of a file: pairs of a width and the group's first row in `q_weight`.
    pub fn q_groups(&self) -> Vec<u16> {
        let mut start = 0_usize;
        let mut pairs = Vec::with_capacity(2 * self.groups.len());
        for group in &self.groups {
            let fits = "65535 rows of at most 8 bits are fewer than 2^14 word rows";
            pairs.extend([group.bits as u16, u16::try_from(start).expect(fits)]);
            start += group.rows / BLOCK_ROWS * group.bits as usize;
        }
        pairs
    }

    /// The groups, first packed row first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Packed rows: K, the input features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows of `q_weight`.
    pub fn word_rows(&self) -> usize {
        self.word_rows
    }

    /// All stored bits of a matrix of this layout without its bias: codes, scale codes, per group the
    /// largest scale and the pair in `q_groups`, and the permutation.
    pub fn total_bits(&self, columns: usize) -> u64 {
        let (columns, groups) = (columns as u64, self.groups.len() as u64);
        let codes = self.word_rows as u64 * 32 * columns;
        codes + groups * (4 * columns + 16 + 32) + 32 * self.rows as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(groups: &[(u32, usize)]) -> Result<Layout> {
        Layout::new(groups.iter().map(|&(bits, rows)| Group { bits, rows }).collect())
    }

    #[test]
    fn q_groups_round_trip() {
        let layout = layout(&[(8, 32), (6, 96), (4, 64), (4, 32), (2, 128)]).unwrap();
        assert_eq!(layout.q_groups(), [8, 0, 6, 8, 4, 26, 4, 34, 2, 38]);
        assert_eq!((layout.rows(), layout.word_rows()), (352, 46));
        assert_eq!(Layout::from_q_groups(&layout.q_groups(), 46).unwrap(), layout);
    }

    #[test]
    fn total_bits_are_those_of_exllamav2() {
        // 4-bit, groups of 128, q and o 4096 wide, k and v 1024 wide.
        let layout = layout(&[(4, 128); 32]).unwrap();
        let sum: u64 = [4096, 1024, 1024, 4096].iter().map(|&n| layout.total_bits(n)).sum();
        assert_eq!(sum, 169_613_312);
    }

    #[test]
    fn bad_groups_are_refused() {
        for (groups, word) in [
            (&[][..], "no groups"),
            (&[(7, 32)], "7 bits"),
            (&[(4, 32), (5, 32)], "most to fewest"),
            (&[(4, 0)], "0 rows"),
            (&[(4, 48)], "48 rows"),
            (&[(2, 65504), (2, 32)], "65535"),
            (&[(2, usize::MAX - 31)], "rows"),
        ] {
            let message = layout(groups).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn bad_q_groups_are_refused() {
        for (q_groups, word_rows, word) in [
            (&[][..], 4, "0 entries"),
            (&[4, 0, 3], 7, "3 entries"),
            (&[4, 1], 5, "not at 0"),
            (&[4, 0, 3, 4], 4, "covers"),
            (&[4, 0, 3, 9], 7, "covers"),
            (&[4, 0, 3, 0], 7, "covers"),
            (&[4, 0, 4, 8, 4, 4], 12, "covers"),
            (&[4, 0], 0, "covers"),
            (&[0, 0], 4, "0 bits"),
            (&[65535, 0], 4, "65535 bits"),
            (&[3, 0, 4, 3], 7, "most to fewest"),
            (&[4, 0], 6, "whole number"),
            (&[8, 0], 1 << 40, "rows"),
        ] {
            let message = Layout::from_q_groups(q_groups, word_rows).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
