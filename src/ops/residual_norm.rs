//! From one product to the next through the residual stream; see `shaders/residual_norm.wgsl`.

use super::activation::{Activation, Partial};
use super::{QuantGroup, Tensor, with_reduce};
use crate::gpu::{Arithmetic, Buffer, Capabilities, CommandList, Device, Variant};
use crate::{Error, Result};

/// Lanes of a workgroup: few, so that the gathering of a row is spread over many.
const LANES: u32 = 32;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    columns: u32,
}

fn variant(form: Arithmetic, sums: usize, capabilities: &Capabilities) -> Variant {
    form.put(with_reduce(
        Variant::new("residual_norm").prologue(&format!("const SUMS: u32 = {sums}u;")).constant("WG", LANES),
        capabilities,
    ))
}

pub(super) fn variants(capabilities: &Capabilities) -> Vec<Variant> {
    let sums = [0, 1, 2, 4, 8, 16];
    Arithmetic::ALL.into_iter().flat_map(|form| sums.map(|sums| variant(form, sums, capabilities))).collect()
}

/// The half of a norm that a product does after it: sums of squares of its rows, by workgroup.
pub struct RowNorm {
    squares: Buffer,
    eps: f32,
}

impl RowNorm {
    /// Room for `rows` rows of `cols` values.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn new(device: &Device, rows: usize, cols: usize, eps: f32) -> Result<Self> {
        let bytes = 4 * (rows * Self::parts(cols)) as u64;
        Ok(Self { squares: device.alloc("squares", bytes)?, eps })
    }

    /// Parts of a row of `cols` values.
    pub fn parts(cols: usize) -> usize {
        cols.div_ceil(4 * LANES as usize)
    }

    /// What is added to the mean of squares.
    pub(super) fn eps(&self) -> f32 {
        self.eps
    }

    /// f32 [rows, parts].
    pub fn squares(&self) -> &Buffer {
        &self.squares
    }

    pub(super) fn expect(&self, operation: &str, rows: usize, cols: usize) -> Result<()> {
        let needed = 4 * (rows * Self::parts(cols)) as u64;
        if self.squares.bytes() < needed {
            let message = format!("squares of {} bytes for {needed}", self.squares.bytes());
            return Err(Error::shape(operation, message));
        }
        Ok(())
    }
}

/// What the last product left: its sums, their number (0: nothing) and the columns of a row.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    /// The sums.
    pub partial: &'a Partial,
    /// How many are to be added.
    pub sums: usize,
    /// Columns of the product, padding included.
    pub columns: usize,
}

impl Left<'_> {
    /// Whether the sums of `rows` rows are there, in a number that kernels add.
    pub(super) fn fits(&self, rows: usize) -> bool {
        let needed = 4 * (self.sums * rows * self.columns) as u64;
        self.partial.buffer().bytes() >= needed
            && (self.sums == 0 || self.sums.is_power_of_two())
            && self.sums <= 16
    }
}

/// next = hidden + what `left` tells; x = next · weight for `group`, in its orders; the squares of next to `norm`.
/// hidden, next: [rows, k]; weight [1, k].
///
/// # Errors
/// [`Error::Shape`] when the shapes differ; as [`CommandList::dispatch`].
#[expect(clippy::too_many_arguments, reason = "each is an operand; a struct would only rename them")]
pub fn residual_norm(
    list: &mut CommandList,
    hidden: &Tensor,
    left: Left<'_>,
    weight: &Tensor,
    next: &Tensor,
    group: &QuantGroup,
    norm: &RowNorm,
    x: &Activation,
    rows: usize,
) -> Result<()> {
    let cols = group.k();
    hidden.expect("residual_norm", rows, cols)?;
    next.expect("residual_norm", rows, cols)?;
    weight.expect("residual_norm", 1, cols)?;
    x.expect("residual_norm", group, rows)?;
    norm.expect("residual_norm", rows, cols)?;
    if !left.fits(rows) || left.sums > 0 && left.columns < cols {
        let message = format!("{} parts of {} columns for {cols}", left.sums, left.columns);
        return Err(Error::shape("residual_norm", message));
    }
    let kernel = list.device().kernel(&variant(x.form(), left.sums, list.device().capabilities()))?;
    let params = Params { rows: rows as u32, cols: cols as u32, columns: left.columns as u32 };
    let buffers = [
        hidden.buffer(),
        left.partial.buffer(),
        weight.buffer(),
        group.orders(),
        next.buffer(),
        norm.squares(),
        x.buffer(),
    ];
    let grid = [RowNorm::parts(cols) as u32, rows as u32, group.copies() as u32];
    list.dispatch(&kernel, &buffers, &params, grid)
}
