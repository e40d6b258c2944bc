//! A few rows times a group of packed linears; see `shaders/group_gemv.wgsl`.

use super::activation::{Activation, Partial};
use super::quant_group::QuantGroup;
use super::{RowNorm, gemv_text};
use crate::gpu::{Arithmetic, Capabilities, CommandList, Variant};
use crate::packing::BLOCK_ROWS;
use crate::{Error, Result};

/// Most rows of a product; variants exist for each power of two up to here.
pub const MOST_ROWS: usize = 8;

/// Slices of K that a workgroup makes: with 256 lanes. Sixteen were 0 to 4 % slower on an H100.
const SLICES: usize = 8;

/// Most parts that are left to a consumer: on an H100 adding sixteen costs it 3 µs more than eight, which no product gains.
const MOST_SUMS: usize = 8;

/// Subgroups of 32 lanes that keep a large card busy: between 2000 and 5500 on an H100.
const BUSY: usize = 5300;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    slices: u32,
    x_row: u32,
    steps: u32,
    cols4: u32,
    flags: u32,
    parts: u32,
    k: u32,
    eps: f32,
    tile4: u32,
}

fn variant(form: Arithmetic, rows: usize, slices: usize) -> Variant {
    let enable = if form == Arithmetic::Pairs { "enable f16;\n" } else { "" };
    let prologue = format!("{enable}const ROWS: u32 = {rows}u;\nconst SLICES: u32 = {slices}u;\n// {form}");
    Variant::new("group_gemv")
        .prologue(&prologue)
        .generated("generated/group_gemv.wgsl", gemv_text::text(form, rows, slices))
}

/// Every variant that these capabilities allow.
pub(super) fn variants(capabilities: &Capabilities) -> Vec<Variant> {
    let mut all = Vec::new();
    for form in Arithmetic::ALL.into_iter().filter(|&form| capabilities.allow(form)) {
        for rows in [1, 2, 4, MOST_ROWS] {
            all.extend([1, 2, 4, SLICES].map(|slices| variant(form, rows, slices)));
        }
    }
    all
}

/// Slices of K for a product of `columns` columns and `k` rows: a power of two that depends on the shape alone, so that
/// the order of additions does not change from card to card.
fn slices(k: usize, columns: usize) -> usize {
    let tiles = columns.div_ceil(super::group_table::TILE);
    let blocks = k / BLOCK_ROWS;
    let wanted = (BUSY / tiles.max(1)).clamp(1, blocks.min(SLICES * MOST_SUMS));
    1 << wanted.ilog2()
}

/// Slices of one workgroup, and workgroups over K: (slices of a workgroup, parts left to the consumer).
fn geometry(k: usize, columns: usize) -> (usize, usize) {
    let slices = slices(k, columns);
    let of_workgroup = slices.min(SLICES);
    (of_workgroup, slices / of_workgroup)
}

/// Parts that [`group_gemv`] leaves for a group of this shape: 1, 2, 4 or 8.
pub fn sums(k: usize, columns: usize) -> usize {
    geometry(k, columns).1
}

/// `out[s, r, ·]`: parts of x·W (+ bias) of all members of `group` side by side, `sums(…)` of them, over `rows` rows (1, 2, 4
/// or 8). With `norm`, x is the product of values and weights of a norm, and the sums are divided by the row's
/// root mean square.
///
/// # Errors
/// [`Error::Shape`] when a buffer is too small or the number of rows is none of those; as [`CommandList::dispatch`].
pub fn group_gemv(
    list: &mut CommandList,
    x: &Activation,
    group: &QuantGroup,
    norm: Option<&RowNorm>,
    out: &Partial,
    rows: usize,
) -> Result<()> {
    let device = list.device().clone();
    let (k, columns) = (group.k(), group.columns());
    let (of_workgroup, sums) = geometry(k, columns);
    x.expect("group_gemv", group, rows)?;
    if !rows.is_power_of_two()
        || rows > MOST_ROWS
        || out.buffer().bytes() < 4 * (sums * rows * columns) as u64
    {
        let message = format!("{rows} rows of {columns} in {sums} parts into {} bytes", out.buffer().bytes());
        return Err(Error::shape("group_gemv", message));
    }
    if let Some(norm) = norm {
        norm.expect("group_gemv", rows, k)?;
    }
    let kernel = device.kernel(&variant(x.form(), rows, of_workgroup))?;
    let params = |stride: usize| Params {
        slices: (of_workgroup * sums) as u32,
        x_row: x.form().row_words(k) as u32 / 4,
        steps: x.form().value_words(k) as u32 / 4,
        cols4: columns as u32 / 4,
        flags: u32::from(group.bias().is_some()),
        parts: norm.map_or(0, |_| RowNorm::parts(k) as u32),
        k: k as u32,
        eps: norm.map_or(0.0, RowNorm::eps),
        tile4: stride as u32 / 4,
    };
    for sheet in group.sheets() {
        let buffers = [
            x.buffer(),
            &sheet.words,
            &sheet.scales,
            &sheet.maxima,
            &sheet.table,
            group.bias().unwrap_or(&sheet.maxima),
            norm.map_or(&sheet.maxima, RowNorm::squares),
            out.buffer(),
        ];
        list.dispatch(&kernel, &buffers, &params(sheet.stride), [sheet.tiles as u32, sums as u32, 1])?;
    }
    Ok(())
}
