//! Products of two activations over their rows, C + Aᵀ·diag(w)·B: on matrix units where a device has some
//! (`shaders/matmul_coop.wgsl`), elsewhere in single precision (`shaders/matmul_tn.wgsl`).

use super::coop_tile::Tile;
use super::halve_columns::{EIGHT, HalvedColumns};
use super::matmul::{Params, tile_for};
use super::matmul_tn::{Product, Window, matmul_tn};
use super::{Tensor, on_matrix_units};
use crate::gpu::{Buffer, CommandList, Device};
use crate::{Error, Result};

/// One side of such products: the columns of an activation, in the form that a device multiplies. Sides are multiplied with
/// sides of the same rows and weights.
pub struct Columns {
    x: Tensor,
    rows: usize,
    weights: Option<Buffer>,
    halves: Option<HalvedColumns>,
}

impl Columns {
    /// Records the making of the first `rows` rows of x into a side, with a weight (f32, `rows` of them or more) for each or 1.
    /// Until the products have run, x must stay as it is.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are fewer rows; as [`HalvedColumns::record`].
    pub fn record(list: &mut CommandList, x: &Tensor, weights: Option<&Buffer>, rows: usize) -> Result<Self> {
        x.expect("columns", rows, x.cols())?;
        let halves = match in_halves(list.device()) {
            true => Some(HalvedColumns::record(list, x, weights, rows)?),
            false => None,
        };
        Ok(Self { x: x.clone(), rows, weights: weights.cloned(), halves })
    }

    /// Columns of the activation.
    pub fn cols(&self) -> usize {
        self.x.cols()
    }

    /// `c[i, j] += Σ_r w[r]·left[r, first_left + i]·right[r, first_right + j]` over all rows of c and its columns as far as `right`
    /// has some. With `upper`, outputs may be left out, a tile at a time, whose column of `left` has a higher number than that of
    /// `right`. Of the four products of halves that
    /// of both second ones is left out, 2^-22 of each product.
    ///
    /// # Errors
    /// [`Error::Shape`] when c is wider or the rows differ; as [`CommandList::dispatch`].
    pub fn add_product(
        list: &mut CommandList,
        (left, first_left): (&Self, usize),
        (right, first_right): (&Self, usize),
        c: &Tensor,
        upper: bool,
    ) -> Result<()> {
        let fits =
            left.rows == right.rows && first_left + c.rows() <= left.cols() && first_right < right.cols();
        if !fits {
            let message = format!(
                "[{}, {}] from columns {first_left} of [{}, {}] and {first_right} of [{}, {}]",
                c.rows(),
                c.cols(),
                left.rows,
                left.cols(),
                right.rows,
                right.cols()
            );
            return Err(Error::shape("product of columns", message));
        }
        let n = c.cols().min(right.cols() - first_right);
        if let (Some(a), Some(b)) = (&left.halves, &right.halves) {
            return on_units(list, (a, first_left), (b, first_right), (left.rows, c, n), upper);
        }
        let product = Product {
            a: Window { matrix: &left.x, row: 0, col: first_left },
            b: Window { matrix: &right.x, row: 0, col: first_right },
            c: Window::whole(c),
            rows: left.rows,
            m: c.rows(),
            n,
            alpha: 1.0,
            beta: 1.0,
            weights: left.weights.as_ref(),
            upper,
        };
        matmul_tn(list, &product)
    }
}

/// Whether a device multiplies columns in halves.
pub fn in_halves(device: &Device) -> bool {
    on_matrix_units(device, usize::MAX, EIGHT)
}

fn on_units(
    list: &mut CommandList,
    (left, first_left): (&HalvedColumns, usize),
    (right, first_right): (&HalvedColumns, usize),
    (rows, c, n): (usize, &Tensor, usize),
    upper: bool,
) -> Result<()> {
    let device = list.device().clone();
    let tile = tile_for(&Tile::all(device.capabilities()), c.rows(), n);
    let k = rows.next_multiple_of(EIGHT);
    let kernel = device.kernel(&tile.variant([2, 2], !k.is_multiple_of(tile.step)))?;
    let params = Params {
        rows: c.rows() as u32,
        n: n as u32,
        k: k as u32,
        out_cols: c.cols() as u32,
        first: 0,
        flags: Params::ADD | if upper { Params::UPPER } else { 0 },
        x_first: first_left as u32,
        w_first: first_right as u32,
    };
    let buffers = [left.halves(), right.halves(), right.units(), left.units(), c.buffer()];
    let [down, across] = tile.outputs();
    let grid = [n.div_ceil(across) as u32, c.rows().div_ceil(down) as u32, 1];
    list.dispatch(&kernel, &buffers, &params, grid)
}
