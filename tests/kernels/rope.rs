//! Rotary positions.

use exlay::selftest::Rope;

use crate::support::check;

#[test]
fn all_head_sizes_and_idle_rows() {
    for (rows, heads, dim, context) in
        [(1, 1, 2, 1), (4, 3, 8, 5), (9, 1, 34, 300), (64, 5, 64, 1000), (65, 2, 128, 4096)]
    {
        check(&Rope { rows, heads, dim, context });
    }
}
