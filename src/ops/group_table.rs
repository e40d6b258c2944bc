//! What the product of a group finds where: pieces of columns, and runs of packed rows of one width.

use std::ops::Range;

use super::quant_group::GroupMember;
use crate::packing::{BLOCK_ROWS, Layout};

/// Columns that a workgroup of the product makes.
pub(super) const TILE: usize = 128;

/// Words of a piece in the table.
const PIECE_WORDS: usize = 8;

/// A slab of a member: its columns, and the bytes of its sheet that hold its words and scales.
pub(super) struct Piece {
    pub(super) member: usize,
    pub(super) columns: Range<usize>,
    pub(super) sheet: usize,
    pub(super) words: Range<u64>,
    pub(super) scales: Range<u64>,
}

/// The table of a sheet. For each piece: vec4 index of its first word and vec4 in a word row, first word of its scales, first of
/// its maxima, its first column in fours, its first tile, its runs (from where in the table, to where in the high half) and its
/// copy of the activation. Then for each run of each member its width, the shift of its groups and its blocks, in 8, 8 and 16
/// bits: K is below 2^16, so blocks are below 2^11. Where a run begins, in rows, words and groups, follows from those before.
pub(super) struct Table {
    pub(super) words: Vec<u32>,
    pub(super) pieces: usize,
    pub(super) tiles: usize,
}

impl Table {
    /// `copies[m]`: which copy of the activation member m takes.
    pub(super) fn new(members: &[GroupMember<'_>], copies: &[u32], pieces: &[&Piece]) -> Self {
        let mut runs_words: Vec<u32> = Vec::new();
        let mut spans: Vec<Range<usize>> = Vec::with_capacity(members.len());
        for member in members {
            let begin = PIECE_WORDS * pieces.len() + runs_words.len();
            runs_words.extend(runs(&member.matrix.layout).iter().map(Run::word));
            spans.push(begin..PIECE_WORDS * pieces.len() + runs_words.len());
        }
        let mut words = Vec::with_capacity(PIECE_WORDS * pieces.len() + runs_words.len());
        let mut tiles = 0;
        for piece in pieces {
            let before = &members[..piece.member];
            let first_output: usize = before.iter().map(|member| member.matrix.n).sum();
            let first_maximum: usize = before.iter().map(|member| member.matrix.layout.groups().len()).sum();
            let span = &spans[piece.member];
            let record: [usize; PIECE_WORDS] = [
                piece.words.start as usize / 16,
                piece.columns.len() / 4,
                piece.scales.start as usize / 4,
                first_maximum,
                (first_output + piece.columns.start) / 4,
                tiles,
                span.start | span.end << 16,
                copies[piece.member] as usize,
            ];
            words.extend(record.map(|word| word as u32));
            tiles += piece.columns.len().div_ceil(TILE);
        }
        words.extend(runs_words);
        Self { words, pieces: pieces.len(), tiles }
    }
}

/// Blocks of one width that follow those of the runs before: block i of them is of group i >> shift of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    bits: u32,
    blocks: u32,
    shift: u32,
}

impl Run {
    fn word(&self) -> u32 {
        self.bits | self.shift << 8 | self.blocks << 16
    }
}

/// A shift that sends every block to the first group.
const ONE_GROUP: u32 = 31;

fn runs(layout: &Layout) -> Vec<Run> {
    let mut all: Vec<Run> = Vec::new();
    // The last group had the run's full size, so that another may follow.
    let mut open = false;
    for one in layout.groups() {
        let blocks = (one.rows / BLOCK_ROWS) as u32;
        match all.last_mut() {
            Some(run) if open && run.bits == one.bits && blocks <= 1 << run.shift => {
                run.blocks += blocks;
                open = blocks == 1 << run.shift;
            }
            _ => {
                open = blocks.is_power_of_two();
                let shift = if open { blocks.trailing_zeros() } else { ONE_GROUP };
                all.push(Run { bits: one.bits, blocks, shift });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::Group;

    fn layout(groups: &[(u32, usize)]) -> Layout {
        let group = |&(bits, blocks): &(u32, usize)| Group { bits, rows: 32 * blocks };
        Layout::new(groups.iter().map(group).collect()).unwrap()
    }

    #[test]
    fn runs_give_every_block_its_group_and_width() {
        let layout =
            layout(&[(6, 4), (6, 4), (6, 1), (6, 4), (4, 3), (4, 3), (3, 1), (3, 2), (2, 2), (2, 2), (2, 1)]);
        let mut found = Vec::new();
        let mut first_group = 0;
        for run in runs(&layout) {
            found.extend((0..run.blocks).map(|block| (first_group + (block >> run.shift), run.bits)));
            first_group += (run.blocks + (1 << run.shift) - 1) >> run.shift;
        }
        let blocks = |(group, one): (u32, &Group)| vec![(group, one.bits); one.rows / BLOCK_ROWS];
        let expected: Vec<(u32, u32)> = (0..).zip(layout.groups()).flat_map(blocks).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn equal_groups_are_one_run_a_width() {
        let layout = layout(&[(5, 4), (5, 4), (5, 2), (2, 2), (2, 2)]);
        let runs: Vec<_> = runs(&layout).iter().map(|run| (run.bits, run.blocks)).collect();
        assert_eq!(runs, [(5, 10), (2, 4)]);
    }
}
