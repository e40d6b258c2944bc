//! How a product of a group is shared out: how K is cut into slices, and how many of them a workgroup makes.
//!
//! The cut depends on the shape alone, and slices are added as one binary tree, within a workgroup and then by the consumer: so
//! which workgroup makes a slice changes no bit, and may be told by measurement ([`crate::gpu::Geometry`]).

use super::group_table::TILE;
use crate::gpu::Device;
use crate::packing::BLOCK_ROWS;

/// Slices of K that a workgroup makes where nothing was measured: with 256 lanes, which every adapter has.
const OF_WORKGROUP: usize = 8;

/// The most that a workgroup makes; with 32 a product was 10 % slower on an H100.
const MOST_OF_WORKGROUP: usize = 16;

/// Most parts that are left to a consumer: on an H100 adding sixteen costs it 3 µs more than eight, which no product gains.
const MOST_SUMS: usize = 8;

/// Subgroups of 32 lanes that an H100 holds at 64 registers a lane. More of them make a second round that is mostly idle:
/// 70B's q|k|v took 2.7 µs less with half as many as that needed.
const RESIDENT: usize = 132 * 32;

/// How a product is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Slices of K, a power of two.
    pub slices: usize,
    /// How many of them a workgroup makes, a power of two.
    pub of_workgroup: usize,
}

/// Slices of K for a product of `columns` columns and `k` rows: a power of two that depends on the shape alone, so that
/// the order of additions does not change from card to card.
pub fn slices(k: usize, columns: usize) -> usize {
    let tiles = columns.div_ceil(TILE);
    let blocks = k / BLOCK_ROWS;
    let wanted = (RESIDENT / tiles.max(1)).clamp(1, blocks.clamp(1, OF_WORKGROUP * MOST_SUMS));
    1 << wanted.ilog2()
}

/// The slices that a workgroup may make on this device, the one that is taken without measurement first. None leaves more
/// parts than that one does.
pub fn choices(device: &Device, k: usize, columns: usize) -> Vec<usize> {
    let slices = slices(k, columns);
    let first = slices.min(OF_WORKGROUP);
    let most = MOST_OF_WORKGROUP.min(slices).min(device.max_invocations() as usize / 32);
    std::iter::successors(Some(first), |one| Some(2 * one))
        .take_while(|&one| one == first || one <= most)
        .collect()
}

/// How a product is shared out on this device.
pub fn split(device: &Device, k: usize, columns: usize) -> Split {
    let choices = choices(device, k, columns);
    let measured =
        device.geometry().of_workgroup([k, columns]).filter(|of_workgroup| choices.contains(of_workgroup));
    Split { slices: slices(k, columns), of_workgroup: measured.unwrap_or(choices[0]) }
}

/// Parts that the product leaves on this device: 1, 2, 4 or 8.
pub fn sums(device: &Device, k: usize, columns: usize) -> usize {
    let Split { slices, of_workgroup } = split(device, k, columns);
    slices / of_workgroup
}

/// The most parts that it leaves on any device.
pub fn most_sums(k: usize, columns: usize) -> usize {
    slices(k, columns).div_ceil(OF_WORKGROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_fill_a_card_once() {
        for ((k, columns), expected) in [
            ((4096, 12_288), 32),
            ((4096, 4096), 64),
            ((4096, 22_016), 16),
            ((11_008, 4096), 64),
            ((8192, 10_240), 32),
            ((8192, 57_344), 8),
            ((28_672, 8192), 64),
            ((32, 300), 1),
        ] {
            assert_eq!(slices(k, columns), expected, "{k} x {columns}");
        }
    }
}
