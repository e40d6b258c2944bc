//! Attention over a paged cache: splits, windows, idle rows, both element formats.

use exlay::ops::cache::CachePrecision;
use exlay::selftest::{Attention, Row};

use crate::support::check;

/// Positions on both sides of a page's end, an idle row, two slots whose pages are mixed up.
#[test]
fn few_rows_in_several_splits() {
    for (heads, kv_heads, dim) in [(1, 1, 8), (3, 1, 64), (4, 2, 24), (8, 2, 136), (2, 2, 256)] {
        check(&Attention {
            rows: vec![
                Row::at(1, 257),
                Row::at(0, 0),
                Row::IDLE,
                Row::at(1, 255),
                Row::at(0, 767),
                Row::at(1, 256),
                Row::at(0, 511),
            ],
            slots: 2,
            pages_per_slot: 3,
            heads,
            kv_heads,
            dim,
            window: None,
            precision: CachePrecision::Half,
        });
    }
}

/// A window within a page, across pages, across splits, of one position, and longer than the context.
#[test]
fn windows() {
    for window in [1, 31, 33, 200, 300, 5000] {
        check(&Attention {
            rows: vec![Row::at(0, 700), Row::at(0, 0), Row::at(0, 31), Row::IDLE, Row::at(0, 299)],
            slots: 1,
            pages_per_slot: 3,
            heads: 4,
            kv_heads: 2,
            dim: 32,
            window: Some(window),
            precision: CachePrecision::Half,
        });
    }
}

/// A prompt's rows in one split.
#[test]
fn many_rows_in_one_split() {
    for rows in [64, 65] {
        check(&Attention {
            rows: (0..rows)
                .map(|row| if row % 9 == 4 { Row::IDLE } else { Row::at(row % 2, 5 * row) })
                .collect(),
            slots: 2,
            pages_per_slot: 2,
            heads: 3,
            kv_heads: 3,
            dim: 40,
            window: None,
            precision: CachePrecision::Half,
        });
    }
}

/// Keys and values that are not rounded.
#[test]
fn a_cache_in_single_precision() {
    for (heads, dim) in [(1, 8), (4, 24), (2, 136)] {
        check(&Attention {
            rows: vec![Row::at(1, 257), Row::IDLE, Row::at(0, 511), Row::at(1, 0)],
            slots: 2,
            pages_per_slot: 2,
            heads,
            kv_heads: 1,
            dim,
            window: Some(300),
            precision: CachePrecision::Single,
        });
    }
}
