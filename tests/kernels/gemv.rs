//! Dense products of a few rows.

use exlay::selftest::Matmul;

use crate::support::check;

#[test]
fn all_row_counts_and_row_lengths() {
    for (rows, n, k) in [
        (1, 1, 2),
        (2, 31, 30),
        (3, 32, 32),
        (4, 33, 34),
        (5, 97, 126),
        (6, 7, 128),
        (7, 64, 130),
        (8, 5, 1030),
    ] {
        check(&Matmul { rows, n, k, bias: rows % 2 == 0, add: rows % 3 == 0 });
    }
}
