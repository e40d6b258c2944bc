//! Rows as halves.

use exlay::selftest::Halve;

use crate::support::check;

#[test]
fn rows_of_all_sizes() {
    for (rows, cols) in [(1, 32), (7, 224), (15, 1056)] {
        check(&Halve { rows, cols });
    }
}
