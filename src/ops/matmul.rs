//! Products with half-precision weights; see `shaders/{gemv,matmul,matmul_subgroup,matmul_coop}.wgsl`.

use super::{DenseMatrix, Tensor, with_reduce};
use crate::Result;
use crate::gpu::{Buffer, Capabilities, CommandList, Variant, flat_grid};

/// Up to this many rows are multiplied one by one, more as a tiled product.
pub const GEMV_ROWS: usize = 8;

/// Outputs of one workgroup of `matmul` in either direction.
const TILE: usize = 64;

/// The same of `matmul_subgroup`.
const SUBGROUP_TILE: usize = 32;

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
}

impl Params {
    pub(super) fn flags(bias: bool, store: Store) -> u32 {
        u32::from(bias) | u32::from(store == Store::Add) << 1
    }
}

fn gemv_variant(capabilities: &Capabilities) -> Variant {
    with_reduce(Variant::new("gemv").constant("WG", 64), capabilities)
}

/// The product on matrix units of edge `edge`, for subgroups of `lanes`.
fn coop_variant(edge: u32, lanes: u32) -> Variant {
    let prologue = format!(
        "enable f16;\nenable wgpu_cooperative_matrix;\nconst D: u32 = {edge}u;\n\
         alias MatA = coop_mat{edge}x{edge}<f16, A>;\nalias MatB = coop_mat{edge}x{edge}<f16, B>;\n\
         alias MatC = coop_mat{edge}x{edge}<f32, C>;"
    );
    Variant::new("matmul_coop").prologue(&prologue).constant("WG", 4 * lanes)
}

pub(super) fn variants(capabilities: &Capabilities) -> Vec<Variant> {
    let mut all = vec![gemv_variant(capabilities), Variant::new("matmul")];
    if capabilities.subgroup.is_some() {
        all.push(Variant::new("matmul_subgroup"));
    }
    if let (Some(edge), Some((_, lanes))) = (capabilities.cooperative, capabilities.subgroup) {
        all.push(coop_variant(edge, lanes));
    }
    all
}

/// y = x·Wᵀ (+ bias) (+ y) over the first `rows` rows: x [rows, k], y [rows, n].
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
pub fn matmul(
    list: &mut CommandList,
    x: &Tensor,
    weights: &DenseMatrix,
    y: &Tensor,
    rows: usize,
    store: Store,
) -> Result<()> {
    x.expect("matmul", rows, weights.k())?;
    y.expect("matmul", rows, weights.n())?;
    for slab in weights.slabs() {
        let columns = Columns {
            first: slab.first,
            count: slab.rows,
            total: weights.n(),
            halves: &slab.buffer,
            bias: slab.bias.as_ref(),
        };
        product(list, x, weights.k(), columns, y, rows, store)?;
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
    x: &Tensor,
    k: usize,
    columns: Columns<'_>,
    y: &Tensor,
    rows: usize,
    store: Store,
) -> Result<()> {
    let device = list.device().clone();
    let capabilities = device.capabilities();
    let params = Params {
        rows: rows as u32,
        n: columns.count as u32,
        k: k as u32,
        out_cols: y.cols() as u32,
        first: columns.first as u32,
        flags: Params::flags(columns.bias.is_some(), store),
    };
    let (variant, grid) = if rows <= GEMV_ROWS {
        (gemv_variant(capabilities), flat_grid(&device, (rows * columns.count) as u64))
    } else {
        match (capabilities.cooperative, capabilities.subgroup) {
            (Some(edge), Some((_, lanes)))
                if (k | columns.count | columns.total).is_multiple_of(edge as usize) =>
            {
                let tile = 4 * edge as usize;
                let grid = [columns.count.div_ceil(tile) as u32, rows.div_ceil(tile) as u32, 1];
                (coop_variant(edge, lanes), grid)
            }
            (_, subgroup) => {
                let (stem, tile) = if subgroup == Some((8, 8)) {
                    ("matmul_subgroup", SUBGROUP_TILE)
                } else {
                    ("matmul", TILE)
                };
                let grid = [columns.count.div_ceil(tile) as u32, rows.div_ceil(tile) as u32, 1];
                (Variant::new(stem), grid)
            }
        }
    };
    let kernel = device.kernel(&variant)?;
    list.dispatch(
        &kernel,
        &[x.buffer(), columns.halves, columns.bias.unwrap_or(x.buffer()), y.buffer()],
        &params,
        grid,
    )
}
