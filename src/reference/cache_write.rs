//! Oracle of storing keys or values in a paged cache.

/// The sizes of a cache.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Positions in a page.
    pub page: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values in a head.
    pub dim: usize,
    /// Pages of a slot.
    pub pages_per_slot: usize,
}

/// Rounds `x` `[rows, kv_heads, dim]` and stores row `r` at `positions[r]` of slot `slots[r]`; a row whose position is
/// `u32::MAX` is left out. `pages`: `[slots, pages_per_slot]`, the page that holds a slot's positions
/// `page·j ..`; `cache`: `[page][kv_head][position in the page][dim]`.
pub fn cache_write<T>(
    x: &[f32],
    round: impl Fn(f32) -> T,
    (positions, slots): (&[u32], &[u32]),
    pages: &[u32],
    geometry: Geometry,
    cache: &mut [T],
) {
    let Geometry { page, kv_heads, dim, pages_per_slot } = geometry;
    for (row, (&position, &slot)) in positions.iter().zip(slots).enumerate() {
        if position == u32::MAX {
            continue;
        }
        let at = position as usize;
        let found = pages[slot as usize * pages_per_slot + at / page] as usize;
        for head in 0..kv_heads {
            for i in 0..dim {
                let to = ((found * kv_heads + head) * page + at % page) * dim + i;
                cache[to] = round(x[(row * kv_heads + head) * dim + i]);
            }
        }
    }
}
