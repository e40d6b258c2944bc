//! Dense products of many rows, on matrix units where there are some.

use exlay::gpu::Tier;
use exlay::selftest::{Case, Matmul};

use crate::support::{check, device, tiers};

#[test]
fn all_row_counts_and_tile_edges() {
    for (rows, n, k) in
        [(9, 1, 2), (31, 31, 30), (32, 33, 34), (33, 63, 16), (63, 64, 18), (64, 65, 98), (65, 97, 64)]
    {
        check(&Matmul { rows, n, k, bias: rows % 2 == 1, add: rows % 3 == 0 });
    }
}

/// Tiles that hang over in either direction, steps that do, and enough of them for the largest tile.
#[test]
fn shapes_for_matrix_units() {
    let shapes = [
        (9, 16, 16),
        (17, 48, 32),
        (32, 32, 96),
        (33, 80, 40),
        (64, 64, 64),
        (65, 145, 120),
        (33, 3600, 32),
        (40, 3601, 8),
    ];
    for (rows, n, k) in shapes {
        let case = Matmul { rows, n, k, bias: rows % 2 == 1, add: rows % 3 == 0 };
        check(&case);
        if tiers().contains(&Tier::Coop) {
            assert_eq!(case.kernel(&device(Tier::Coop, false)), "matmul_coop");
        }
    }
}
