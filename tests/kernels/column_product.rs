//! Products over the rows of activations, and their columns as halves.

use exlay::selftest::{ColumnProduct, HalveColumns};

use crate::support::check;

#[test]
fn columns_of_all_sizes() {
    for (rows, cols, weighted) in [(1, 4, false), (63, 36, true), (64, 32, false), (130, 100, true)] {
        check(&HalveColumns { rows, cols, weighted });
    }
}

#[test]
fn products_of_all_shapes() {
    for (rows, m, n, upper, first) in [
        (1, 4, 4, false, 0),
        (8, 68, 132, false, 4),
        (37, 128, 68, false, 64),
        (129, 160, 160, true, 0),
        (65, 64, 288, true, 0),
    ] {
        check(&ColumnProduct { rows, m, n, upper, first });
    }
}
