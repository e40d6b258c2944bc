//! Root-mean-square norms.

use exlay::selftest::RmsNorm;

use crate::support::check;

#[test]
fn all_row_lengths() {
    for (rows, cols) in
        [(1, 1), (2, 31), (3, 32), (1, 33), (9, 255), (2, 256), (64, 257), (65, 97), (2, 1031)]
    {
        check(&RmsNorm { rows, cols });
    }
}
