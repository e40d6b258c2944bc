//! What a decode attention is given, and what that comes to exactly.

use std::ops::Range;

use half::f16;
use rayon::prelude::*;

use super::AttentionDecode;
use crate::gpu::Device;
use crate::ops::cache::{CachePrecision, PAGE};
use crate::ops::{CacheShape, PagedCache};
use crate::reference::attention_decode::Projected;
use crate::selftest::compare::ROUNDOFF;
use crate::selftest::softmax::{self, gather, weights};
use crate::selftest::{Random, Row};
use crate::{Result, reference};

/// What the device is given.
pub(super) struct Inputs {
    pub(super) pages: Vec<u32>,
    /// Keys and values in the cache, not a number from a row's position on.
    pub(super) caches: [Vec<f32>; 2],
    pub(super) partial: Vec<f32>,
    pub(super) frequencies: Vec<f64>,
}

/// Exact values of the rows, and how far single precision may be off.
pub(super) struct Exact {
    pub(super) rows: Projected,
    pub(super) errors: Projected,
}

impl AttentionDecode {
    /// Columns of queries, keys and values, with some between them that are not to be touched, and of all.
    pub(super) fn columns(&self) -> ([Range<usize>; 3], usize) {
        let (key_width, queries) = (self.kv_heads * self.dim, self.heads * self.dim);
        let keys = queries + 32..queries + 32 + key_width;
        let values = keys.end + 4..keys.end + 4 + key_width;
        let all = values.end + 8;
        ([0..queries, keys, values], all)
    }

    pub(super) fn positions(&self) -> Vec<u32> {
        self.rows.iter().map(|row| row.position.map_or(u32::MAX, |position| position as u32)).collect()
    }

    /// The first position of a slot that its rows write.
    pub(super) fn written_from(&self, slot: usize) -> usize {
        let of_slot = self.rows.iter().filter(|row| row.slot == slot).filter_map(|row| row.position);
        of_slot.min().unwrap_or(usize::MAX)
    }

    pub(super) fn inputs(&self, seed: u64) -> Inputs {
        let &Self { slots, pages_per_slot, kv_heads, dim, precision, sums, .. } = self;
        let mut pages = Random::new(seed, "pages").permutation(slots * pages_per_slot + 1);
        pages.truncate(slots * pages_per_slot);
        let caches = ["keys", "values"].map(|name| {
            let mut cache = Random::new(seed, name).values((pages.len() + 1) * PAGE * kv_heads * dim);
            if precision == CachePrecision::Half {
                cache.par_iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
            }
            for slot in 0..slots {
                for position in self.written_from(slot)..pages_per_slot * PAGE {
                    for head in 0..kv_heads {
                        let from = self.place(&pages, slot, head, position);
                        cache[from..from + dim].fill(f32::NAN);
                    }
                }
            }
            cache
        });
        let (columns, width) = self.columns();
        let mut partial = Random::new(seed, "partial").values(sums * self.rows.len() * width);
        for (row, values) in partial.chunks_exact_mut(width).enumerate() {
            let used = self.rows[row % self.rows.len()].position.is_some();
            for (column, value) in values.iter_mut().enumerate() {
                let part = columns.iter().position(|columns| columns.contains(&column)).filter(|_| used);
                // A query of 0.3 keeps the largest of a few hundred weights near a tenth.
                *value *= part.map_or(f32::NAN, |part| [0.3, 1.0, 1.0][part]) / (sums as f32).sqrt();
            }
        }
        let frequencies = (0..dim / 2).map(|i| 10_000_f64.powf(-2.0 * i as f64 / dim as f64)).collect();
        Inputs { pages, caches, partial, frequencies }
    }

    pub(super) fn exact(&self, inputs: &Inputs) -> Exact {
        let &Self { dim, sums, .. } = self;
        let (columns, width) = self.columns();
        let summed = |partial: &[f32]| {
            let summed = reference::attention_decode::sum(partial, sums);
            reference::attention_decode::cut(&summed, width, columns.clone())
        };
        let magnitudes = summed(&inputs.partial.iter().map(|value| value.abs()).collect::<Vec<_>>());
        // A tree of additions; for what is rotated, rounded cosines and sines, two products and their sum besides, of
        // magnitudes |a·c| + |b·s|.
        let depth = f64::from(sums.ilog2());
        let rotated = |x: &[f64]| -> Vec<f64> {
            let pair = |at: usize| x[at] + x[at / dim * dim + (at % dim + dim / 2) % dim];
            (0..x.len()).map(|at| (depth + 3.0) * pair(at) * ROUNDOFF).collect()
        };
        let positions = self.positions();
        Exact {
            rows: reference::attention_decode::rotate(
                &summed(&inputs.partial),
                &positions,
                &inputs.frequencies,
                1.0,
            ),
            errors: Projected {
                queries: rotated(&magnitudes.queries),
                keys: rotated(&magnitudes.keys),
                values: magnitudes.values.iter().map(|size| depth * size * ROUNDOFF).collect(),
            },
        }
    }

    /// Makes one input of the device wrong: the value that row 0 weighs most of those that lie in the cache, or, if it
    /// sees none of them, its own.
    pub(super) fn spoil(&self, inputs: &mut Inputs, exact: &Exact) {
        let &Self { dim, window, .. } = self;
        let Row { slot, position: Some(position) } = self.rows[0] else { return };
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let below = self.written_from(slot).min(position);
        if first >= below {
            inputs.partial[self.columns().0[2].start] += 1.0;
            return;
        }
        let keys = gather(self.geometry(), &inputs.caches[0], &inputs.pages, slot, below - 1);
        let weights = weights(&exact.rows.queries[..dim], &keys[first * dim..below * dim]);
        let most = (0..weights.len()).max_by(|&a, &b| weights[a].total_cmp(&weights[b])).unwrap_or(0);
        let place = self.place(&inputs.pages, slot, 0, first + most);
        inputs.caches[1][place] += 1.0;
    }

    pub(super) fn upload(&self, device: &Device, inputs: &Inputs) -> Result<PagedCache> {
        let &Self { pages_per_slot, kv_heads, dim, precision, .. } = self;
        let [keys, values] = &inputs.caches;
        let shape = CacheShape { pages_per_slot, kv_heads, dim, precision };
        softmax::upload(device, shape, &inputs.pages, [keys, values])
    }
}
