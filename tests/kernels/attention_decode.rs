//! Attention of decode steps: head groups, odd sizes, page and split boundaries, windows, idle rows, several positions of one
//! slot, both element formats; and what is refused.

use exlay::Error;
use exlay::gpu::Arithmetic;
use exlay::gpu::{CommandList, Tier};
use exlay::ops::activation::Partial;
use exlay::ops::attention_decode::{Decode, OwnKeys, Projections, attention_decode, scratch, supported};
use exlay::ops::cache::{CachePrecision, PAGE, RowState};
use exlay::ops::residual_norm::Left;
use exlay::ops::rope::RopeTable;
use exlay::ops::{CacheShape, PagedCache, Tensor};
use exlay::selftest::{AttentionDecode, Row};

use crate::support::{check, device};

fn case(rows: Vec<Row>, (heads, kv_heads, dim): (usize, usize, usize), sums: usize) -> AttentionDecode {
    let slots = 1 + rows.iter().map(|row| row.slot).max().unwrap();
    AttentionDecode {
        rows,
        slots,
        pages_per_slot: 3,
        heads,
        kv_heads,
        dim,
        window: None,
        precision: CachePrecision::Half,
        sums,
        own: OwnKeys::New,
        form: Arithmetic::Single,
    }
}

/// Groups of one head to more than a workgroup holds; positions on both sides of a page's end, the first and the last.
#[test]
fn head_groups_and_sizes() {
    for (shape, sums, form) in [
        ((4, 4, 8), 1, Arithmetic::Single),
        ((28, 4, 24), 2, Arithmetic::Fixed),
        ((14, 2, 80), 8, Arithmetic::Pairs),
        ((16, 2, 128), 16, Arithmetic::Fixed),
        ((18, 2, 16), 1, Arithmetic::Single),
        ((8, 1, 256), 4, Arithmetic::Fixed),
    ] {
        let rows = vec![
            Row::at(1, 257),
            Row::IDLE,
            Row::at(0, 0),
            Row::at(3, 255),
            Row::at(2, 767),
            Row::at(4, 256),
        ];
        check(&AttentionDecode { form, ..case(rows, shape, sums) });
    }
}

/// The last position of a split, the first of one, and one more; one row alone.
#[test]
fn split_boundaries() {
    for position in [1, 62, 63, 64, 65, 127, 128, 511, 512] {
        check(&case(vec![Row::at(0, position)], (4, 1, 64), 2));
    }
}

/// A window of one position, within a tile, across tiles, pages and splits, and longer than the context.
#[test]
fn windows() {
    for window in [1, 2, 31, 65, 200, 300, 5000] {
        let rows = vec![Row::at(0, 700), Row::at(1, 0), Row::at(2, 64), Row::IDLE, Row::at(3, 299)];
        check(&AttentionDecode { window: Some(window), ..case(rows, (4, 1, 64), 2) });
    }
}

/// The rows' own keys and values stored before: a prompt of seven tokens, at the beginning and across a page's end, beside
/// other slots; windows too.
#[test]
fn several_positions_of_a_slot() {
    for (shape, window, precision) in [
        ((4, 1, 64), None, CachePrecision::Half),
        ((4, 1, 64), Some(130), CachePrecision::Half),
        ((28, 4, 24), Some(3), CachePrecision::Single),
    ] {
        let prompt = (0..7).map(|row| Row::at(0, row)).collect();
        let across = [
            Row::at(1, 254),
            Row::at(1, 255),
            Row::at(1, 256),
            Row::IDLE,
            Row::at(0, 63),
            Row::at(0, 64),
            Row::at(2, 500),
        ]
        .to_vec();
        for rows in [prompt, across] {
            check(&AttentionDecode { precision, window, own: OwnKeys::Stored, ..case(rows, shape, 4) });
        }
    }
}

/// Keys and values that are not rounded.
#[test]
fn a_cache_in_single_precision() {
    for shape in [(4, 4, 8), (12, 1, 136)] {
        let rows = vec![Row::at(1, 257), Row::IDLE, Row::at(0, 511), Row::at(2, 0)];
        check(&AttentionDecode {
            precision: CachePrecision::Single,
            window: Some(300),
            ..case(rows, shape, 2)
        });
    }
}

/// Splits of several tiles, which eight rows of many heads have.
#[test]
fn several_tiles_in_a_split() {
    let rows = (0..8).map(|row| Row::at(row, 700 - 90 * row)).collect();
    check(&case(rows, (64, 64, 8), 1));
}

#[test]
fn what_there_is_no_kernel_for_is_refused() {
    assert!(supported(71, 1, 64) && !supported(129, 1, 64) && !supported(8, 3, 64) && !supported(8, 2, 264));
    let device = device(Tier::Plain, false);
    let words = |count: usize| device.upload("words", &vec![0_u32; count]).unwrap();
    let refused = |heads: usize, dim: usize, sums: usize, splits: usize| {
        let shape = CacheShape { pages_per_slot: 1, kv_heads: 1, dim, precision: CachePrecision::Half };
        let cache = PagedCache::zeros(&device, shape, &words(1), 1).unwrap();
        let state = RowState { positions: words(1), slots: words(1) };
        let splits = Tensor::zeros(&device, "splits", 1, splits).unwrap();
        let (key, value, columns) = (heads * dim, (heads + 1) * dim, (heads + 2) * dim);
        let partial = Partial::new(&device, 4 * columns).unwrap();
        let rope = RopeTable::new(&device, &[1.0; 32], 1.0, PAGE).unwrap();
        let decode = Decode { heads, rows: 1, window: None, cache: &cache, state: &state, splits: &splits };
        let left = Left { partial: &partial, sums, columns };
        let from = Projections { left, key, value, rope: &rope };
        let mut list = CommandList::new(&device, "test");
        match attention_decode(&mut list, &decode, &from, OwnKeys::New) {
            Err(Error::Shape { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    };
    let room = scratch(1, 8, 1, 64, PAGE);
    assert!(refused(129, 64, 1, 17 * room).contains("use `ops::attention`"));
    assert!(refused(8, 12, 1, room).contains("a multiple of 8 values"));
    assert!(refused(8, 64, 3, room).contains("3 sums"));
    assert!(refused(8, 64, 8, room).contains("8 sums"));
    assert!(refused(8, 72, 1, 2 * room).contains("heads of 64"));
    assert!(refused(8, 64, 1, room - 4).contains(&format!("[1, {room}] out of")));
}
