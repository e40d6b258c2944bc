//! Codes to the words of a packed matrix; see `shaders/pack.wgsl`.

use super::scale_search::{GroupRows, ScaleSearch};
use crate::gpu::{Buffer, CommandList, Variant};
use crate::{Error, Result};

const SCALES: u32 = 1;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    n: u32,
    bits: u32,
    word: u32,
    column: u32,
    group: u32,
    flags: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("pack")
}

/// Packs `codes`, u32 [rows.rows, columns], into the file's `words` u32 [word rows, columns] from row `word` on; with
/// `with_scales` also the group's scale codes into `scales`, u32 [groups, columns / 8].
///
/// # Errors
/// [`Error::Shape`] when a buffer is too small; as [`CommandList::dispatch`].
pub fn pack(
    list: &mut CommandList,
    search: &ScaleSearch,
    rows: &GroupRows<'_>,
    codes: &Buffer,
    (words, word): (&Buffer, usize),
    (scales, with_scales): (&Buffer, bool),
) -> Result<()> {
    rows.check("pack", search)?;
    let n = rows.weights.cols();
    let blocks = rows.rows / 32;
    let fits = codes.bytes() >= 4 * (rows.rows * n) as u64
        && words.bytes() >= 4 * ((word + blocks * rows.bits as usize) * n) as u64
        && scales.bytes() >= ((rows.group + 1) * n / 2) as u64;
    if !fits {
        let message =
            format!("{} rows of {} bits, {n} columns: the buffers are too small", rows.rows, rows.bits);
        return Err(Error::shape("pack", message));
    }
    let kernel = list.device().kernel(&variant())?;
    let params = Params {
        rows: rows.rows as u32,
        n: n as u32,
        bits: rows.bits,
        word: word as u32,
        column: rows.column as u32,
        group: rows.group as u32,
        flags: if with_scales { SCALES } else { 0 },
    };
    let grid = [n as u32 / 32, blocks.div_ceil(8) as u32, 1];
    list.dispatch(&kernel, &[codes, &search.codes, words, scales], &params, grid)
}
