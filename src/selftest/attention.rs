//! Cases of `attention` and `attention_merge`, which one operation runs one after the other.

use half::f16;
use rayon::prelude::*;

use super::case::boxed;
use super::compare::{ROUNDOFF, ULP};
use super::{Case, Comparison, Fault, Random, Shapes, poisoned, run_list};
use crate::gpu::Device;
use crate::ops::Tensor;
use crate::ops::attention::{attention, splits};
use crate::ops::cache::{CachePrecision, PAGE, PagedCache, RowState};
use crate::{Result, reference};

/// One query row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its slot.
    pub slot: usize,
    /// Its position, if it is in use.
    pub position: Option<usize>,
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
}

fn at(slot: usize, position: usize) -> Row {
    Row { slot, position: Some(position) }
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let idle = Row { slot: 0, position: None };
    boxed(match shapes {
        Shapes::Small => vec![
            // Many rows, one split.
            Attention {
                rows: (0..65).map(|row| if row % 9 == 4 { idle } else { at(row % 2, 7 * row) }).collect(),
                slots: 2,
                pages_per_slot: 2,
                heads: 4,
                kv_heads: 2,
                dim: 64,
                window: Some(100),
                precision: CachePrecision::Half,
            },
            // Few rows, several splits.
            Attention {
                rows: vec![at(1, 700), idle, at(0, 0), at(2, 255)],
                slots: 3,
                pages_per_slot: 3,
                heads: 6,
                kv_heads: 2,
                dim: 64,
                window: None,
                precision: CachePrecision::Single,
            },
        ],
        Shapes::Real => vec![
            Attention {
                rows: (0..64).map(|row| at(row % 2, 2047 - row)).collect(),
                slots: 2,
                pages_per_slot: 8,
                heads: 8,
                kv_heads: 2,
                dim: 128,
                window: None,
                precision: CachePrecision::Half,
            },
            Attention {
                rows: vec![at(0, 16383), at(0, 8191), at(0, 4096)],
                slots: 1,
                pages_per_slot: 64,
                heads: 32,
                kv_heads: 4,
                dim: 128,
                window: Some(4096),
                precision: CachePrecision::Half,
            },
            Attention {
                rows: vec![at(0, 16382)],
                slots: 1,
                pages_per_slot: 64,
                heads: 32,
                kv_heads: 4,
                dim: 128,
                window: None,
                precision: CachePrecision::Half,
            },
        ],
    })
}

impl Attention {
    fn splits(&self) -> usize {
        splits(self.rows.len(), self.pages_per_slot * PAGE).0
    }

    /// Keys or values of a slot, `[kv_heads][position + 1][dim]`, out of the cache.
    fn gather(&self, cache: &[f32], pages: &[u32], slot: usize, position: usize) -> Vec<f32> {
        let mut gathered = Vec::with_capacity(self.kv_heads * (position + 1) * self.dim);
        for head in 0..self.kv_heads {
            for at in 0..=position {
                let page = pages[slot * self.pages_per_slot + at / PAGE] as usize;
                let from = ((page * self.kv_heads + head) * PAGE + at % PAGE) * self.dim;
                gathered.extend_from_slice(&cache[from..from + self.dim]);
            }
        }
        gathered
    }

    /// Expected values and bounds of a row, [heads, dim].
    fn expected(&self, q: &[f32], keys: &[f32], values: &[f32], position: usize) -> Vec<(f64, f64)> {
        let &Self { heads, kv_heads, dim, window, .. } = self;
        let wanted = reference::attention::attention(q, keys, values, heads, kv_heads, position, window);
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let mut result = Vec::with_capacity(wanted.len());
        for head in 0..heads {
            let from = head / (heads / kv_heads) * (position + 1);
            let seen = (from + first) * dim..(from + position + 1) * dim;
            let query = &q[head * dim..(head + 1) * dim];
            let bound = self.relative_bound(query, &keys[seen.clone()]);
            let weights = softmax_weights(query, &keys[seen.clone()]);
            let mut magnitudes = vec![0.0; dim];
            for (weight, value) in weights.iter().zip(values[seen].chunks_exact(dim)) {
                for (magnitude, value) in magnitudes.iter_mut().zip(value) {
                    *magnitude += weight * f64::from(*value).abs();
                }
            }
            for (&wanted, magnitude) in wanted[head * dim..].iter().zip(magnitudes) {
                result.push((wanted, bound * (magnitude + wanted.abs())));
            }
        }
        result
    }

    /// Bound of an output's error as a part of Σ p·|v| + |Σ p·v|: by how much the weights may be off, relatively, and
    /// the sums.
    fn relative_bound(&self, query: &[f32], keys: &[f32]) -> f64 {
        let dim = self.dim;
        let root = (dim as f64).sqrt();
        let (mut magnitude, mut least, mut largest) = (0.0_f64, f64::INFINITY, f64::NEG_INFINITY);
        for key in keys.chunks_exact(dim) {
            magnitude = magnitude.max(reference::matmul::magnitude(query, key) / root);
            let score = reference::matmul::element(query, key) / root;
            (least, largest) = (least.min(score), largest.max(score));
        }
        // A score is a product, dim additions and a scaling by a rounded factor; its absolute error, and that of the
        // difference to the largest (which is the same for all and cancels), is the exponential's relative one, to
        // which WGSL adds 3 + 2·|x| units in the last place.
        let range = largest - least;
        let score = (dim as f64 + 3.0) * magnitude * ROUNDOFF + range * ROUNDOFF;
        let weight = score + (3.0 + 2.0 * range) * ULP;
        // Once a block of 64 positions and once a split, weights are rescaled by an exponential: over all of them
        // the exponents add up to the range.
        let rescalings = (keys.len() / dim).div_ceil(64) as f64 + 2.0 * self.splits() as f64;
        let rescaled = rescalings * (3.0 * ULP + 2.0 * ROUNDOFF) + 2.0 * range * ULP;
        // Two sums: 64 additions a block in order or 63 in any order, one a block, one a split; then the quotient.
        let sums = 64.0 + rescalings + 2.0;
        weight + rescaled + sums * ROUNDOFF + 2.5 * ULP
    }
}

/// Softmax of the scores of a query over keys [positions, dim].
fn softmax_weights(query: &[f32], keys: &[f32]) -> Vec<f64> {
    let root = (query.len() as f64).sqrt();
    let scores: Vec<f64> =
        keys.chunks_exact(query.len()).map(|key| reference::matmul::element(query, key) / root).collect();
    reference::attention::softmax(&scores)
}

impl Case for Attention {
    fn kernel(&self, device: &Device) -> &'static str {
        // Both run always; joining is nothing but a division for a single split.
        match (self.splits(), device.capabilities().subgroup) {
            (1, Some((8, 8))) => "attention_subgroup",
            (1, _) => "attention",
            _ => "attention_merge",
        }
    }

    fn shape(&self) -> String {
        let Self { rows, slots, pages_per_slot, heads, kv_heads, dim, window, precision } = self;
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
        let &Self { slots, pages_per_slot, heads, kv_heads, dim, window, precision, .. } = self;
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
        let upload = |name: &str, values: &[f32]| match precision {
            CachePrecision::Half => {
                let halves: Vec<f16> = values.par_iter().map(|&value| f16::from_f32(value)).collect();
                device.upload(name, &halves)
            }
            CachePrecision::Single => device.upload(name, values),
        };
        let (keys, values) = (numbers("keys"), numbers("values"));
        // 0.3 keeps the largest of a few hundred weights near a tenth.
        let q: Vec<f32> =
            Random::new(seed, "q").values(rows * cols).into_iter().map(|value| 0.3 * value).collect();

        let mut uploaded = values.clone();
        if let (Fault::OneWrong, Row { slot, position: Some(position) }) = (fault, self.rows[0]) {
            let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
            let seen = self.gather(&keys, pages, slot, position);
            let weights = softmax_weights(&q[..dim], &seen[first * dim..(position + 1) * dim]);
            let most = (0..weights.len()).max_by(|&a, &b| weights[a].total_cmp(&weights[b])).unwrap_or(0);
            let page = pages[slot * pages_per_slot + (first + most) / PAGE] as usize;
            let at = (page * kv_heads * PAGE + (first + most) % PAGE) * dim;
            uploaded[at] += 1.0;
        }
        let cache = PagedCache {
            precision,
            keys: upload("keys", &keys)?,
            values: upload("values", &uploaded)?,
            pages: device.upload("pages", pages)?,
            pages_per_slot,
            kv_heads,
            dim,
        };
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
                let seen_keys = self.gather(&keys, pages, slot, position);
                let seen_values = self.gather(&values, pages, slot, position);
                let expected =
                    self.expected(&q[row * cols..(row + 1) * cols], &seen_keys, &seen_values, position);
                for (&got, (expected, bound)) in got.iter().zip(expected) {
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
