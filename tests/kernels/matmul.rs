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

/// Whole fragments of 8 × 8 and 16 × 16, and tiles that hang over in either direction.
#[test]
fn shapes_for_matrix_units() {
    for (rows, n, k) in [(9, 16, 16), (17, 48, 32), (32, 32, 96), (33, 80, 48), (64, 64, 64), (65, 144, 112)]
    {
        let case = Matmul { rows, n, k, bias: rows % 2 == 1, add: rows % 3 == 0 };
        check(&case);
        let coop = tiers().contains(&Tier::Coop);
        if coop {
            assert_eq!(case.kernel(&device(Tier::Coop, false)), "matmul_coop");
        }
    }
}
