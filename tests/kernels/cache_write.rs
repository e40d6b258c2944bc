//! Keys and values into pages, in both element formats.

use exlay::ops::cache::CachePrecision;
use exlay::selftest::CacheWrite;

use crate::support::check;

#[test]
fn pages_and_idle_rows() {
    for (rows, slots, pages_per_slot, kv_heads, dim) in
        [(1, 1, 1, 1, 8), (9, 2, 2, 3, 16), (64, 3, 1, 1, 40), (65, 5, 3, 2, 64), (300, 1, 2, 1, 8)]
    {
        for precision in [CachePrecision::Half, CachePrecision::Single] {
            check(&CacheWrite { rows, slots, pages_per_slot, kv_heads, dim, precision });
        }
    }
}
