//! A few rows times a group of packed linears; see `shaders/group_gemv.wgsl`.

use super::activation::{Activation, Partial};
use super::group_geometry::{Split, split};
use super::quant_group::QuantGroup;
use super::{RowNorm, gemv_text};
use crate::gpu::{Arithmetic, Capabilities, CommandList, Variant};
use crate::{Error, Result};

/// Most rows of a product; variants exist for each power of two up to here.
pub const MOST_ROWS: usize = 8;

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
    pieces: u32,
}

/// Where the kernel finds its table.
#[derive(Clone, Copy)]
struct Room {
    /// Among the immediates.
    listed: bool,
    /// Words that the immediates have for it.
    words: usize,
}

impl Room {
    /// For a table of `words` words where immediates have `bytes` bytes in all.
    fn of(words: usize, bytes: usize) -> Self {
        let most = bytes.saturating_sub(size_of::<Params>()) / 4;
        if words <= most { Self { listed: true, words: most } } else { Self { listed: false, words: 1 } }
    }
}

fn variant(form: Arithmetic, rows: usize, slices: usize, table: Room) -> Variant {
    let Room { listed, words } = table;
    let enable = if form == Arithmetic::Pairs { "enable f16;\n" } else { "" };
    let prologue = format!(
        "{enable}const ROWS: u32 = {rows}u;\nconst SLICES: u32 = {slices}u;\nconst LISTED: bool = {listed};\n\
         const TABLED: u32 = {words}u;\n// {form}"
    );
    Variant::new("group_gemv")
        .prologue(&prologue)
        .generated("generated/group_gemv.wgsl", gemv_text::text(form, rows, slices))
}

/// Those that these capabilities allow and the smallest device may run: every number of slices up to eight with its table in storage, and eight with it among 128
/// bytes of immediates.
pub(super) fn variants(capabilities: &Capabilities) -> Vec<Variant> {
    let (stored, listed) = (Room::of(usize::MAX, 0), Room::of(0, 128));
    let mut all = Vec::new();
    for form in Arithmetic::ALL.into_iter().filter(|&form| capabilities.allow(form)) {
        for rows in [1, 2, 4, MOST_ROWS] {
            all.extend([1, 2, 4, 8].map(|slices| variant(form, rows, slices, stored)));
            all.push(variant(form, rows, 8, listed));
        }
    }
    all
}

/// `out[s, r, ·]`: parts of x·W (+ bias) of all members of `group` side by side, as many of them as [`super::group_geometry::sums`] says, over `rows` rows (1, 2, 4
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
    let Split { slices, of_workgroup } = split(&device, k, columns);
    let sums = slices / of_workgroup;
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
    let params = |pieces: usize| Params {
        slices: slices as u32,
        x_row: x.form().row_words(k) as u32 / 4,
        steps: x.form().value_words(k) as u32 / 4,
        cols4: columns as u32 / 4,
        flags: u32::from(group.bias().is_some()),
        parts: norm.map_or(0, |_| RowNorm::parts(k) as u32),
        k: k as u32,
        eps: norm.map_or(0.0, RowNorm::eps),
        pieces: pieces as u32,
    };
    for sheet in group.sheets() {
        let buffers = [
            x.buffer(),
            &sheet.words,
            &sheet.scales,
            &sheet.maxima,
            &sheet.stored,
            group.bias().unwrap_or(&sheet.maxima),
            norm.map_or(&sheet.maxima, RowNorm::squares),
            out.buffer(),
        ];
        let table = &sheet.table;
        let room = Room::of(table.words.len(), device.max_immediate_bytes());
        let kernel = device.kernel(&variant(x.form(), rows, of_workgroup, room))?;
        let params = params(table.pieces);
        let mut immediates = bytemuck::bytes_of(&params).to_vec();
        if room.listed {
            immediates.extend(bytemuck::cast_slice::<u32, u8>(&table.words));
        }
        immediates.resize(size_of::<Params>() + 4 * room.words, 0);
        list.dispatch_bytes(&kernel, &buffers, &immediates, [table.tiles as u32, sums as u32, 1])?;
    }
    Ok(())
}
