//! The factor of a Hessian's inverse on the device, in single precision and in place.
//!
//! H + damping·I is put into reversed packed order and scaled to a diagonal of ones ([`unit_diagonal`]), M. With M = L·Lᵀ,
//! L⁻¹ turned by half a circle, its columns scaled, is U ([`turn_factor`]; the reversal as in [`super::host`]). L⁻¹ comes from
//! M by elimination: rows of L·[…] are taken from the rows below them, as in a right-looking Cholesky factorization, but
//! from the whole of [M | I] at once. Of M what is right of the diagonal is still needed, of I only what is left of it, so both
//! share one matrix:
//!
//! - for 64 rows p at a time, [`cholesky_block`] makes T = R⁻¹ of the block M[p, p] = Rᵀ·R;
//! - Z = Tᵀ·W[p, :] is Lᵀ right of the block and L⁻¹ left of it and in it;
//! - W[i, :] −= Z[:, i]ᵀ·Z for the rows i below: first those of the same 256 rows, then, for 256 rows of Z together, all
//!   others. Left of the diagonal that begins with zeros, which are never stored.
//!
//! Everything but the block is `matmul_tn`, with the half that is not needed left out: 2/3·k³ operations, of which a third of k³
//! for the factor and as many for its inverse.
//!
//! The same matrix on the same device gives the same bits. How a device cuts matrices into slabs changes roundings, as 256 rows
//! end where a slab does.
//!
//! Memory for k = 28672: H and the matrix that becomes U, 3.3 GB each, 29 MB for 256 rows and a few k values; no third matrix.
//!
//! Predicted for an H100 at 15 TFLOP/s (10 to 20), not measured: k = 1536, 2.4 GFLOP, 5 ms, of which the products are 0.2 and
//! the rest 24 blocks one after the other at about 0.1 ms with their dispatches, and the host's recording; k = 4096, 46 GFLOP,
//! 15 ms, of which the products are 3; k = 28672, 15.7 TFLOP, 1.1 s (0.8 to 1.6), of which the blocks are 0.05. No dispatch
//! exceeds 256 × 28672² products, which `matmul_tn` cuts into two of at most 2³⁷: 27 ms at 10 TFLOP/s.

use super::Moments;
use crate::Result;
use crate::gpu::{Buffer, CommandList, Device};
use crate::ops::cholesky_block::{BLOCK, DiagonalBlock, cholesky_block};
use crate::ops::matmul_tn::{Product, Window, matmul_tn};
use crate::ops::turn_factor::turn_factor;
use crate::ops::unit_diagonal::unit_diagonal;
use crate::ops::{TallMatrix, Tensor};

/// Rows whose products reach all rows below together. Each such product reads and writes the whole rest once: 64 operations a
/// byte.
const PANEL: usize = 256;

/// A matrix to become a factor, with what each attempt needs.
pub(super) struct Attempt {
    matrix: TallMatrix,
    order: Buffer,
    scale: Buffer,
    pivots: Buffer,
    panel: Tensor,
    inverse: Tensor,
}

impl Attempt {
    /// Memory for the factor of `moments`.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub(super) fn new(moments: &Moments<'_>) -> Result<Self> {
        let (device, k) = (moments.matrix.device(), moments.order.len());
        let label = format!("{}.factor", moments.name);
        let reversed: Vec<u32> = moments.order.iter().rev().copied().collect();
        let vector = |name: &str| device.alloc(&format!("{label}: {name}"), 4 * k as u64);
        let matrix = TallMatrix::zeros(device, &label, k, k)?;
        Ok(Self {
            order: device.upload(&format!("{label}: order"), &reversed)?,
            scale: vector("scale")?,
            pivots: vector("pivots")?,
            panel: Tensor::zeros(device, &format!("{label}: rows"), PANEL.min(k).min(matrix.slab_rows()), k)?,
            inverse: Tensor::zeros(device, &format!("{label}: block"), BLOCK, BLOCK)?,
            matrix,
        })
    }

    /// Makes L⁻¹ of the matrix with `amount` added to its diagonal, and its pivots: how much of each value of M's diagonal, 1, is
    /// left when its turn comes. `None` when a value of the diagonal is not positive even so.
    ///
    /// # Errors
    /// As the device reports.
    pub(super) fn run(&mut self, moments: &Moments<'_>, amount: f64) -> Result<Option<Vec<f32>>> {
        let device = self.device();
        let damped = |&feature: &u32| f64::from(moments.diagonal[feature as usize]) + amount;
        if moments.order.iter().map(damped).any(|value| value.is_nan() || value <= 0.0) {
            return Ok(None);
        }
        let scale: Vec<f32> =
            moments.order.iter().rev().map(|feature| damped(feature).sqrt().recip() as f32).collect();
        device.write(&self.scale, 0, &scale)?;
        let mut list = CommandList::new(&device, format!("{}: scaled Hessian", moments.name));
        unit_diagonal(&mut list, moments.matrix, &self.order, &self.scale, &self.matrix)?;
        list.run()?;
        for (first, slab) in self.matrix.slabs() {
            for row in (0..slab.rows()).step_by(PANEL) {
                let mut list = CommandList::new(&device, format!("{}: factor", moments.name));
                let size = PANEL.min(slab.rows() - row);
                self.eliminate(&mut list, Rows { slab, row, first: first + row, size })?;
                list.run()?;
            }
        }
        device.read(&self.pivots, 0, scale.len()).map(Some)
    }

    /// U of L⁻¹.
    ///
    /// # Errors
    /// As the device reports.
    pub(super) fn finish(self) -> Result<TallMatrix> {
        let mut list = CommandList::new(&self.device(), "factor: turned");
        turn_factor(&mut list, &self.matrix, &self.scale)?;
        list.run()?;
        Ok(self.matrix)
    }

    fn device(&self) -> Device {
        self.matrix.device().clone()
    }

    /// Finishes `rows` and takes them from all rows below.
    fn eliminate(&self, list: &mut CommandList, rows: Rows<'_>) -> Result<()> {
        let Rows { slab, row, first, size } = rows;
        let k = self.matrix.cols();
        let blocks: Vec<(usize, usize)> =
            (0..size).step_by(BLOCK).map(|at| (at, BLOCK.min(size - at))).collect();
        for &(at, width) in &blocks {
            let block = DiagonalBlock { matrix: slab, row: row + at, col: first + at, size: width };
            cholesky_block(list, &block, &self.inverse, &self.pivots)?;
            let solved = Product {
                a: Window::whole(&self.inverse),
                b: Window { matrix: slab, row: row + at, col: 0 },
                c: Window { matrix: &self.panel, row: at, col: 0 },
                rows: width,
                m: width,
                n: k,
                alpha: 1.0,
                beta: 0.0,
                weights: None,
                upper: false,
            };
            matmul_tn(list, &solved)?;
            let below =
                Rows { slab, row: row + at + width, first: first + at + width, size: size - at - width };
            self.subtract(list, below, first + at, &[(at, width)], (at, width))?;
        }
        let bytes = (4 * size * k) as u64;
        list.copy(self.panel.buffer(), 0, slab.buffer(), (4 * row * k) as u64, bytes)?;
        let end = first + size;
        for (slab_first, slab) in self.matrix.slabs().filter(|(at, slab)| at + slab.rows() > end) {
            let row = end.saturating_sub(slab_first);
            let below = Rows { slab, row, first: slab_first + row, size: slab.rows() - row };
            self.subtract(list, below, first, &blocks, (0, size))?;
        }
        Ok(())
    }

    /// Takes `count` rows of the panel from number `at` on, which belong to the columns from `column` on and consist of `blocks`
    /// (first row, rows), from rows below them.
    fn subtract(
        &self,
        list: &mut CommandList,
        below: Rows<'_>,
        column: usize,
        blocks: &[(usize, usize)],
        (at, count): (usize, usize),
    ) -> Result<()> {
        let Rows { slab, row, first, size } = below;
        let k = self.matrix.cols();
        if size == 0 {
            return Ok(());
        }
        // slab[row.., from..from + n] = beta·itself − Σ over panel rows from `skip` on.
        let mut product = |skip: usize, (from, n): (usize, usize), beta: f32, upper: bool| {
            let product = Product {
                a: Window { matrix: &self.panel, row: at + skip, col: first },
                b: Window { matrix: &self.panel, row: at + skip, col: from },
                c: Window { matrix: slab, row, col: from },
                rows: count - skip,
                m: size,
                n,
                alpha: -1.0,
                beta,
                weights: None,
                upper,
            };
            matmul_tn(list, &product)
        };
        if column > 0 {
            product(0, (0, column), 1.0, false)?;
        }
        // L⁻¹ begins: what is in the matrix there means nothing, and rows of the panel before a block have none of it.
        for &(block, width) in blocks {
            product(block - at, (column + block - at, width), 0.0, false)?;
        }
        product(0, (first, k - first), 1.0, true)
    }
}

/// Some rows of a slab: from `row` on there, from `first` on in the matrix.
#[derive(Clone, Copy)]
struct Rows<'a> {
    slab: &'a Tensor,
    row: usize,
    first: usize,
    size: usize,
}
