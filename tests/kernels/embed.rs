//! Rows of an embedding table.

use exlay::selftest::Embed;

use crate::support::check;

#[test]
fn all_row_lengths() {
    for (vocabulary, cols, rows) in [(1, 2, 1), (7, 30, 3), (31, 32, 9), (97, 34, 64), (301, 130, 65)] {
        check(&Embed { vocabulary, cols, rows });
    }
}
