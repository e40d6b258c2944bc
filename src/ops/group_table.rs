//! What the product of a group finds where: tiles of columns, and runs of packed rows of one width.

use std::ops::Range;

use super::quant_group::GroupMember;
use crate::packing::{BLOCK_ROWS, Layout};

/// Columns that a workgroup of the product makes.
pub(super) const TILE: usize = 128;

/// Words of a tile's record before its runs, of a run, and the line that records begin at: 128 bytes, so that a tile of up
/// to six runs is one access to memory.
const TILE_WORDS: usize = 8;
const RUN_WORDS: usize = 4;
const LINE_WORDS: usize = 32;

/// Blocks of 32 rows that a slice of the product takes at a time: as many as keep enough loads in flight.
pub(super) const fn unit_blocks(bits: u32) -> u32 {
    if bits <= 3 { 2 } else { 1 }
}

/// A slab of a member: its columns, and the bytes of its sheet that hold its words and scales.
pub(super) struct Piece {
    pub(super) member: usize,
    pub(super) columns: Range<usize>,
    pub(super) sheet: usize,
    pub(super) words: Range<u64>,
    pub(super) scales: Range<u64>,
}

/// The table of a sheet: a record for each tile, with the runs of its matrix.
pub(super) struct Table {
    pub(super) words: Vec<u32>,
    pub(super) tiles: usize,
    /// Words from one record to the next.
    pub(super) stride: usize,
}

impl Table {
    /// `copies[m]`: which copy of the activation member m takes.
    pub(super) fn new(members: &[GroupMember<'_>], copies: &[u32], pieces: &[&Piece]) -> Self {
        let runs: Vec<Vec<Run>> = members.iter().map(|member| runs(&member.matrix.layout)).collect();
        let most = runs.iter().map(Vec::len).max().unwrap_or(0);
        let stride = (TILE_WORDS + most * RUN_WORDS).next_multiple_of(LINE_WORDS);
        let tiles = pieces.iter().map(|piece| piece.columns.len().div_ceil(TILE)).sum();
        let mut words = Vec::with_capacity(tiles * stride + RUN_WORDS);
        for piece in pieces {
            let before = &members[..piece.member];
            let first_output: usize = before.iter().map(|member| member.matrix.n).sum();
            let first_maximum: usize = before.iter().map(|member| member.matrix.layout.groups().len()).sum();
            let (columns, runs) = (piece.columns.len(), &runs[piece.member]);
            for first in (0..columns).step_by(TILE) {
                let end = words.len() + stride;
                let record: [usize; TILE_WORDS] = [
                    piece.words.start as usize / 16 + first / 4,
                    columns / 4,
                    piece.scales.start as usize / 4 + first / 8,
                    columns / 8,
                    first_maximum,
                    (first_output + piece.columns.start + first) / 4,
                    TILE.min(columns - first) / 4,
                    runs.len() | (copies[piece.member] as usize) << 16,
                ];
                words.extend(record.map(|word| word as u32));
                words.extend(runs.iter().flat_map(Run::words));
                words.resize(end, 0);
            }
        }
        // A workgroup asks for the run after the one at hand, even behind the last.
        words.resize(words.len() + RUN_WORDS, 0);
        Self { words, tiles, stride }
    }
}

/// Blocks `block .. block + blocks` of one width; block `block + i` is of group `group + (i >> shift)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    bits: u32,
    /// Word row of the first block.
    word_row: u32,
    block: u32,
    blocks: u32,
    group: u32,
    shift: u32,
    /// Units of all runs before, so that the slices' shares go on where the last run left off.
    offset: u32,
}

impl Run {
    /// As the table has it: K is below 2^16, so blocks and groups are below 2^11 and word rows below 2^14.
    fn words(&self) -> [u32; RUN_WORDS] {
        [
            self.bits | self.shift << 8 | self.blocks << 16,
            self.word_row | self.block << 16,
            self.group | self.offset << 16,
            0,
        ]
    }
}

/// A shift that sends every block to the first group.
const ONE_GROUP: u32 = 31;

fn runs(layout: &Layout) -> Vec<Run> {
    let mut all: Vec<Run> = Vec::new();
    let (mut block, mut word_row, mut offset) = (0, 0, 0);
    // The last group had the run's full size, so that another may follow.
    let mut open = false;
    for (group, one) in (0..).zip(layout.groups()) {
        let blocks = (one.rows / BLOCK_ROWS) as u32;
        match all.last_mut() {
            Some(run) if open && run.bits == one.bits && blocks <= 1 << run.shift => {
                run.blocks += blocks;
                open = blocks == 1 << run.shift;
            }
            last => {
                if let Some(run) = last {
                    offset += run.blocks.div_ceil(unit_blocks(run.bits));
                }
                open = blocks.is_power_of_two();
                let shift = if open { blocks.trailing_zeros() } else { ONE_GROUP };
                all.push(Run { bits: one.bits, word_row, block, blocks, group, shift, offset });
            }
        }
        block += blocks;
        word_row += blocks * one.bits;
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
    fn runs_give_every_block_its_group_and_words() {
        let layout =
            layout(&[(6, 4), (6, 4), (6, 1), (6, 4), (4, 3), (4, 3), (3, 1), (3, 2), (2, 2), (2, 2), (2, 1)]);
        let runs = runs(&layout);
        let (mut block, mut word_row) = (0, 0);
        for (group, one) in (0..).zip(layout.groups()) {
            for _ in 0..one.rows / BLOCK_ROWS {
                let holds = |run: &&Run| (run.block..run.block + run.blocks).contains(&block);
                let found: Vec<&Run> = runs.iter().filter(holds).collect();
                let [run] = found[..] else { panic!("block {block} is in {} runs", found.len()) };
                let inside = block - run.block;
                assert_eq!((run.bits, run.group + (inside >> run.shift)), (one.bits, group), "block {block}");
                assert_eq!(run.word_row + inside * run.bits, word_row);
                (block, word_row) = (block + 1, word_row + one.bits);
            }
        }
    }

    #[test]
    fn equal_groups_are_one_run_a_width() {
        let layout = layout(&[(5, 4), (5, 4), (5, 2), (2, 2), (2, 2)]);
        let runs: Vec<_> = runs(&layout).iter().map(|run| (run.bits, run.blocks, run.offset)).collect();
        assert_eq!(runs, [(5, 10, 0), (2, 4, 10)]);
    }
}
