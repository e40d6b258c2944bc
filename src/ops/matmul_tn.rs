//! Products over the rows of two matrices; see `shaders/matmul_tn.wgsl`.

use super::Tensor;
use crate::gpu::{Buffer, Capabilities, CommandList, Variant};
use crate::{Error, Result};

/// Multiplications of one dispatch at most (the least number of rows aside), so that none takes longer than about a
/// tenth of a second where a card makes 10^12 a second.
const MOST_PRODUCTS: usize = 1 << 37;

/// Rows are cut at multiples of this.
const ROW_STEP: usize = 16;

/// Some rows and columns of a matrix, from a place on.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    /// The matrix.
    pub matrix: &'a Tensor,
    /// First row.
    pub row: usize,
    /// First column, a multiple of four.
    pub col: usize,
}

impl<'a> Window<'a> {
    /// A matrix from its first row and column on.
    pub fn whole(matrix: &'a Tensor) -> Self {
        Self { matrix, row: 0, col: 0 }
    }

    fn check(&self, name: &str, rows: usize, cols: usize) -> Result<()> {
        let inside = self.row + rows <= self.matrix.rows() && self.col + cols <= self.matrix.cols();
        if inside && (self.matrix.cols() | self.col | cols).is_multiple_of(4) {
            return Ok(());
        }
        let message = format!(
            "{name}: [{rows}, {cols}] at ({}, {}) of `{}` [{}, {}]; columns come in fours",
            self.row,
            self.col,
            self.matrix.buffer().label(),
            self.matrix.rows(),
            self.matrix.cols()
        );
        Err(Error::shape("matmul_tn", message))
    }

    fn first(&self, row: usize) -> u32 {
        (((self.row + row) * self.matrix.cols() + self.col) / 4) as u32
    }

    fn pitch(&self) -> u32 {
        (self.matrix.cols() / 4) as u32
    }
}

/// `C[i, j] = beta·C[i, j] + alpha·Σ_r A[r, i]·w[r]·B[r, j]`.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// A [rows, m].
    pub a: Window<'a>,
    /// B [rows, n]; may be A's matrix.
    pub b: Window<'a>,
    /// C [m, n], another matrix.
    pub c: Window<'a>,
    /// Rows summed over.
    pub rows: usize,
    /// Columns of A taken, rows of C; a multiple of four.
    pub m: usize,
    /// Columns of B and C taken; a multiple of four.
    pub n: usize,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of what C holds; with 0 it is not read.
    pub beta: f32,
    /// f32 [rows of A's matrix]: the factor of each, or 1.
    pub weights: Option<&'a Buffer>,
    /// Leave out outputs, a tile at a time, whose column of A has a higher number than that of B: below the diagonal C is
    /// either right or left as it is.
    pub upper: bool,
}

const WEIGHTED: u32 = 1;
const UPPER: u32 = 2;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    m: u32,
    n: u32,
    flags: u32,
    a_first: u32,
    a_pitch: u32,
    b_first: u32,
    b_pitch: u32,
    c_first: u32,
    c_pitch: u32,
    w_first: u32,
    offset: i32,
    alpha: f32,
    beta: f32,
}

/// The variant for a device and its outputs of one workgroup, rows and columns. The choice is made here and nowhere else.
fn choose(capabilities: &Capabilities) -> (Variant, (usize, usize)) {
    if capabilities.subgroup == Some((8, 8)) {
        (Variant::new("matmul_tn_subgroup"), (32, 32))
    } else {
        (Variant::new("matmul_tn"), (16, 128))
    }
}

pub(super) fn variants(capabilities: &Capabilities) -> Vec<Variant> {
    let mut all = vec![Variant::new("matmul_tn")];
    if capabilities.subgroup.is_some() {
        all.push(Variant::new("matmul_tn_subgroup"));
    }
    all
}

/// Adds the product to the list, in as many dispatches over ranges of rows as keep each short.
///
/// # Errors
/// [`Error::Shape`] when a window leaves its matrix; as [`CommandList::dispatch`].
pub fn matmul_tn(list: &mut CommandList, product: &Product<'_>) -> Result<()> {
    let Product { a, b, c, rows, m, n, alpha, beta, weights, upper } = *product;
    a.check("A", rows, m)?;
    b.check("B", rows, n)?;
    c.check("C", m, n)?;
    if let Some(weights) = weights
        && weights.bytes() < 4 * (a.row + rows) as u64
    {
        let message = format!("{} bytes of weights for {} rows", weights.bytes(), a.row + rows);
        return Err(Error::shape("matmul_tn", message));
    }
    let (variant, tile) = choose(list.device().capabilities());
    let kernel = list.device().kernel(&variant)?;
    let grid = [n.div_ceil(tile.1) as u32, m.div_ceil(tile.0) as u32, 1];
    let flags = if weights.is_some() { WEIGHTED } else { 0 } | if upper { UPPER } else { 0 };
    let most = (MOST_PRODUCTS / (m * n).max(1)).max(1).next_multiple_of(ROW_STEP);
    for first in (0..rows).step_by(most) {
        let params = Params {
            rows: most.min(rows - first) as u32,
            m: m as u32,
            n: n as u32,
            flags,
            a_first: a.first(first),
            a_pitch: a.pitch(),
            b_first: b.first(first),
            b_pitch: b.pitch(),
            c_first: c.first(0),
            c_pitch: c.pitch(),
            w_first: (a.row + first) as u32,
            offset: b.col as i32 - a.col as i32,
            alpha,
            beta: if first == 0 { beta } else { 1.0 },
        };
        let (a, b, c) = (a.matrix.buffer(), b.matrix.buffer(), c.matrix.buffer());
        list.dispatch(&kernel, &[a, b, weights.unwrap_or(a), c], &params, grid)?;
    }
    Ok(())
}
