//! Products with half-precision weights; see `shaders/{gemv,matmul,matmul_subgroup,matmul_coop}.wgsl`.

use super::coop_tile::Tile;
use super::{DenseMatrix, Operand, Tensor, with_reduce};
use crate::Result;
use crate::gpu::{Buffer, Capabilities, CommandList, Variant, flat_grid};

/// Up to this many rows are multiplied one by one, more as a tiled product.
pub const GEMV_ROWS: usize = 8;

/// Outputs of one workgroup of `matmul` in either direction.
const TILE: usize = 64;

/// The same of `matmul_subgroup`.
const SUBGROUP_TILE: usize = 32;

/// From this many workgroups on larger tiles are faster: 80 of 128 × 128 took 17 µs on the 132 multiprocessors of an H100, where
/// 288 of 64 × 64 took 22.
const BUSY: usize = 48;

/// What a product does beside multiplying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Replaces the output.
    Set,
    /// Adds to the output (the residual).
    Add,
}

/// Immediates shared by all products.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    pub(super) rows: u32,
    pub(super) n: u32,
    pub(super) k: u32,
    pub(super) out_cols: u32,
    pub(super) first: u32,
    pub(super) flags: u32,
    pub(super) x_first: u32,
    pub(super) w_first: u32,
}

impl Params {
    /// Add to what the output holds.
    pub(super) const ADD: u32 = 2;
    /// Leave out tiles of outputs below the diagonal.
    pub(super) const UPPER: u32 = 4;

    pub(super) fn flags(bias: bool, store: Store) -> u32 {
        u32::from(bias) | if store == Store::Add { Self::ADD } else { 0 }
    }
}

fn gemv_variant(capabilities: &Capabilities) -> Variant {
    with_reduce(Variant::new("gemv").constant("WG", 64), capabilities)
}

pub(super) fn variants(capabilities: &Capabilities) -> Vec<Variant> {
    let mut all = vec![gemv_variant(capabilities), Variant::new("matmul")];
    if capabilities.subgroup.is_some() {
        all.push(Variant::new("matmul_subgroup"));
    }
    for tile in Tile::all(capabilities) {
        let tails = |planes| [false, true].map(|tail| tile.variant(planes, tail));
        all.extend([[1, 1], [2, 1], [2, 2]].into_iter().flat_map(tails));
    }
    all
}

/// y = x·Wᵀ (+ bias) (+ y) over the first `rows` rows: x [rows, k], y [rows, n].
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn matmul(
    list: &mut CommandList,
    x: &Operand,
    weights: &DenseMatrix,
    y: &Tensor,
    rows: usize,
    store: Store,
) -> Result<()> {
    y.expect("matmul", rows, weights.n())?;
    for slab in weights.slabs() {
        let columns = Columns {
            first: slab.first,
            count: slab.rows,
            total: weights.n(),
            halves: &slab.buffer,
            bias: slab.bias.as_ref(),
        };
        product(list, x, weights.k(), &columns, y, rows, store)?;
    }
    Ok(())
}

/// Some outputs of a product: their weights [count, k] in halves and their bias.
pub(super) struct Columns<'a> {
    pub(super) first: usize,
    pub(super) count: usize,
    /// Outputs of the whole matrix, so that all of its slabs take the same kernel.
    pub(super) total: usize,
    pub(super) halves: &'a Buffer,
    pub(super) bias: Option<&'a Buffer>,
}

/// The product with one slab. The variant is chosen here and nowhere else.
pub(super) fn product(
    list: &mut CommandList,
    x: &Operand,
    k: usize,
    columns: &Columns<'_>,
    y: &Tensor,
    rows: usize,
    store: Store,
) -> Result<()> {
    x.expect("matmul", rows, k)?;
    let device = list.device().clone();
    let capabilities = device.capabilities();
    let params = Params {
        rows: rows as u32,
        n: columns.count as u32,
        k: k as u32,
        out_cols: y.cols() as u32,
        first: columns.first as u32,
        flags: Params::flags(columns.bias.is_some(), store),
        x_first: 0,
        w_first: 0,
    };
    let tiles =
        |[down, across]: [usize; 2]| [columns.count.div_ceil(across) as u32, rows.div_ceil(down) as u32, 1];
    if let Some((halves, units)) = &x.halves {
        let tile = tile_for(&Tile::all(capabilities), rows, columns.total);
        let kernel = device.kernel(&tile.variant([halves.planes(), 1], !k.is_multiple_of(tile.step)))?;
        let buffers = [&x.values, columns.halves, columns.bias.unwrap_or(units), units, y.buffer()];
        return list.dispatch(&kernel, &buffers, &params, tiles(tile.outputs()));
    }
    let (variant, grid) = if rows <= GEMV_ROWS {
        (gemv_variant(capabilities), flat_grid(&device, (rows * columns.count) as u64))
    } else if capabilities.subgroup == Some((8, 8)) {
        (Variant::new("matmul_subgroup"), tiles([SUBGROUP_TILE; 2]))
    } else {
        (Variant::new("matmul"), tiles([TILE; 2]))
    };
    let kernel = device.kernel(&variant)?;
    let bias = columns.bias.unwrap_or(&x.values);
    list.dispatch(&kernel, &[&x.values, columns.halves, bias, y.buffer()], &params, grid)
}

/// The largest tile of which there are [`BUSY`], else the smallest.
pub(super) fn tile_for(all: &[Tile], rows: usize, n: usize) -> Tile {
    let count = |tile: &Tile| {
        let [down, across] = tile.outputs();
        rows.div_ceil(down) * n.div_ceil(across)
    };
    let tile = all.iter().find(|tile| count(tile) >= BUSY).or(all.last());
    *tile.expect("an operand is in halves only where there are matrix units")
}
