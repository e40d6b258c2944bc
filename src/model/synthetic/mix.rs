//! Layouts of several widths that reach a number of bits per weight.

use crate::packing::{BLOCK_ROWS, Group, Layout, WIDTHS};
use crate::{Error, Result};

/// Share of rows that are wider than the two widths around the target, as a quantizer leaves them.
const WIDE: f64 = 0.1;

/// Rows of a group.
fn group_rows(bits: u32) -> usize {
    if bits < 4 { 64 } else { 128 }
}

/// Stored bits of a weight in a group of this width, `n` columns wide: its code and its share of the group's scales.
fn cost(bits: u32, n: usize) -> f64 {
    let rows = group_rows(bits) as f64;
    f64::from(bits) + 4.0 / rows + 48.0 / (rows * n as f64)
}

/// A layout for [k, n] whose stored bits per weight come as close to `target` as whole blocks of 32 rows allow: a tenth
/// of the rows of a high width, the rest of two widths below, where the target leaves room for that.
///
/// # Errors
/// [`Error::Shape`] when k is not a multiple of 32 or too large.
pub fn layout(k: usize, n: usize, target: f64) -> Result<Layout> {
    let blocks = k / BLOCK_ROWS;
    // Bits per weight that the permutation leaves.
    let room = target - 32.0 / n as f64;
    let [wide, high, low] = widths(room, n);
    let wide_blocks = (WIDE * blocks as f64).round().min(blocks as f64);
    let wide_blocks = if wide == high { 0.0 } else { wide_blocks };
    let rest = blocks as f64 - wide_blocks;
    let missing = room * blocks as f64 - wide_blocks * cost(wide, n) - rest * cost(low, n);
    let step = cost(high, n) - cost(low, n);
    let high_blocks = if high == low { 0.0 } else { (missing / step).round().clamp(0.0, rest) };
    let counts = [wide_blocks, high_blocks, rest - high_blocks].map(|count| count as usize * BLOCK_ROWS);
    grouped(k, [wide, high, low].into_iter().zip(counts))
}

/// A layout of one width.
///
/// # Errors
/// As [`layout`].
pub(super) fn uniform(k: usize, bits: u32) -> Result<Layout> {
    grouped(k, std::iter::once((bits, k)))
}

/// Runs of a width and its rows, cut into groups.
fn grouped(k: usize, runs: impl Iterator<Item = (u32, usize)>) -> Result<Layout> {
    if !k.is_multiple_of(BLOCK_ROWS) {
        let message = format!("{k} rows; a multiple of {BLOCK_ROWS} is needed");
        return Err(Error::shape("synthetic matrix", message));
    }
    let mut groups = Vec::new();
    for (bits, mut rows) in runs {
        while rows > 0 {
            let group = group_rows(bits).min(rows);
            groups.push(Group { bits, rows: group });
            rows -= group;
        }
    }
    Layout::new(groups)
}

/// The widths of a tenth of the rows, and those above and below the rest's average.
fn widths(room: f64, n: usize) -> [u32; 3] {
    let above = |index: usize, steps: usize| WIDTHS[index.saturating_sub(steps)];
    // From the widest: the first width that, with a tenth of the rows two widths above it, leaves room.
    let fits = (0..WIDTHS.len())
        .find(|&index| WIDE * cost(above(index, 2), n) + (1.0 - WIDE) * cost(WIDTHS[index], n) <= room);
    match fits {
        Some(index) => [above(index, 2), above(index, 1), WIDTHS[index]],
        None => [3, 3, 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(k: usize, n: usize, target: f64) -> f64 {
        layout(k, n, target).unwrap().total_bits(n) as f64 / (k * n) as f64
    }

    #[test]
    fn targets_are_reached_to_half_a_block() {
        for (k, n) in [(8192, 28_672), (28_672, 8192), (8192, 1024), (4096, 11_008), (2048, 256)] {
            for target in [2.2, 2.25, 2.5, 3.0, 3.5, 4.0, 4.03, 5.0, 6.0, 7.0] {
                // Half a block of the widest step (6 to 8 bits), and the last group's own scales.
                let bound = (16.0 * 2.1 + 8.0) / k as f64;
                let found = stored(k, n, target);
                assert!((found - target).abs() <= bound, "{target} at {k} x {n}: {found}");
            }
        }
    }

    #[test]
    fn widths_are_mixed_within_a_matrix() {
        for (target, expected) in
            [(2.5, [4, 3, 2]), (3.0, [4, 3, 2]), (4.0, [5, 4, 3]), (5.0, [6, 5, 4]), (6.0, [8, 6, 5])]
        {
            let layout = layout(8192, 28_672, target).unwrap();
            let mut found: Vec<u32> = layout.groups().iter().map(|group| group.bits).collect();
            found.dedup();
            assert_eq!(found, expected, "{target}");
        }
    }

    #[test]
    fn what_cannot_be_reached_gets_the_nearest() {
        assert!((2.06..2.08).contains(&stored(8192, 8192, 2.0)));
        assert!((8.0..8.05).contains(&stored(8192, 8192, 8.5)));
        assert!(layout(8200, 32, 4.0).is_err());
    }
}
