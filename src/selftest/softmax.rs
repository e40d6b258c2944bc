//! What a row's attention should come to and how far a kernel may be off, for the cases of both attentions.

use half::f16;
use rayon::prelude::*;

use super::compare::{ROUNDOFF, ULP};
use crate::Result;
use crate::gpu::Device;
use crate::ops::cache::CachePrecision;
use crate::ops::{CacheShape, PagedCache};
use crate::reference::cache_write::Geometry;
use crate::reference::{self, Real};

/// One query row and what it sees.
pub(super) struct Seen<'a, Q> {
    /// `[heads, dim]`.
    pub(super) query: &'a [Q],
    /// By how much each of them may be off on the device; empty where they are exact.
    pub(super) slack: &'a [f64],
    /// `[kv_heads][position + 1][dim]`.
    pub(super) keys: &'a [f32],
    /// `[kv_heads][position + 1][dim]`.
    pub(super) values: &'a [f32],
    /// Query heads.
    pub(super) heads: usize,
    /// Key and value heads.
    pub(super) kv_heads: usize,
    /// Of the row.
    pub(super) position: usize,
    /// Positions seen at most.
    pub(super) window: Option<usize>,
    /// Splits of the context.
    pub(super) splits: usize,
    /// Additions that a weight or a weighed value goes through before the splits are joined.
    pub(super) additions: usize,
    /// By how much a weight is off, relatively, as it is stored before values are weighed with it.
    pub(super) stored: f64,
}

/// Keys or values of a slot, `[kv_heads][position + 1][dim]`, out of a cache `[page][kv_head][page size][dim]`.
pub(super) fn gather(
    geometry: Geometry,
    cache: &[f32],
    pages: &[u32],
    slot: usize,
    position: usize,
) -> Vec<f32> {
    let Geometry { page, kv_heads, dim, pages_per_slot } = geometry;
    let mut gathered = Vec::with_capacity(kv_heads * (position + 1) * dim);
    for head in 0..kv_heads {
        for at in 0..=position {
            let found = pages[slot * pages_per_slot + at / page] as usize;
            let from = ((found * kv_heads + head) * page + at % page) * dim;
            gathered.extend_from_slice(&cache[from..from + dim]);
        }
    }
    gathered
}

/// A cache of keys and values `[page][kv_head][page size][dim]`, in the shape's precision.
pub(super) fn upload(
    device: &Device,
    shape: CacheShape,
    pages: &[u32],
    caches: [&[f32]; 2],
) -> Result<PagedCache> {
    let pages = device.upload("pages", pages)?;
    match shape.precision {
        CachePrecision::Half => {
            let [keys, values] =
                caches.map(|cache| cache.par_iter().map(|&value| f16::from_f32(value)).collect::<Vec<f16>>());
            PagedCache::upload(device, shape, &pages, [&keys, &values])
        }
        CachePrecision::Single => PagedCache::upload(device, shape, &pages, caches),
    }
}

/// Softmax of the scores of a query over keys [positions, dim].
pub(super) fn weights<Q: Real>(query: &[Q], keys: &[f32]) -> Vec<f64> {
    let root = (query.len() as f64).sqrt();
    let scores: Vec<f64> =
        keys.chunks_exact(query.len()).map(|key| reference::matmul::element(query, key) / root).collect();
    reference::attention::softmax(&scores)
}

impl<Q: Real> Seen<'_, Q> {
    /// Expected values and bounds, [heads, dim].
    pub(super) fn expected(&self) -> Vec<(f64, f64)> {
        let &Self { query, keys, values, heads, kv_heads, position, window, .. } = self;
        let dim = query.len() / heads;
        let wanted = reference::attention::attention(query, keys, values, heads, kv_heads, position, window);
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let mut result = Vec::with_capacity(wanted.len());
        for head in 0..heads {
            let from = head / (heads / kv_heads) * (position + 1);
            let seen = (from + first) * dim..(from + position + 1) * dim;
            let of_head = head * dim..(head + 1) * dim;
            let slack = self.slack.get(of_head.clone()).unwrap_or(&[]);
            let bound = self.relative_bound(&query[of_head.clone()], slack, &keys[seen.clone()]);
            let weights = weights(&query[of_head], &keys[seen.clone()]);
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
    fn relative_bound(&self, query: &[Q], slack: &[f64], keys: &[f32]) -> f64 {
        let dim = query.len();
        let root = (dim as f64).sqrt();
        let (mut magnitude, mut least, mut largest) = (0.0_f64, f64::INFINITY, f64::NEG_INFINITY);
        let mut off = 0.0_f64;
        for key in keys.chunks_exact(dim) {
            magnitude = magnitude.max(reference::matmul::magnitude(query, key) / root);
            let score = reference::matmul::element(query, key) / root;
            (least, largest) = (least.min(score), largest.max(score));
            if !slack.is_empty() {
                off = off.max(reference::matmul::magnitude(slack, key) / root);
            }
        }
        // A score is a product, dim additions and a scaling by a rounded factor; its absolute error, and that of the
        // difference to the largest (which is the same for all and cancels), is the exponential's relative one, to
        // which WGSL adds 3 + 2·|x| units in the last place.
        let range = largest - least;
        let score = off + (dim as f64 + 3.0) * magnitude * ROUNDOFF + range * ROUNDOFF;
        let weight = score + (3.0 + 2.0 * range) * ULP;
        // Once a block of 64 positions and once a split, weights are rescaled by an exponential: over all of them
        // the exponents add up to the range.
        let rescalings = (keys.len() / dim).div_ceil(64) as f64 + 2.0 * self.splits as f64;
        let rescaled = rescalings * (3.0 * ULP + 2.0 * ROUNDOFF) + 2.0 * range * ULP;
        // Two sums: the additions, one a block, one a split; then the quotient.
        let sums = self.additions as f64 + rescalings + 2.0;
        self.stored + weight + rescaled + sums * ROUNDOFF + 2.5 * ULP
    }
}
