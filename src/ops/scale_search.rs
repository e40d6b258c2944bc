//! Search for the scales of one group of rows; see `shaders/{column_max,scale_error,scale_pick}.wgsl`.
//!
//! Three steps, each over all columns before the next: [`column_max`] of every slab of columns, [`scale_error`] of
//! every slab, [`scale_pick`] once.

use super::Tensor;
use crate::gpu::{Buffer, CommandList, Device, Variant};
use crate::{Error, Result};

/// Multipliers of the scales that are tried.
const STEPS: usize = 97;

/// Workgroups of one `scale_error`, each leaving a partial sum.
const MOST_PARTS: usize = 512;

/// Multiplier `step` of 97, from 0.70 to 1.20, in single precision (ExLlamaV2 0.3.2).
fn multiplier(step: usize) -> f32 {
    let part = step as f32 / (STEPS - 1) as f32;
    0.70 * (1.0 - part) + 1.20 * part
}

/// What the search leaves for the other kernels of a matrix, and its scratch.
pub struct ScaleSearch {
    pub(super) columns: usize,
    pub(super) groups: usize,
    /// f32 `[columns]`: of the group searched last, the scale with which each column's largest weight would just fit.
    pub base: Buffer,
    /// u32 [groups, 4]: bits of the largest of `base`, half bits of scale_max, bits of the group maximum as f32, number
    /// of the multiplier.
    pub picked: Buffer,
    /// u32 `[columns]`: of the group searched last, each column's scale code, 1..=16.
    pub codes: Buffer,
    pub(super) largest: Buffer,
    multipliers: Buffer,
    /// f32 [.., 97]: partial sums of the errors of the group searched last, divided by largest^3.5.
    pub parts: Buffer,
    part_count: usize,
}

/// Rows of one group in a slab of columns.
#[derive(Clone, Copy)]
pub struct GroupRows<'a> {
    /// Weights [k, columns of the slab].
    pub weights: &'a Tensor,
    /// Number of the slab's first column in the matrix.
    pub column: usize,
    /// The group's first row.
    pub first: usize,
    /// Its rows, a multiple of 32.
    pub rows: usize,
    /// The group's number.
    pub group: usize,
    /// Its width.
    pub bits: u32,
}

impl GroupRows<'_> {
    pub(super) fn zero(&self) -> f32 {
        (1_u32 << (self.bits - 1)) as f32
    }

    pub(super) fn check(&self, operation: &str, search: &ScaleSearch) -> Result<()> {
        let inside = self.first + self.rows <= self.weights.rows()
            && self.column + self.weights.cols() <= search.columns
            && self.group < search.groups;
        if inside && (self.rows | self.weights.cols()).is_multiple_of(32) && (2..=8).contains(&self.bits) {
            return Ok(());
        }
        let message = format!(
            "group {} of {}: {} rows of {} bits from {} of [{}, {}], columns from {} of {}",
            self.group,
            search.groups,
            self.rows,
            self.bits,
            self.first,
            self.weights.rows(),
            self.weights.cols(),
            self.column,
            search.columns
        );
        Err(Error::shape(operation, message))
    }
}

impl ScaleSearch {
    /// For a matrix whose columns are in slabs of the given widths, of `groups` groups of at most `most_rows` rows.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn new(device: &Device, slabs: &[usize], groups: usize, most_rows: usize) -> Result<Self> {
        let columns: usize = slabs.iter().sum();
        let multipliers: Vec<f32> = (0..STEPS).map(multiplier).collect();
        let parts: usize = slabs.iter().map(|&width| part_count(width, most_rows)).sum();
        Ok(Self {
            columns,
            groups,
            base: device.alloc("scale base", 4 * columns as u64)?,
            codes: device.alloc("scale codes", 4 * columns as u64)?,
            picked: device.alloc("picked scales", 16 * groups as u64)?,
            largest: device.alloc("largest scales", 4 * groups as u64)?,
            multipliers: device.upload("scale multipliers", &multipliers)?,
            parts: device.alloc("scale errors", (4 * STEPS * parts) as u64)?,
            part_count: 0,
        })
    }
}

/// Partial sums of one slab: one of each tile of 32 rows by 32 columns, up to a limit.
fn part_count(columns: usize, rows: usize) -> usize {
    (columns / 32 * (rows / 32)).min(MOST_PARTS)
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct MaxParams {
    first: u32,
    rows: u32,
    pitch: u32,
    column: u32,
    group: u32,
    top: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ErrorParams {
    first: u32,
    rows: u32,
    pitch: u32,
    column: u32,
    group: u32,
    part: u32,
    zero: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct PickParams {
    count: u32,
    group: u32,
}

pub(super) fn variants() -> [Variant; 3] {
    ["column_max", "scale_error", "scale_pick"].map(Variant::new)
}

/// Scales that just fit, of the group's columns in this slab. A list may search each group once.
///
/// # Errors
/// [`Error::Shape`] when the rows leave the matrix; as [`CommandList::dispatch`].
pub fn column_max(list: &mut CommandList, search: &ScaleSearch, rows: &GroupRows<'_>) -> Result<()> {
    rows.check("column_max", search)?;
    let [variant, _, _] = variants();
    let kernel = list.device().kernel(&variant)?;
    let params = MaxParams {
        first: rows.first as u32,
        rows: rows.rows as u32,
        pitch: rows.weights.cols() as u32,
        column: rows.column as u32,
        group: rows.group as u32,
        top: rows.zero() - 0.5,
    };
    let buffers = [rows.weights.buffer(), &search.base, &search.largest];
    list.dispatch(&kernel, &buffers, &params, [rows.weights.cols() as u32 / 32, 1, 1])
}

/// Errors of the group's part in this slab for each multiplier, and the codes of its columns.
///
/// # Errors
/// [`Error::Shape`] when the rows leave the matrix; as [`CommandList::dispatch`].
pub fn scale_error(list: &mut CommandList, search: &mut ScaleSearch, rows: &GroupRows<'_>) -> Result<()> {
    rows.check("scale_error", search)?;
    let [_, variant, _] = variants();
    let kernel = list.device().kernel(&variant)?;
    let parts = part_count(rows.weights.cols(), rows.rows);
    if search.parts.bytes() < (4 * STEPS * (search.part_count + parts)) as u64 {
        let message = format!("group {} has more rows than the search was made for", rows.group);
        return Err(Error::shape("scale_error", message));
    }
    let params = ErrorParams {
        first: rows.first as u32,
        rows: rows.rows as u32,
        pitch: rows.weights.cols() as u32,
        column: rows.column as u32,
        group: rows.group as u32,
        part: search.part_count as u32,
        zero: rows.zero(),
    };
    search.part_count += parts;
    let buffers = [rows.weights.buffer(), &search.base, &search.largest, &search.parts, &search.codes];
    list.dispatch(&kernel, &buffers, &params, [parts as u32, 1, 1])
}

/// The group's scales, from the errors of all slabs.
///
/// # Errors
/// As [`CommandList::dispatch`].
pub fn scale_pick(list: &mut CommandList, search: &mut ScaleSearch, group: usize) -> Result<()> {
    let [_, _, variant] = variants();
    let kernel = list.device().kernel(&variant)?;
    let params = PickParams { count: std::mem::take(&mut search.part_count) as u32, group: group as u32 };
    let buffers = [&search.parts, &search.largest, &search.multipliers, &search.picked];
    list.dispatch(&kernel, &buffers, &params, [1, 1, 1])
}
