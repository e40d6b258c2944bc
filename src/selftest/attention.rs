//! Cases of `attention` and `attention_merge`, which one operation runs one after the other.

use half::f16;
use rayon::prelude::*;

use super::case::boxed;
use super::softmax::{self, Seen, gather, weights};
use super::{Case, Comparison, Fault, Random, Shapes, poisoned, run_list};
use crate::Result;
use crate::gpu::Device;
use crate::ops::attention::{attention, splits, stem};
use crate::ops::cache::{CachePrecision, PAGE, RowState};
use crate::ops::{CacheShape, Tensor};
use crate::reference::cache_write::Geometry;

/// One query row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its slot.
    pub slot: usize,
    /// Its position, if it is in use.
    pub position: Option<usize>,
}

impl Row {
    /// Not in use.
    pub const IDLE: Self = Self { slot: 0, position: None };

    /// In use.
    pub fn at(slot: usize, position: usize) -> Self {
        Self { slot, position: Some(position) }
    }
}

/// Attention of some rows over a cache whose pages lie in another order.
pub struct Attention {
    /// The rows.
    pub rows: Vec<Row>,
    /// Slots of the cache.
    pub slots: usize,
    /// Pages of a slot.
    pub pages_per_slot: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Values in a head, a multiple of 8.
    pub dim: usize,
    /// Positions that a row sees at most.
    pub window: Option<usize>,
    /// Element format of the cache.
    pub precision: CachePrecision,
    /// Deviation of the queries' values; keys and values have 1, so that it is about that of the scores too.
    pub sharpness: f32,
}

/// Keeps the largest of a few hundred weights near a tenth.
const FLAT: f32 = 0.3;

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![
            // Many rows, two slots, one split.
            Attention {
                rows: (0..65)
                    .map(|row| if row % 9 == 4 { Row::IDLE } else { Row::at(row % 2, 7 * row) })
                    .collect(),
                slots: 2,
                pages_per_slot: 2,
                heads: 4,
                kv_heads: 2,
                dim: 64,
                window: Some(100),
                precision: CachePrecision::Half,
                sharpness: FLAT,
            },
            // A prompt from its first position on; matrix units where there are any, as for the next two.
            Attention {
                rows: (0..100).map(|row| Row::at(0, row)).collect(),
                slots: 1,
                pages_per_slot: 1,
                heads: 3,
                kv_heads: 1,
                dim: 64,
                window: None,
                precision: CachePrecision::Half,
                sharpness: FLAT,
            },
            // Scores that rise again and again over a context.
            Attention {
                rows: (0..17).map(|row| if row == 3 { Row::IDLE } else { Row::at(0, 490 + row) }).collect(),
                slots: 1,
                pages_per_slot: 2,
                heads: 2,
                kv_heads: 2,
                dim: 64,
                window: None,
                precision: CachePrecision::Half,
                sharpness: 5.0,
            },
            // Few rows, several splits.
            Attention {
                rows: vec![Row::at(1, 700), Row::IDLE, Row::at(0, 0), Row::at(2, 255)],
                slots: 3,
                pages_per_slot: 3,
                heads: 6,
                kv_heads: 2,
                dim: 64,
                window: None,
                precision: CachePrecision::Single,
                sharpness: FLAT,
            },
        ],
        Shapes::Real => vec![
            Attention {
                rows: (0..192).map(|row| Row::at(0, 1000 + row)).collect(),
                slots: 1,
                pages_per_slot: 5,
                heads: 9,
                kv_heads: 3,
                dim: 64,
                window: None,
                precision: CachePrecision::Half,
                sharpness: FLAT,
            },
            Attention {
                rows: (0..64).map(|row| Row::at(row % 2, 2047 - row)).collect(),
                slots: 2,
                pages_per_slot: 8,
                heads: 8,
                kv_heads: 2,
                dim: 128,
                window: None,
                precision: CachePrecision::Half,
                sharpness: FLAT,
            },
            Attention {
                rows: vec![Row::at(0, 16383), Row::at(0, 8191), Row::at(0, 4096)],
                slots: 1,
                pages_per_slot: 64,
                heads: 32,
                kv_heads: 4,
                dim: 128,
                window: Some(4096),
                precision: CachePrecision::Half,
                sharpness: FLAT,
            },
            Attention {
                rows: vec![Row::at(0, 16382)],
                slots: 1,
                pages_per_slot: 64,
                heads: 32,
                kv_heads: 4,
                dim: 128,
                window: None,
                precision: CachePrecision::Half,
                sharpness: FLAT,
            },
        ],
    })
}

impl Attention {
    fn splits(&self) -> usize {
        splits(self.rows.len(), self.pages_per_slot * PAGE).0
    }

    fn cache_shape(&self) -> CacheShape {
        let &Self { pages_per_slot, kv_heads, dim, precision, .. } = self;
        CacheShape { pages_per_slot, kv_heads, dim, precision }
    }

    fn geometry(&self) -> Geometry {
        let &Self { pages_per_slot, kv_heads, dim, .. } = self;
        Geometry { page: PAGE, kv_heads, dim, pages_per_slot }
    }
}

/// Half a step of a half as a fraction of it.
const HALF_ROUNDOFF: f64 = 1.0 / 2048.0;

/// By how much the values of a row of queries may be off as halves of a row scaled by a power of two, so that a head's largest is at
/// least 2^10 and steps are at least 2^-24; a sixteenth on top for sums of products that are cut off and not rounded.
fn halving(query: &[f32], dim: usize) -> Vec<f64> {
    let of_head = |head: &[f32]| {
        let most = head.iter().fold(0.0_f64, |most, &value| most.max(f64::from(value).abs()));
        let least = most * 2.0_f64.powi(-35);
        let slack = |&value: &f32| f64::from(value).abs() * HALF_ROUNDOFF * (1.0 + 1.0 / 16.0) + least;
        head.iter().map(slack).collect::<Vec<_>>()
    };
    query.chunks_exact(dim).flat_map(of_head).collect()
}

impl Case for Attention {
    fn kernel(&self, device: &Device) -> &'static str {
        let first = stem(device.capabilities(), self.cache_shape(), self.rows.len(), self.heads);
        // `attention_merge` runs too, but is nothing but a division for a single split.
        if self.splits() == 1 || first == "attention_coop" { first } else { "attention_merge" }
    }

    fn shape(&self) -> String {
        let Self { rows, slots, pages_per_slot, heads, kv_heads, dim, window, precision, .. } = self;
        let window = window.map_or(String::new(), |window| format!(", window {window}"));
        format!(
            "{} x {heads}/{kv_heads} heads of {dim}, {slots} x {} positions of {} bits, {} splits{window}",
            rows.len(),
            pages_per_slot * PAGE,
            8 * precision.bytes(),
            self.splits()
        )
    }

    fn bytes(&self) -> u64 {
        let positions = (self.slots * self.pages_per_slot + 1) * PAGE;
        let cache = 2 * self.precision.bytes() * positions * self.kv_heads * self.dim;
        let row = self.heads * (2 * self.dim + self.splits() * (self.dim + 2));
        (cache + 4 * (self.rows.len() + 1) * row) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { slots, pages_per_slot, heads, kv_heads, dim, window, precision, sharpness, .. } = self;
        let (rows, cols) = (self.rows.len(), heads * dim);
        let pages = Random::new(seed, "pages").permutation(slots * pages_per_slot + 1);
        let pages = &pages[..slots * pages_per_slot];
        let numbers = |name: &str| -> Vec<f32> {
            let values = Random::new(seed, name).values((pages.len() + 1) * PAGE * kv_heads * dim);
            match precision {
                CachePrecision::Half => {
                    values.into_par_iter().map(|value| f16::from_f32(value).to_f32()).collect()
                }
                CachePrecision::Single => values,
            }
        };
        let (keys, values) = (numbers("keys"), numbers("values"));
        let q: Vec<f32> =
            Random::new(seed, "q").values(rows * cols).into_iter().map(|value| sharpness * value).collect();
        let halves = self.kernel(device) == "attention_coop";

        let mut uploaded = values.clone();
        if let (Fault::OneWrong, Row { slot, position: Some(position) }) = (fault, self.rows[0]) {
            let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
            let seen = gather(self.geometry(), &keys, pages, slot, position);
            let weights = weights(&q[..dim], &seen[first * dim..(position + 1) * dim]);
            let most = (0..weights.len()).max_by(|&a, &b| weights[a].total_cmp(&weights[b])).unwrap_or(0);
            let page = pages[slot * pages_per_slot + (first + most) / PAGE] as usize;
            let at = (page * kv_heads * PAGE + (first + most) % PAGE) * dim;
            uploaded[at] += 1.0;
        }
        let cache = softmax::upload(device, self.cache_shape(), pages, [&keys, &uploaded])?;
        let positions: Vec<u32> =
            self.rows.iter().map(|row| row.position.map_or(u32::MAX, |position| position as u32)).collect();
        let row_slots: Vec<u32> = self.rows.iter().map(|row| row.slot as u32).collect();
        let state = RowState {
            positions: device.upload("positions", &positions)?,
            slots: device.upload("slots", &row_slots)?,
        };
        let q_tensor = Tensor::upload(device, "q", &q, cols)?;
        let partial = poisoned(device, "partial", rows, heads * self.splits() * (dim + 2))?;
        let out = poisoned(device, "out", rows, cols)?;
        run_list(device, self.kernel(device), |list| {
            attention(list, &q_tensor, &cache, &state, &partial, &out, rows, window)
        })?;

        let got = out.read(rows + 1)?;
        let partial = partial.read(rows + 1)?;
        let comparisons: Vec<Comparison> = self
            .rows
            .par_iter()
            .enumerate()
            .map(|(row, &Row { slot, position })| {
                let mut comparison = Comparison::new();
                let got = &got[row * cols..(row + 1) * cols];
                let Some(position) = position else {
                    comparison.untouched(got);
                    return comparison;
                };
                let query = &q[row * cols..(row + 1) * cols];
                let seen = Seen {
                    query,
                    slack: &if halves { halving(query, dim) } else { Vec::new() },
                    keys: &gather(self.geometry(), &keys, pages, slot, position),
                    values: &gather(self.geometry(), &values, pages, slot, position),
                    heads,
                    kv_heads,
                    position,
                    window,
                    splits: self.splits(),
                    // 64 of a block in order, or 63 in any order. Matrix units go through all positions, and their
                    // additions may cut off where others round, which is twice as far off.
                    additions: if halves { 2 * (position + 1) } else { 64 },
                    // Half a step of a half, and a sixteenth of that for powers of two in place of exponentials,
                    // whose exponents are up to 1.45 times the scores and 15 more.
                    stored: if halves { HALF_ROUNDOFF * (1.0 + 1.0 / 16.0) } else { 0.0 },
                };
                for (&got, (expected, bound)) in got.iter().zip(seen.expected()) {
                    comparison.value(got, expected, bound);
                }
                comparison
            })
            .collect();
        let mut comparison = Comparison::new();
        comparisons.iter().for_each(|one| comparison.merge(one));
        comparison.untouched(&got[rows * cols..]);
        comparison.untouched(&partial[rows * heads * self.splits() * (dim + 2)..]);
        Ok(comparison)
    }
}
