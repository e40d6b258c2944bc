//! Differences.

use exlay::selftest::Difference;

use crate::support::check;

#[test]
fn all_sizes() {
    for (rows, cols, factor) in [(1, 1, 1.0), (3, 32, 0.5), (5, 33, -0.3), (64, 66, 1.5), (65, 257, 2.0)] {
        check(&Difference { rows, cols, factor });
    }
}
