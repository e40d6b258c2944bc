//! Columns into packed order.

use exlay::selftest::Permute;

use crate::support::check;

#[test]
fn all_row_lengths() {
    for (rows, cols) in [(1, 32), (2, 64), (3, 96), (9, 608), (65, 160)] {
        check(&Permute { rows, cols });
    }
}
