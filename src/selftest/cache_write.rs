//! Cases of `cache_write`.

use half::f16;

use super::case::boxed;
use super::output::POISON;
use super::{Case, Comparison, Fault, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::Tensor;
use crate::ops::cache::{CachePrecision, PAGE, PagedCache, RowState, cache_write};
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
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![CacheWrite { rows: 11, slots: 3, pages_per_slot: 2, kv_heads: 2, dim: 24 }],
        // More than 65535 workgroups of 64 pairs: a folded grid.
        Shapes::Real => vec![CacheWrite { rows: 8200, slots: 4, pages_per_slot: 9, kv_heads: 8, dim: 128 }],
    })
}

impl Case for CacheWrite {
    fn kernel(&self, _: &Device) -> &'static str {
        "cache_write"
    }

    fn shape(&self) -> String {
        let &Self { rows, slots, pages_per_slot, kv_heads, dim } = self;
        format!("{rows} x {kv_heads} heads of {dim}, {slots} slots of {pages_per_slot} pages")
    }

    fn bytes(&self) -> u64 {
        let row = self.kv_heads * self.dim;
        (8 * self.rows * row + 4 * (self.slots * self.pages_per_slot + 1) * PAGE * row) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, slots, pages_per_slot, kv_heads, dim } = self;
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

        let poison = [POISON as u16, (POISON >> 16) as u16].map(f16::from_bits);
        let empty: Vec<f16> = poison.into_iter().cycle().take((pages.len() + 1) * PAGE * cols).collect();
        let write = |x: &[f32]| {
            let mut cache = empty.clone();
            let geometry = reference::cache_write::Geometry { page: PAGE, kv_heads, dim, pages_per_slot };
            reference::cache_write::cache_write(x, &positions, &row_slots, pages, geometry, &mut cache);
            cache
        };
        let (expected_keys, expected_values) = (write(&k), write(&v));
        if fault == Fault::OneWrong {
            k[cols - 1] *= 1.01;
        }

        let k = Tensor::upload(device, "k", &k, cols)?;
        let v = Tensor::upload(device, "v", &v, cols)?;
        let state = RowState {
            positions: device.upload("positions", &positions)?,
            slots: device.upload("slots", &row_slots)?,
        };
        let cache = PagedCache {
            precision: CachePrecision::Half,
            keys: device.upload("keys", &empty)?,
            values: device.upload("values", &empty)?,
            pages: device.upload("pages", pages)?,
            pages_per_slot,
            kv_heads,
            dim,
        };
        run_list(device, "cache_write", |list| cache_write(list, &k, &v, &state, &cache, rows))?;

        let mut comparison = Comparison::new();
        for (buffer, expected) in [(&cache.keys, &expected_keys), (&cache.values, &expected_values)] {
            let got: Vec<u16> = device.read(buffer, 0, expected.len())?;
            for (&got, &expected) in got.iter().zip(expected) {
                comparison.half(got, expected);
            }
        }
        Ok(comparison)
    }
}
