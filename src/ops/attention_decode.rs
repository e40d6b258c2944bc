//! Attention of a decode step over the paged cache, from a product's partial sums to the parts that
//! [`super::attention_join`] joins; see `shaders/attention_decode.wgsl`.

use super::cache::{CachePrecision, PAGE, RowState};
use super::residual_norm::Left;
use super::rope::RopeTable;
use super::{CacheShape, CacheSlab, PagedCache, Tensor};
use crate::gpu::{Buffer, CommandList, Variant};
use crate::{Error, Result};

/// The most query heads of a workgroup: what its registers and workgroup memory hold.
const HEADS: usize = 8;

/// Positions of a tile, and the fewest of a split.
const TILE: usize = 64;

/// Workgroups that keep a large card busy even when only a part of the context is in use.
const BUSY: usize = 1024;

/// Heads times splits that `attention_join` has room for.
const JOINED: usize = 4096;

/// The most query heads of a model, for the workgroup memory of `attention_join`.
const MOST_HEADS: usize = 128;

/// The most sums that a product leaves.
const MOST_SUMS: usize = 16;

/// What the kernels of one decode attention share.
#[derive(Clone, Copy)]
pub struct Decode<'a> {
    /// Query heads, a multiple of the cache's key/value heads.
    pub heads: usize,
    /// Rows.
    pub rows: usize,
    /// Positions that a row sees at most, its own included.
    pub window: Option<usize>,
    /// Keys and values of the layer.
    pub cache: &'a PagedCache,
    /// Positions and slots of the rows.
    pub state: &'a RowState,
    /// Room for at least [`scratch`] values.
    pub splits: &'a Tensor,
}

/// Where a step's queries, keys and values come from.
#[derive(Clone, Copy)]
pub struct Projections<'a> {
    /// What their product left, 1, 2, 4, 8 or 16 sums: queries from column 0 on.
    pub left: Left<'a>,
    /// First column of the keys, a multiple of 4.
    pub key: usize,
    /// First column of the values, a multiple of 4.
    pub value: usize,
    /// Rotations, up to the cache's context.
    pub rope: &'a RopeTable,
}

/// Whether the rows' own keys and values are in the cache yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnKeys {
    /// No: this dispatch stores them. The rows in use are of different slots.
    New,
    /// [`super::kv_write`] stored them, and rows may be several positions of a slot.
    Stored,
}

/// How a context is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Splits of a row's context.
    pub splits: usize,
    /// Positions of each, a multiple of 64.
    pub length: usize,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    columns: u32,
    key: u32,
    value: u32,
    heads: u32,
    first_head: u32,
    group: u32,
    kv_heads: u32,
    sets: u32,
    pages_per_slot: u32,
    split_len: u32,
    splits: u32,
    window: u32,
    scale: f32,
}

/// Every variant for workgroups of `heads` heads of `dim` values, out of `sums` sums.
pub(super) fn variants(dim: usize, heads: usize, sums: usize, precision: CachePrecision) -> [Variant; 2] {
    [OwnKeys::New, OwnKeys::Stored].map(|own| variant([dim, heads, sums], precision, own))
}

fn variant([dim, heads, sums]: [usize; 3], precision: CachePrecision, own: OwnKeys) -> Variant {
    let stored = own == OwnKeys::Stored;
    let constants = format!(
        "const DIM: u32 = {dim}u; const HEADS: u32 = {heads}u; const SUMS: u32 = {sums}u; const STORED: bool = {stored};"
    );
    let variant = Variant::new("attention_decode").prologue(&constants).constant("PAGE", PAGE as u32);
    match precision {
        CachePrecision::Half => variant,
        CachePrecision::Single => variant.import("common/decode_half.wgsl", "common/decode_single.wgsl"),
    }
}

/// Whether there are kernels for this many heads of `dim` values; if not, [`super::attention`] has them.
pub fn supported(heads: usize, kv_heads: usize, dim: usize) -> bool {
    let whole = kv_heads > 0 && heads > 0 && heads.is_multiple_of(kv_heads);
    whole && heads <= MOST_HEADS && dim > 0 && dim.is_multiple_of(8) && dim <= 256
}

/// Workgroups that share the query heads of a key/value head, and how many each has at most.
fn sets(heads: usize, kv_heads: usize) -> (usize, usize) {
    let group = heads / kv_heads;
    let sets = group.div_ceil(HEADS);
    (sets, group.div_ceil(sets))
}

/// How a context of `context` positions is cut. Depends on the shape alone, so that the order of additions, and with it
/// the result, does not change from card to card.
///
/// A split as short as a tile shares a near-empty context among many workgroups, but each of them sums and rotates the
/// queries anew: so no more than keep a card busy, and no more than the join has room for.
pub fn cut(rows: usize, heads: usize, kv_heads: usize, context: usize) -> Cut {
    let across = rows.max(1) * kv_heads.max(1) * sets(heads.max(1), kv_heads.max(1)).0;
    let most = (BUSY / across).min(JOINED / heads.max(1));
    let length = context.div_ceil(most.clamp(1, context.div_ceil(TILE).max(1))).next_multiple_of(TILE);
    Cut { splits: context.div_ceil(length).max(1), length }
}

/// Single-precision values that [`Decode::splits`] needs, `context` being the cache's: whole pages.
pub fn scratch(rows: usize, heads: usize, kv_heads: usize, dim: usize, context: usize) -> usize {
    (rows * heads * cut(rows, heads, kv_heads, context).splits * (dim + 2)).next_multiple_of(4)
}

impl Decode<'_> {
    pub(super) fn cut(&self) -> Cut {
        let CacheShape { pages_per_slot, kv_heads, .. } = self.cache.shape();
        cut(self.rows, self.heads, kv_heads, pages_per_slot * PAGE)
    }

    pub(super) fn window(&self) -> u32 {
        self.window.map_or(u32::MAX, |window| window.clamp(1, u32::MAX as usize) as u32)
    }

    /// Refuses what the kernels of `operation` do not fit.
    pub(super) fn check(&self, operation: &str) -> Result<()> {
        let &Self { heads, rows, cache, state, splits, .. } = self;
        let CacheShape { pages_per_slot, kv_heads, dim, .. } = cache.shape();
        if !supported(heads, kv_heads, dim) {
            let message = format!(
                "{heads} query heads on {kv_heads} key heads of {dim} values, where this takes whole groups, at most \
                 {MOST_HEADS} heads, of a multiple of 8 values up to 256; use `ops::attention`"
            );
            return Err(Error::shape(operation, message));
        }
        if state.positions.bytes().min(state.slots.bytes()) < 4 * rows as u64 {
            return Err(Error::shape(operation, format!("{rows} rows without a position or slot each")));
        }
        let wanted = scratch(rows, heads, kv_heads, dim, pages_per_slot * PAGE);
        splits.view(1, wanted)?;
        Ok(())
    }
}

impl Projections<'_> {
    /// Refuses partial sums or rotations of another shape.
    pub(super) fn check(&self, operation: &str, decode: &Decode<'_>) -> Result<()> {
        let &Self { left: Left { partial, sums, columns }, key, value, .. } = self;
        let CacheShape { kv_heads, dim, .. } = decode.cache.shape();
        let whole = [columns, key, value].iter().all(|column| column.is_multiple_of(4));
        let inside =
            key >= decode.heads * dim && value >= key + kv_heads * dim && columns >= value + kv_heads * dim;
        let summed = sums.is_power_of_two() && sums <= MOST_SUMS;
        let there = partial.buffer().bytes() >= 4 * (sums * decode.rows * columns) as u64;
        if !(whole && inside && summed && there) || self.rope.dim() != dim {
            let message = format!(
                "{sums} sums of [{}, {columns}] with keys from {key} and values from {value} in {} bytes, rotations of heads \
                 of {}; there are {} query and {kv_heads} key heads of {dim}",
                decode.rows,
                partial.buffer().bytes(),
                self.rope.dim(),
                decode.heads
            );
            return Err(Error::shape(operation, message));
        }
        Ok(())
    }

    /// What the kernels that take projections bind first: sums, rotations, the rows' state, a slab of the cache.
    pub(super) fn buffers<'b>(&'b self, decode: &Decode<'b>, slab: &'b CacheSlab) -> [&'b Buffer; 7] {
        let (state, pages) = (decode.state, decode.cache.pages());
        let partial = self.left.partial.buffer();
        let rope = self.rope.buffer();
        [partial, rope, &state.positions, &state.slots, pages, &slab.keys, &slab.values]
    }

    /// Where the keys and values of a slab's heads of `dim` values begin, in vec4.
    pub(super) fn columns(&self, slab: &CacheSlab, dim: usize) -> [u32; 2] {
        [self.key, self.value].map(|column| ((column + slab.first * dim) / 4) as u32)
    }
}

/// The parts of softmax(q·Kᵀ / √dim)·V for each row, head and split of the context into `decode.splits`, with the queries
/// summed from `from` and rotated; if the rows' own keys and values are [`OwnKeys::New`], they are stored as well.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ or are none of [`supported`]; as [`CommandList::dispatch`].
pub fn attention_decode(
    list: &mut CommandList,
    decode: &Decode<'_>,
    from: &Projections<'_>,
    own: OwnKeys,
) -> Result<()> {
    decode.check("attention_decode")?;
    from.check("attention_decode", decode)?;
    let &Decode { heads, rows, cache, splits, .. } = decode;
    let CacheShape { pages_per_slot, kv_heads, dim, precision } = cache.shape();
    let (sets, workgroup_heads) = sets(heads, kv_heads);
    let group = heads / kv_heads;
    let cut = decode.cut();
    let kernel = list.device().kernel(&variant([dim, workgroup_heads, from.left.sums], precision, own))?;
    for slab in cache.slabs() {
        let [key, value] = from.columns(slab, dim);
        let params = Params {
            rows: rows as u32,
            columns: from.left.columns as u32 / 4,
            key,
            value,
            heads: heads as u32,
            first_head: (slab.first * group) as u32,
            group: group as u32,
            kv_heads: slab.heads as u32,
            sets: sets as u32,
            pages_per_slot: pages_per_slot as u32,
            split_len: cut.length as u32,
            splits: cut.splits as u32,
            window: decode.window(),
            scale: (1.0 / (dim as f64).sqrt()) as f32,
        };
        let [partial, rope, positions, slots, pages, keys, values] = from.buffers(decode, slab);
        let buffers = [partial, rope, positions, slots, pages, keys, values, splits.buffer()];
        let grid = [cut.splits, slab.heads * sets, rows].map(|count| count as u32);
        list.dispatch(&kernel, &buffers, &params, grid)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_covers_the_context_and_fits_the_join() {
        for (heads, kv_heads) in [(64, 8), (32, 32), (32, 4), (32, 8), (1, 1), (128, 1), (71, 1)] {
            for rows in 1..=8 {
                for context in [1, 63, 64, 256, 257, 4096, 131_072] {
                    let Cut { splits, length } = cut(rows, heads, kv_heads, context);
                    assert!(splits * length >= context && (splits - 1) * length < context);
                    assert!(length.is_multiple_of(TILE) && splits * heads <= JOINED);
                }
            }
        }
        assert_eq!(cut(1, 64, 8, 4096), Cut { splits: 64, length: 64 });
        assert_eq!(cut(1, 32, 32, 4096), Cut { splits: 32, length: 128 });
        assert_eq!(cut(8, 64, 8, 4096), Cut { splits: 16, length: 256 });
    }

    #[test]
    fn sets_leave_no_workgroup_without_heads() {
        for group in 1..=128 {
            let (sets, heads) = sets(group, 1);
            assert!(heads <= HEADS && sets * heads >= group && (sets - 1) * heads < group, "{group}");
        }
        assert!(
            supported(64, 8, 128) && !supported(64, 7, 128) && !supported(8, 8, 264) && !supported(8, 8, 12)
        );
    }
}
