//! Gated activation between two products; see `shaders/swiglu_gather.wgsl`.

use super::activation::Activation;
use super::residual_norm::Left;
use super::{ELEMENTWISE, QuantGroup};
use crate::gpu::{Arithmetic, CommandList, Variant};
use crate::{Error, Result};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    columns: u32,
    up: u32,
}

fn variant(form: Arithmetic, sums: usize) -> Variant {
    form.put(
        Variant::new("swiglu_gather")
            .prologue(&format!("const SUMS: u32 = {sums}u;"))
            .constant("WG", ELEMENTWISE),
    )
}

pub(super) fn variants() -> Vec<Variant> {
    let sums = [1, 2, 4, 8, 16];
    Arithmetic::ALL.into_iter().flat_map(|form| sums.map(|sums| variant(form, sums))).collect()
}

/// x = silu(gate) · up for `group`, in its one order; `left` has gate in the columns from 0 and up in those from `up`.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ or the group takes several orders; as [`CommandList::dispatch`].
pub fn swiglu_gather(
    list: &mut CommandList,
    left: Left<'_>,
    up: usize,
    group: &QuantGroup,
    x: &Activation,
    rows: usize,
) -> Result<()> {
    let cols = group.k();
    x.expect("swiglu_gather", group, rows)?;
    let fits = left.fits(rows) && up >= cols && up + cols <= left.columns;
    if !fits || group.copies() != 1 || left.sums == 0 {
        let message = format!("{cols} values from {} columns, {} orders", left.columns, group.copies());
        return Err(Error::shape("swiglu_gather", message));
    }
    let kernel = list.device().kernel(&variant(x.form(), left.sums))?;
    let params = Params { rows: rows as u32, cols: cols as u32, columns: left.columns as u32, up: up as u32 };
    let grid = [(cols as u32 / 4).div_ceil(ELEMENTWISE), rows as u32, 1];
    list.dispatch(&kernel, &[left.partial.buffer(), group.orders(), x.buffer()], &params, grid)
}
