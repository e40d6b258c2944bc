//! The gated activation.

use exlay::selftest::Swiglu;

use crate::support::check;

#[test]
fn all_sizes() {
    for (rows, cols) in [(1, 1), (1, 31), (3, 32), (5, 33), (1, 64), (9, 97), (64, 66), (65, 257)] {
        check(&Swiglu { rows, cols });
    }
}
