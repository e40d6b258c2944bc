//! Rounding with error feedback inside a group; see `shaders/gptq_group.wgsl`.

use super::Tensor;
use super::scale_search::{GroupRows, ScaleSearch};
use crate::gpu::{Buffer, CommandList, Variant};
use crate::{Error, Result};

/// The most rows that one dispatch rounds; a larger group is rounded in pieces.
pub const MOST_ROWS: usize = 128;

/// Where the results of [`gptq_group`] go.
#[derive(Clone, Copy)]
pub struct Rounded<'a> {
    /// u32 [rows, columns]: codes.
    pub codes: &'a Buffer,
    /// [rows, columns]: (w − decoded) / U[r, r].
    pub errors: &'a Tensor,
    /// Halves in pairs [columns, k / 2]: decoded weights, k in packed order.
    pub decoded: &'a Buffer,
    /// f32: from `sum` on, a sum of squared errors for every 32 columns.
    pub sums: &'a Buffer,
    /// Number of the first sum.
    pub sum: usize,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    first: u32,
    rows: u32,
    n: u32,
    k: u32,
    u_first: u32,
    u_pitch: u32,
    column: u32,
    group: u32,
    sum: u32,
    zero: f32,
}

pub(super) fn variant() -> Variant {
    Variant::new("gptq_group")
}

/// Rounds the rows, at most [`MOST_ROWS`] of a group whose scales are picked. `factor` holds U from row `factor_row` on
/// for the row `rows.first`, over all k columns.
///
/// # Errors
/// [`Error::Shape`] when a buffer is too small; as [`CommandList::dispatch`].
pub fn gptq_group(
    list: &mut CommandList,
    search: &ScaleSearch,
    rows: &GroupRows<'_>,
    (factor, factor_row): (&Tensor, usize),
    out: &Rounded<'_>,
) -> Result<()> {
    rows.check("gptq_group", search)?;
    let (k, n) = (rows.weights.rows(), rows.weights.cols());
    factor.expect("gptq_group", factor_row + rows.rows, k)?;
    out.errors.expect("gptq_group", rows.rows, n)?;
    let fits = out.codes.bytes() >= 4 * (rows.rows * n) as u64
        && out.decoded.bytes() >= 2 * (k * n) as u64
        && out.sums.bytes() >= 4 * (out.sum + n / 32) as u64;
    if !fits || rows.rows > MOST_ROWS || !(k | rows.first | rows.column).is_multiple_of(8) {
        let message = format!(
            "{} rows of {MOST_ROWS} at most from {} on, {n} columns: no multiples of eight, or a buffer is too small",
            rows.rows, rows.first
        );
        return Err(Error::shape("gptq_group", message));
    }
    let kernel = list.device().kernel(&variant())?;
    let params = Params {
        first: rows.first as u32,
        rows: rows.rows as u32,
        n: n as u32,
        k: k as u32,
        u_first: ((factor_row * k + rows.first) / 4) as u32,
        u_pitch: k as u32 / 4,
        column: rows.column as u32,
        group: rows.group as u32,
        sum: out.sum as u32,
        zero: rows.zero(),
    };
    let buffers = [
        rows.weights.buffer(),
        factor.buffer(),
        &search.codes,
        &search.picked,
        out.codes,
        out.errors.buffer(),
        out.decoded,
        out.sums,
    ];
    list.dispatch(&kernel, &buffers, &params, [n as u32 / 32, 1, 1])
}
