//! Attention over a paged cache: splits, windows, idle rows, both element formats, tiles of many rows.

use exlay::gpu::{DeviceOptions, Tier};
use exlay::ops::cache::{CachePrecision, PAGE};
use exlay::selftest::{Attention, Case, Fault, Row, Verdict, outcome};

use crate::support::{check, device, open, tiers};

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
            sharpness: 0.3,
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
            sharpness: 0.3,
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
            sharpness: 0.3,
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
            sharpness: 0.3,
        });
    }
}

/// `rows` rows over two slots of two pages.
fn tiled(rows: Vec<Row>, heads: [usize; 2], dim: usize, window: Option<usize>, sharpness: f32) -> Attention {
    let [heads, kv_heads] = heads;
    let precision = CachePrecision::Half;
    Attention { rows, slots: 2, pages_per_slot: 2, heads, kv_heads, dim, window, precision, sharpness }
}

/// Numbers of rows on both sides of a tile's end, from the first position and across a page's end.
#[test]
fn tiles_of_consecutive_rows() {
    let rows =
        |count: usize, from: usize| (from..from + count).map(|position| Row::at(1, position)).collect();
    check(&tiled(rows(16, 0), [3, 1], 64, None, 0.3));
    check(&tiled(rows(17, 250), [4, 2], 64, None, 0.3));
    check(&tiled(rows(33, 479), [1, 1], 64, None, 2.0));
    check(&tiled(rows(100, 200), [2, 1], 64, None, 0.3));
    check(&tiled(rows(16, 240), [2, 1], 96, None, 0.3));
    check(&tiled(rows(20, 300), [1, 1], 128, Some(70), 0.3));
}

/// A window shorter than a tile of positions, one across several, and one of a single position.
#[test]
fn tiles_of_rows_with_a_window() {
    for window in [1, 7, 100] {
        let rows = (0..40).map(|row| Row::at(0, 230 + row)).collect();
        check(&tiled(rows, [2, 2], 64, Some(window), 0.3));
    }
}

/// Slots take turns within a tile, positions are in no order, some rows are not in use.
#[test]
fn tiles_of_mixed_rows() {
    let mixed = |row: usize| match row % 5 {
        3 => Row::IDLE,
        odd => Row::at(odd % 2, row * 37 % 512),
    };
    check(&tiled((0..48).map(mixed).collect(), [3, 1], 64, None, 0.3));
    check(&tiled((0..33).map(mixed).collect(), [2, 2], 64, Some(150), 0.3));
    let mut rows = vec![Row::IDLE; 64];
    (rows[0], rows[63]) = (Row::at(1, 511), Row::at(0, 0));
    check(&tiled(rows, [1, 1], 64, None, 0.3));
}

/// Scores that rise by much in the course of a context, so that sums are scaled down on the way.
#[test]
fn tiles_of_rows_with_rising_scores() {
    for sharpness in [3.0, 5.0] {
        check(&tiled((0..16).map(|row| Row::at(0, 400 + row)).collect(), [2, 1], 64, None, sharpness));
    }
}

/// Queries that no half holds stay finite.
#[test]
fn queries_beyond_the_range_of_halves() {
    let case = tiled((0..16).map(|row| Row::at(0, 40 + row)).collect(), [2, 1], 64, None, 1e6);
    for &tier in tiers() {
        let device = device(tier, false);
        assert!(tier < Tier::Coop || case.kernel(&device) == "attention_coop");
        let outcome = outcome(&device, &case, 1, Fault::None).unwrap();
        assert_eq!(outcome.verdict, Verdict::Passed, "{outcome:?}");
    }
}

/// Tiles over a cache cut into slabs of two heads, two and one.
#[test]
fn tiles_of_rows_over_slabs() {
    let case = tiled((0..16).map(|row| Row::at(1, 250 + row)).collect(), [10, 5], 64, None, 0.3);
    let head = 5 * PAGE * case.dim * case.precision.bytes();
    for &tier in tiers() {
        let binding_limit = Some(head as u64 * 5 / 2);
        let device = open(DeviceOptions { tier: Some(tier), binding_limit, ..Default::default() });
        for (fault, verdict) in [(Fault::None, Verdict::Passed), (Fault::OneWrong, Verdict::Failed)] {
            let outcome = outcome(&device, &case, 8, fault).unwrap();
            assert_eq!(outcome.verdict, verdict, "{outcome:?}");
        }
    }
}
