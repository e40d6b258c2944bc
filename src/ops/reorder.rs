//! Packed words from the file's order into the device's; see `shaders/reorder.wgsl`.

use super::unpack;
use crate::gpu::{Buffer, CommandList, Variant};
use crate::packing::{BLOCK_ROWS, Layout};
use crate::{Error, Result};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    n: u32,
    blocks: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("reorder").generated("generated/reorder.wgsl", unpack::reorder_text())
}

/// Reorders `words` [`layout.word_rows()`, columns] in place; `blocks` is the layout's table on the device.
///
/// # Errors
/// [`Error::Shape`] when the words are fewer or the columns no multiple of 32; as [`CommandList::dispatch`].
pub fn reorder(
    list: &mut CommandList,
    layout: &Layout,
    blocks: &Buffer,
    words: &Buffer,
    columns: usize,
) -> Result<()> {
    if words.bytes() < 4 * (layout.word_rows() * columns) as u64 || !columns.is_multiple_of(32) {
        let message = format!("{} bytes for {} words of {columns}", words.bytes(), layout.word_rows());
        return Err(Error::shape("reorder", message));
    }
    let kernel = list.device().kernel(&variant())?;
    let count = (layout.rows() / BLOCK_ROWS) as u32;
    let grid = [columns as u32 / 32, count.div_ceil(8), 1];
    list.dispatch(&kernel, &[blocks, words], &Params { n: columns as u32, blocks: count }, grid)
}
