//! A cache in slabs, the last of them with fewer heads than the others, holds and yields the bits of a cache in one piece.

use exlay::gpu::{CommandList, Device, DeviceOptions, Tier};
use exlay::ops::activation::Partial;
use exlay::ops::attention::{attention, splits};
use exlay::ops::attention_decode::{Decode, OwnKeys, Projections, attention_decode, scratch};
use exlay::ops::cache::{CachePrecision, PAGE, RowState, cache_write};
use exlay::ops::kv_write::kv_write;
use exlay::ops::residual_norm::Left;
use exlay::ops::rope::RopeTable;
use exlay::ops::{CacheShape, PagedCache, Tensor};
use exlay::selftest::{Attention, AttentionDecode, CacheWrite, Case, Fault, Random, Row, Verdict, outcome};

use crate::support::{device, open, tiers};

const PRECISIONS: [CachePrecision; 2] = [CachePrecision::Half, CachePrecision::Single];

/// Pages, of which two slots have twelve each: so many that a binding has room for everything else.
const PAGES: usize = 31;
const ROWS: usize = 8;

/// Positions and slots of the rows in use.
const USED: [[u32; 2]; 2] = [[2900, 1], [255, 0]];

fn shape(precision: CachePrecision) -> CacheShape {
    CacheShape { pages_per_slot: 12, kv_heads: 5, dim: 16, precision }
}

/// Binds the keys of two heads and a half in `pages` pages.
fn narrow(tier: Tier, precision: CachePrecision, pages: usize) -> Device {
    let head = pages * PAGE * shape(precision).dim * precision.bytes();
    open(DeviceOptions { tier: Some(tier), binding_limit: Some(head as u64 * 5 / 2), ..Default::default() })
}

/// Heads of each slab, and words of what the cache holds at the end and of what was made of it.
type Ran = (Vec<usize>, [Vec<u32>; 2], Vec<u32>);

/// Runs what `build` puts into a list between a cache of random halves or singles and an output of `values` values.
fn ran(
    device: &Device,
    precision: CachePrecision,
    values: usize,
    build: impl FnOnce(&mut CommandList, &PagedCache, &RowState, &Tensor) -> exlay::Result<()>,
) -> Ran {
    let shape = shape(precision);
    let pages = device.upload("pages", &Random::new(3, "pages").permutation(PAGES)[..24]).unwrap();
    let caches = ["keys", "values"].map(|name| {
        let values = Random::new(3, name).values(PAGES * PAGE * shape.kv_heads * shape.dim);
        match precision {
            CachePrecision::Half => values
                .chunks_exact(2)
                .map(|pair| {
                    let [low, high] = [pair[0], pair[1]].map(|x| u32::from(half::f16::from_f32(x).to_bits()));
                    low | high << 16
                })
                .collect(),
            CachePrecision::Single => values.into_iter().map(f32::to_bits).collect::<Vec<u32>>(),
        }
    });
    let cache = PagedCache::upload(device, shape, &pages, [&caches[0], &caches[1]]).unwrap();
    assert_eq!(cache.read::<u32>().unwrap(), caches, "what goes in comes out");
    let (mut positions, mut slots) = ([u32::MAX; ROWS], [0; ROWS]);
    for (row, [position, slot]) in [0, ROWS - 2].into_iter().zip(USED) {
        (positions[row], slots[row]) = (position, slot);
    }
    let state = RowState {
        positions: device.upload("positions", &positions).unwrap(),
        slots: device.upload("slots", &slots).unwrap(),
    };
    let out = Tensor::zeros(device, "out", 1, values).unwrap();
    let mut list = CommandList::new(device, "test");
    build(&mut list, &cache, &state, &out).unwrap();
    list.run().unwrap();
    let read = cache.read().unwrap();
    assert!(read != caches, "the rows' own keys are in the cache");
    let heads = cache.slabs().iter().map(|slab| slab.heads).collect();
    (heads, read, out.read(1).unwrap().into_iter().map(f32::to_bits).collect())
}

/// The parts as `cache_write` and `attention` run, for `group` query heads a key/value head.
fn pass(device: &Device, precision: CachePrecision, group: usize) -> Ran {
    let CacheShape { pages_per_slot, kv_heads, dim, .. } = shape(precision);
    let (heads, keys) = (kv_heads * group, kv_heads * dim);
    let upload = |name: &str, cols: usize| {
        Tensor::upload(device, name, &Random::new(4, name).values(ROWS * cols), cols).unwrap()
    };
    let (q, k, v) = (upload("q", heads * dim), upload("k", keys), upload("v", keys));
    let splits = splits(ROWS, pages_per_slot * PAGE).0;
    let partial = Tensor::zeros(device, "partial", ROWS, heads * splits * (dim + 2)).unwrap();
    ran(device, precision, ROWS * heads * dim, |list, cache, state, out| {
        cache_write(list, &k, &v, state, cache, ROWS)?;
        attention(list, &q, cache, state, &partial, &out.view(ROWS, heads * dim)?, ROWS, Some(2500))
    })
}

/// The same as a decode step runs them, up to the parts that `attention_join` joins.
fn step(device: &Device, precision: CachePrecision, group: usize, own: OwnKeys) -> Ran {
    let CacheShape { pages_per_slot, kv_heads, dim, .. } = shape(precision);
    let (heads, context) = (kv_heads * group, pages_per_slot * PAGE);
    let (key, value, sums) = (heads * dim, (heads + kv_heads) * dim, 2);
    let columns = value + kv_heads * dim;
    let projected = Random::new(5, "partial").values(sums * ROWS * columns);
    let partial = Partial::new(device, projected.len()).unwrap();
    device.write(partial.buffer(), 0, &projected).unwrap();
    let rope = RopeTable::new(device, &[1.0, 0.5, 0.25, 0.125, 0.1, 0.05, 0.02, 0.01], 1.0, context).unwrap();
    let from = Projections { left: Left { partial: &partial, sums, columns }, key, value, rope: &rope };
    ran(device, precision, scratch(ROWS, heads, kv_heads, dim, context), |list, cache, state, splits| {
        let decode = Decode { heads, rows: ROWS, window: Some(2500), cache, state, splits };
        if own == OwnKeys::Stored {
            kv_write(list, &decode, &from)?;
        }
        attention_decode(list, &decode, &from, own)
    })
}

#[test]
fn slabs_change_no_bit() {
    for &tier in tiers() {
        for precision in PRECISIONS {
            // For one query head on each key/value head a decode step cuts the context into fewer splits than it would for
            // the heads of a slab; for 17 it takes three workgroups a key/value head.
            for group in [1, 17] {
                let runs: [&dyn Fn(&Device) -> Ran; 3] = [
                    &|device| pass(device, precision, group),
                    &|device| step(device, precision, group, OwnKeys::New),
                    &|device| step(device, precision, group, OwnKeys::Stored),
                ];
                for (index, run) in runs.iter().enumerate() {
                    let (one, cache, out) = run(&device(tier, false));
                    let (several, cut_cache, cut_out) = run(&narrow(tier, precision, PAGES));
                    assert_eq!((&*one, &*several), (&[5][..], &[2, 2, 1][..]));
                    assert!(
                        cut_cache == cache,
                        "{tier}, {precision:?}, group {group}, run {index}: the cache"
                    );
                    assert!(cut_out == out, "{tier}, {precision:?}, group {group}, run {index}: the result");
                }
            }
        }
    }
}

/// The cases' own comparison with the oracles, and one wrong value.
#[test]
fn cases_pass_in_slabs() {
    for &tier in tiers() {
        for precision in PRECISIONS {
            // The cases have a page that is nobody's.
            let device = narrow(tier, precision, 7);
            let CacheShape { kv_heads, dim, .. } = shape(precision);
            let pages_per_slot = 3;
            let rows = || vec![Row::at(1, 300), Row::IDLE, Row::at(0, 511)];
            let decode = |own| AttentionDecode {
                rows: rows(),
                slots: 2,
                pages_per_slot,
                heads: 2 * kv_heads,
                kv_heads,
                dim,
                window: None,
                precision,
                sums: 2,
                own,
                form: exlay::gpu::Arithmetic::Single,
            };
            let cases: [Box<dyn Case>; 4] = [
                Box::new(CacheWrite { rows: 9, slots: 2, pages_per_slot, kv_heads, dim, precision }),
                Box::new(Attention {
                    rows: rows(),
                    slots: 2,
                    pages_per_slot,
                    heads: 2 * kv_heads,
                    kv_heads,
                    dim,
                    window: None,
                    precision,
                    sharpness: 0.3,
                }),
                Box::new(decode(OwnKeys::New)),
                Box::new(decode(OwnKeys::Stored)),
            ];
            for case in &cases {
                for (fault, verdict) in [(Fault::None, Verdict::Passed), (Fault::OneWrong, Verdict::Failed)] {
                    let outcome = outcome(&device, &**case, 8, fault).unwrap();
                    assert_eq!(outcome.verdict, verdict, "{outcome:?}");
                }
            }
        }
    }
}

#[test]
fn a_head_that_exceeds_a_binding_is_refused() {
    for precision in PRECISIONS {
        let head = PAGE * shape(precision).dim * precision.bytes();
        let limit = Some(3 * head as u64 + head as u64 / 2);
        let device = open(DeviceOptions { binding_limit: limit, ..Default::default() });
        let pages = device.upload("pages", &[0_u32; 3]).unwrap();
        let heads = |shape: CacheShape, count: usize| {
            PagedCache::zeros(&device, shape, &pages, count).map(|cache| cache.slabs().len())
        };
        assert_eq!(shape(precision).most_pages(&device), 3);
        assert_eq!(heads(shape(precision), 3).unwrap(), 5);
        assert!(heads(shape(precision), 4).unwrap_err().to_string().contains("`keys` needs"));
        assert!(heads(CacheShape { kv_heads: 0, ..shape(precision) }, 1).is_err());
    }
}
