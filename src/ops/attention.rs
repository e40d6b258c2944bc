//! Causal attention over the paged cache; see `shaders/{attention,attention_subgroup,attention_merge,attention_coop}.wgsl`.

use super::attention_coop::Tile;
use super::cache::{CachePrecision, PAGE, RowState};
use super::{CacheShape, CacheSlab, PagedCache, Tensor, with_reduce};
use crate::gpu::{Capabilities, CommandList, Variant};
use crate::{Error, Result};

/// Lanes of a workgroup; heads have at most four times as many values.
const LANES: u32 = 64;

/// Rows times splits that keep a large card busy.
const BUSY: usize = 64;

/// Fewest positions in a split.
const SPLIT_LEAST: usize = 128;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    heads: u32,
    first_head: u32,
    group: u32,
    kv_heads: u32,
    pages_per_slot: u32,
    split_len: u32,
    splits: u32,
    window: u32,
    scale: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct MergeParams {
    heads: u32,
    dim: u32,
    split_len: u32,
    splits: u32,
    window: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct CoopParams {
    rows: u32,
    heads: u32,
    first_head: u32,
    group: u32,
    kv_heads: u32,
    pages_per_slot: u32,
    window: u32,
    scale: f32,
}

/// Fewest rows for matrix units: below, splits of a context keep more of a card busy.
const COOP_LEAST: usize = 16;

/// Which kernels do the work.
enum Form {
    /// One workgroup a row, head and split, then joining.
    Splits(Variant),
    /// Tiles of rows on matrix units.
    Tiles(Tile),
}

/// The form is chosen here and nowhere else, for `rows` rows of `heads` query heads.
fn choose(capabilities: &Capabilities, shape: CacheShape, rows: usize, heads: usize) -> Form {
    let CacheShape { dim, precision, kv_heads, .. } = shape;
    match Tile::of(capabilities, dim, precision) {
        Some(tile) if rows >= COOP_LEAST && heads / kv_heads <= tile.lines() => Form::Tiles(tile),
        _ if capabilities.subgroup == Some((8, 8)) => Form::Splits(subgroup_variant(dim as u32, precision)),
        _ => Form::Splits(variant(capabilities, dim as u32, precision)),
    }
}

/// What [`attention`] runs; `attention_merge` follows all but `attention_coop`.
pub fn stem(capabilities: &Capabilities, shape: CacheShape, rows: usize, heads: usize) -> &'static str {
    match choose(capabilities, shape, rows, heads) {
        Form::Splits(variant) => variant.stem(),
        Form::Tiles(tile) => tile.variant().stem(),
    }
}

/// For subgroups of eight.
fn subgroup_variant(dim: u32, precision: CachePrecision) -> Variant {
    let variant = Variant::new("attention_subgroup")
        .prologue(&format!("const DIM: u32 = {dim}u;"))
        .constant("PAGE", PAGE as u32);
    match precision {
        CachePrecision::Half => variant,
        CachePrecision::Single => variant.import("common/eight_half.wgsl", "common/eight_single.wgsl"),
    }
}

/// Every variant for heads of `dim` values.
pub(super) fn variants(capabilities: &Capabilities, dim: u32, precision: CachePrecision) -> Vec<Variant> {
    let mut all = vec![variant(capabilities, dim, precision)];
    if capabilities.subgroup.is_some() {
        all.push(subgroup_variant(dim, precision));
    }
    all.extend(Tile::of(capabilities, dim as usize, precision).map(|tile| tile.variant().clone()));
    all
}

fn variant(capabilities: &Capabilities, dim: u32, precision: CachePrecision) -> Variant {
    let variant =
        Variant::new("attention").constant("WG", LANES).constant("PAGE", PAGE as u32).constant("DIM", dim);
    let variant = match precision {
        CachePrecision::Half => variant,
        CachePrecision::Single => variant.import("common/cache_half.wgsl", "common/cache_single.wgsl"),
    };
    with_reduce(variant, capabilities)
}

pub(super) fn merge_variant() -> Variant {
    Variant::new("attention_merge").constant("WG", LANES)
}

/// How a context is cut for `rows` rows: (splits, positions in a split). Depends on nothing else, so that the order
/// of additions, and with it the result, does not change from card to card.
pub fn splits(rows: usize, context: usize) -> (usize, usize) {
    let splits = (BUSY / rows.max(1)).clamp(1, context.div_ceil(SPLIT_LEAST).max(1));
    let length = context.div_ceil(splits).next_multiple_of(SPLIT_LEAST);
    (context.div_ceil(length).max(1), length)
}

/// `out[r] = softmax(q[r]·Kᵀ / √dim)·V` over the positions that row r sees: its own and those before it in its slot, at
/// most `window` of them. q, out: [rows, heads · dim]; `partial` has room for rows · heads · splits · (dim + 2) values.
/// Rows not in use keep what `out` holds.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
#[expect(
    clippy::too_many_arguments,
    reason = "an attention has these operands; a struct would only rename them"
)]
pub fn attention(
    list: &mut CommandList,
    q: &Tensor,
    cache: &PagedCache,
    state: &RowState,
    partial: &Tensor,
    out: &Tensor,
    rows: usize,
    window: Option<usize>,
) -> Result<()> {
    let CacheShape { pages_per_slot, kv_heads, dim, .. } = cache.shape();
    let cols = q.cols();
    let fits = dim % 8 == 0 && dim <= 4 * LANES as usize && cols.is_multiple_of(dim * kv_heads);
    if !fits || rows > list.device().max_workgroups() as usize {
        let message = format!("{rows} rows of {cols} with {kv_heads} key heads of {dim}");
        return Err(Error::shape("attention", message));
    }
    q.expect("attention", rows, cols)?;
    out.expect("attention", rows, cols)?;
    let heads = cols / dim;
    let group = heads / kv_heads;
    let window = window.map_or(u32::MAX, |window| window.min(u32::MAX as usize) as u32);
    let scale = (1.0 / (dim as f64).sqrt()) as f32;
    let capabilities = list.device().capabilities().clone();
    let variant = match choose(&capabilities, cache.shape(), rows, heads) {
        Form::Splits(variant) => variant,
        Form::Tiles(tile) => {
            let kernel = list.device().kernel(tile.variant())?;
            for CacheSlab { first, heads: slab_heads, keys, values } in cache.slabs() {
                let params = CoopParams {
                    rows: rows as u32,
                    heads: heads as u32,
                    first_head: (first * group) as u32,
                    group: group as u32,
                    kv_heads: *slab_heads as u32,
                    pages_per_slot: pages_per_slot as u32,
                    window,
                    scale,
                };
                let buffers =
                    [q.buffer(), keys, values, cache.pages(), &state.positions, &state.slots, out.buffer()];
                let grid = [*slab_heads as u32, (rows * group).div_ceil(tile.lines()) as u32, 1];
                list.dispatch(&kernel, &buffers, &params, grid)?;
            }
            return Ok(());
        }
    };
    let (splits, split_len) = splits(rows, pages_per_slot * PAGE);
    partial.view(rows, heads * splits * (dim + 2))?;
    let kernel = list.device().kernel(&variant)?;
    for slab in cache.slabs() {
        let params = Params {
            heads: heads as u32,
            first_head: (slab.first * group) as u32,
            group: group as u32,
            kv_heads: slab.heads as u32,
            pages_per_slot: pages_per_slot as u32,
            split_len: split_len as u32,
            splits: splits as u32,
            window,
            scale,
        };
        let CacheSlab { keys, values, .. } = slab;
        let buffers =
            [q.buffer(), keys, values, cache.pages(), &state.positions, &state.slots, partial.buffer()];
        list.dispatch(
            &kernel,
            &buffers,
            &params,
            [splits, slab.heads * group, rows].map(|count| count as u32),
        )?;
    }
    let params = MergeParams {
        heads: heads as u32,
        dim: dim as u32,
        split_len: split_len as u32,
        splits: splits as u32,
        window,
    };
    let kernel = list.device().kernel(&merge_variant())?;
    let buffers = [partial.buffer(), &state.positions, out.buffer()];
    list.dispatch(&kernel, &buffers, &params, [heads as u32, rows as u32, 1])
}
