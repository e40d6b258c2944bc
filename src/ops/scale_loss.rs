//! Search for the scales of one group of rows by what rounding with them costs; see
//! `shaders/{scale_loss,scale_choose}.wgsl`.
//!
//! Three steps, each over all columns before the next: [`super::scale_search::column_max`] of every slab of columns,
//! [`scale_loss`] of every slab, [`scale_choose`] once. They leave what `scale_error` and `scale_pick` leave.

use super::Tensor;
use super::gptq_group::MOST_ROWS;
use super::scale_search::{GroupRows, ScaleSearch};
use crate::gpu::{Buffer, CommandList, Device, Variant};
use crate::{Error, Result};

/// Group maxima that are tried.
pub const TRIED: usize = 5;

/// Widths of weights, 2 to 8.
const WIDTHS: usize = 7;

/// Pairs of columns in a block of 32.
const PAIRS: u32 = 16;

/// The maxima tried for weights of a width, as multiples of the scale with which the group's largest weight just fits:
/// a geometric row. Few codes gain by cutting off large weights, many do not. In groups of five of SmolLM2-135M's linears
/// (made-up inputs, double precision) the best was 0.24 to 0.74 at 2 bits, 0.44 to 0.74 at 3, 0.55 to 0.86 at 4, 0.74 to
/// 1.0 at 5, 0.93 to 1.16 at 6 and 8. At 2 and 3 bits a factor of 1.25 off that costs less than 1 %: columns make up for it
/// with their codes.
fn multipliers(bits: u32) -> [f32; TRIED] {
    let (least, most) = match bits {
        ..=2 => (0.25_f64, 0.9_f64),
        3 => (0.4, 1.0),
        4 => (0.5, 1.05),
        5 => (0.6, 1.15),
        _ => (0.8, 1.2),
    };
    std::array::from_fn(|tried| (least * (most / least).powf(tried as f64 / (TRIED - 1) as f64)) as f32)
}

/// Scratch of the search.
pub struct LossSearch {
    /// f32 [TRIED, columns]: of the group searched last, each column's least loss with each maximum.
    pub losses: Buffer,
    /// u32 [TRIED, columns]: the scale codes 1..=16 that have it.
    pub best: Buffer,
    /// f32 [7, TRIED]: by width from 2 bits on, multiples of the group's largest scale.
    pub multipliers: Buffer,
}

impl LossSearch {
    /// For a matrix of so many columns.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn new(device: &Device, columns: usize) -> Result<Self> {
        let multipliers: Vec<f32> = (2..).take(WIDTHS).flat_map(multipliers).collect();
        Ok(Self {
            losses: device.alloc("scale losses", (4 * TRIED * columns) as u64)?,
            best: device.alloc("best scales", (4 * TRIED * columns) as u64)?,
            multipliers: device.upload("maxima", &multipliers)?,
        })
    }

    fn expect(&self, operation: &str, columns: usize) -> Result<()> {
        if self.losses.bytes() >= (4 * TRIED * columns) as u64 {
            return Ok(());
        }
        Err(Error::shape(operation, format!("a search made for fewer than {columns} columns")))
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct LossParams {
    first: u32,
    rows: u32,
    n: u32,
    u_first: u32,
    u_pitch: u32,
    column: u32,
    columns: u32,
    group: u32,
    multipliers: u32,
    zero: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ChooseParams {
    fours: u32,
    group: u32,
    multipliers: u32,
}

pub(super) fn variants() -> [Variant; 2] {
    ["scale_loss", "scale_choose"].map(Variant::new)
}

/// Number of the first multiplier of a width.
fn first_multiplier(bits: u32) -> u32 {
    (bits - 2) * TRIED as u32
}

/// Losses of the group's columns in this slab. `factor` holds U from row `factor_row` on for the row `rows.first`, over
/// all k columns. Of a group of more than [`MOST_ROWS`] rows only the first that many are scored.
///
/// # Errors
/// [`Error::Shape`] when the rows leave the matrix or a buffer is too small; as [`CommandList::dispatch`].
pub fn scale_loss(
    list: &mut CommandList,
    search: &ScaleSearch,
    losses: &LossSearch,
    rows: &GroupRows<'_>,
    (factor, factor_row): (&Tensor, usize),
) -> Result<()> {
    rows.check("scale_loss", search)?;
    losses.expect("scale_loss", search.columns)?;
    let (k, n, scored) = (rows.weights.rows(), rows.weights.cols(), rows.rows.min(MOST_ROWS));
    factor.expect("scale_loss", factor_row + scored, k)?;
    if !(k | rows.first).is_multiple_of(4) {
        return Err(Error::shape("scale_loss", format!("row {} of {k}: no multiple of four", rows.first)));
    }
    let [variant, _] = variants();
    let kernel = list.device().kernel(&variant)?;
    let params = LossParams {
        first: rows.first as u32,
        rows: scored as u32,
        n: n as u32,
        u_first: ((factor_row * k + rows.first) / 4) as u32,
        u_pitch: k as u32 / 4,
        column: rows.column as u32,
        columns: search.columns as u32,
        group: rows.group as u32,
        multipliers: first_multiplier(rows.bits),
        zero: rows.zero(),
    };
    let buffers = [
        rows.weights.buffer(),
        factor.buffer(),
        &search.largest,
        &losses.multipliers,
        &losses.losses,
        &losses.best,
    ];
    list.dispatch(&kernel, &buffers, &params, [n as u32 / 32, PAIRS, TRIED as u32])
}

/// The group's scales, from the losses of all slabs. `bits` is the group's width.
///
/// # Errors
/// [`Error::Shape`] when there is no such group or width; as [`CommandList::dispatch`].
pub fn scale_choose(
    list: &mut CommandList,
    search: &ScaleSearch,
    losses: &LossSearch,
    group: usize,
    bits: u32,
) -> Result<()> {
    losses.expect("scale_choose", search.columns)?;
    if group >= search.groups || !(2..=8).contains(&bits) {
        let message = format!("group {group} of {}, {bits} bits", search.groups);
        return Err(Error::shape("scale_choose", message));
    }
    let [_, variant] = variants();
    let kernel = list.device().kernel(&variant)?;
    let params = ChooseParams {
        fours: search.columns as u32 / 4,
        group: group as u32,
        multipliers: first_multiplier(bits),
    };
    let buffers =
        [&losses.losses, &losses.best, &search.largest, &losses.multipliers, &search.picked, &search.codes];
    list.dispatch(&kernel, &buffers, &params, [1, 1, 1])
}
