//! How `matmul_coop` is divided among workgroups and subgroups, for each kind of adapter.

use super::coop_text::texts;
use crate::gpu::{Capabilities, Variant};

/// How a workgroup divides its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    /// Edge of a fragment, 8 or 16.
    pub(super) edge: usize,
    /// Lanes of a subgroup.
    pub(super) lanes: usize,
    /// Subgroups down and across.
    pub(super) subgroups: [usize; 2],
    /// Fragments of a subgroup down and across.
    pub(super) fragments: [usize; 2],
    /// Values of k in workgroup memory at a time, a multiple of the edge and of 8.
    pub(super) step: usize,
    /// Bytes of workgroup memory that there are.
    pub(super) shared: usize,
}

/// Halves between the rows in workgroup memory: rows stay at 16 bytes, and eight of them meet different banks.
pub(super) const PAD: usize = 8;

/// The same between rows of sums, in floats.
pub(super) const SUM_PAD: usize = 4;

impl Tile {
    /// The tiles for these capabilities, the largest first; none without matrix units.
    pub(super) fn all(capabilities: &Capabilities) -> Vec<Self> {
        let (Some(edge), Some((_, lanes))) = (capabilities.cooperative, capabilities.subgroup) else {
            return Vec::new();
        };
        let (edge, lanes) = (edge as usize, lanes as usize);
        let shared = capabilities.shared as usize;
        let tile = |subgroups, fragments, step| Self { edge, lanes, subgroups, fragments, step, shared };
        let mut all = if edge == 16 && lanes <= 32 {
            vec![tile([2, 4], [4, 2], 64), tile([2, 4], [4, 2], 32), tile([2, 2], [2, 2], 64)]
        } else if lanes >= 32 {
            vec![tile([2, 2], [4, 4], 32), tile([2, 2], [2, 2], 32)]
        } else {
            vec![tile([2, 4], [2, 2], 32), tile([2, 2], [2, 1], 32)]
        };
        all.retain(|tile| tile.bytes(1) <= shared);
        all
    }

    /// Outputs of a workgroup down and across.
    pub(super) fn outputs(&self) -> [usize; 2] {
        [0, 1].map(|way| self.subgroups[way] * self.fragments[way] * self.edge)
    }

    pub(super) fn invocations(&self) -> usize {
        self.lanes * self.subgroups[0] * self.subgroups[1]
    }

    /// 16-byte pieces that a lane loads for a step: of x and of w.
    pub(super) fn pieces(&self) -> [usize; 2] {
        self.outputs().map(|lines| lines * self.step / 8 / self.invocations())
    }

    /// Bytes of workgroup memory: a step of x and w, and sums of strips `wide` fragments across.
    fn bytes(&self, wide: usize) -> usize {
        let staged = 2 * (self.step + PAD) * self.outputs().iter().sum::<usize>();
        let strip = self.edge * (wide * self.edge + SUM_PAD);
        staged + 4 * self.subgroups[0] * self.subgroups[1] * strip
    }

    /// Fragments across in a strip of sums: as wide as a subgroup, or less where there is no room.
    pub(super) fn strip(&self) -> usize {
        let fits = |&wide: &usize| {
            self.fragments[1].is_multiple_of(wide)
                && wide * self.edge <= self.lanes
                && self.bytes(wide) <= self.shared
        };
        (1..=self.fragments[1]).rev().find(fits).unwrap_or(1)
    }

    /// The kernel for so many `planes` of x and of w, and a `tail` of k that is no whole step.
    pub(super) fn variant(&self, [of_x, of_w]: [usize; 2], tail: bool) -> Variant {
        let &Self { edge, lanes, subgroups: [down, across], fragments: [high, wide], step, .. } = self;
        let key = format!(
            "// {down} x {across} subgroups of {lanes}, {high} x {wide} fragments, {step}, strips of {}\n",
            self.strip()
        );
        let prologue = format!(
            "{key}enable f16;\nenable wgpu_cooperative_matrix;\n\
             alias MatA = coop_mat{edge}x{edge}<f16, A>;\nalias MatB = coop_mat{edge}x{edge}<f16, B>;\n\
             alias MatC = coop_mat{edge}x{edge}<f32, C>;"
        );
        let [declarations, zero, multiply, store] = texts(*self);
        Variant::new("matmul_coop")
            .prologue(&prologue)
            .generated("generated/coop.wgsl", declarations)
            .generated("generated/coop_zero.wgsl", zero)
            .generated("generated/coop_multiply.wgsl", multiply)
            .generated("generated/coop_store.wgsl", store)
            .constant("X_PLANES", of_x as u32)
            .constant("W_PLANES", of_w as u32)
            .constant("TAIL", u32::from(tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workgroup_loads_a_step_in_whole_pieces_and_has_room_for_it() {
        for (edge, lanes) in [(8, 8), (8, 32), (16, 32), (16, 64)] {
            for shared in [32 << 10, 48 << 10] {
                let capabilities = Capabilities {
                    f16: true,
                    fast_f16: true,
                    subgroup: Some((lanes, lanes)),
                    packed_dot: false,
                    cooperative: Some(edge),
                    shared,
                };
                let tiles = Tile::all(&capabilities);
                assert!(tiles.len() >= 2, "{edge} {lanes} {shared}");
                for tile in tiles {
                    let pieces = tile.pieces().map(|pieces| 8 * pieces * tile.invocations());
                    assert_eq!(pieces, tile.outputs().map(|lines| lines * tile.step), "{tile:?}");
                    assert!(tile.invocations().is_multiple_of(tile.step / 8), "{tile:?}");
                    assert!(tile.bytes(tile.strip()) <= shared as usize, "{tile:?}");
                    assert!(tile.lanes.is_multiple_of(tile.strip() * tile.edge), "{tile:?}");
                }
            }
        }
    }
}
