//! Cases of `cache_write`.

use half::f16;

use super::case::boxed;
use super::output::POISON;
use super::{Case, Comparison, Fault, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::cache::{CachePrecision, PAGE, RowState, cache_write};
use crate::ops::{CacheShape, PagedCache, Tensor};
use crate::{Result, reference};

/// Keys and values of `rows` rows into a cache of `slots` slots; every fifth row is not in use.
pub struct CacheWrite {
    /// Rows, spread over the slots at positions in order.
    pub rows: usize,
    /// Slots.
    pub slots: usize,
    /// Pages of a slot.
    pub pages_per_slot: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values in a head, a multiple of 8.
    pub dim: usize,
    /// Element format of the cache.
    pub precision: CachePrecision,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let (rows, slots, pages_per_slot, kv_heads, dim) = match shapes {
        Shapes::Small => (11, 3, 2, 2, 24),
        // More than 65535 workgroups of 64 pairs: a folded grid.
        Shapes::Real => (8200, 4, 9, 8, 128),
    };
    let precisions = [CachePrecision::Half, CachePrecision::Single];
    boxed(precisions.map(|precision| CacheWrite { rows, slots, pages_per_slot, kv_heads, dim, precision }))
}

impl Case for CacheWrite {
    fn kernel(&self, _: &Device) -> &'static str {
        "cache_write"
    }

    fn shape(&self) -> String {
        let &Self { rows, slots, pages_per_slot, kv_heads, dim, precision } = self;
        format!(
            "{rows} x {kv_heads} heads of {dim}, {slots} slots of {pages_per_slot} pages of {} bits",
            8 * precision.bytes()
        )
    }

    fn bytes(&self) -> u64 {
        let row = self.kv_heads * self.dim;
        let positions = (self.slots * self.pages_per_slot + 1) * PAGE;
        (8 * self.rows * row + 2 * self.precision.bytes() * positions * row) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, slots, pages_per_slot, kv_heads, dim, precision } = self;
        let cols = kv_heads * dim;
        let pages = Random::new(seed, "pages").permutation(slots * pages_per_slot + 1);
        let pages = &pages[..slots * pages_per_slot];
        // Neighbouring rows lie in different slots; within a slot positions end with its last.
        let first = pages_per_slot * PAGE - rows.div_ceil(slots);
        let row_slots: Vec<u32> = (0..rows).map(|row| (row % slots) as u32).collect();
        let positions: Vec<u32> =
            (0..rows).map(|row| if row % 5 == 3 { u32::MAX } else { (first + row / slots) as u32 }).collect();
        let mut k = Random::new(seed, "k").values(rows * cols);
        let v = Random::new(seed, "v").values(rows * cols);
        // Halfway between two halves, subnormal, at the edge of overflow, beyond, and signed zero.
        for (value, special) in k.iter_mut().zip([1.0 + 1.0 / 2048.0, 1e-6, 65519.9, 65520.0, -1e9, -0.0]) {
            *value = special;
        }

        let geometry = reference::cache_write::Geometry { page: PAGE, kv_heads, dim, pages_per_slot };
        let words = (pages.len() + 1) * PAGE * cols * precision.bytes() / 4;
        let empty = vec![POISON; words];
        let expected = [&k, &v].map(|x| {
            let mut cache = empty.clone();
            let rows = (positions.as_slice(), row_slots.as_slice());
            match precision {
                CachePrecision::Half => {
                    let halves: &mut [f16] = bytemuck::cast_slice_mut(&mut cache);
                    reference::cache_write::cache_write(x, f16::from_f32, rows, pages, geometry, halves);
                }
                CachePrecision::Single => {
                    let singles: &mut [f32] = bytemuck::cast_slice_mut(&mut cache);
                    reference::cache_write::cache_write(x, |value| value, rows, pages, geometry, singles);
                }
            }
            cache
        });
        if fault == Fault::OneWrong {
            k[cols - 1] *= 1.01;
        }

        let k = Tensor::upload(device, "k", &k, cols)?;
        let v = Tensor::upload(device, "v", &v, cols)?;
        let state = RowState {
            positions: device.upload("positions", &positions)?,
            slots: device.upload("slots", &row_slots)?,
        };
        let shape = CacheShape { pages_per_slot, kv_heads, dim, precision };
        let cache = PagedCache::upload(device, shape, &device.upload("pages", pages)?, [&empty, &empty])?;
        run_list(device, "cache_write", |list| cache_write(list, &k, &v, &state, &cache, rows))?;

        let mut comparison = Comparison::new();
        for (got, expected) in cache.read::<u32>()?.into_iter().zip(&expected) {
            match precision {
                CachePrecision::Half => {
                    let halves: &[f16] = bytemuck::cast_slice(expected);
                    for (&got, &expected) in bytemuck::cast_slice(&got).iter().zip(halves) {
                        comparison.half(got, expected);
                    }
                }
                CachePrecision::Single => {
                    for (&got, &expected) in got.iter().zip(expected) {
                        comparison.exact(f32::from_bits(got), f32::from_bits(expected));
                    }
                }
            }
        }
        Ok(comparison)
    }
}
