//! The parts of a decode attention joined, in the order in which the next product takes them; see
//! `shaders/attention_join.wgsl`.

use super::QuantGroup;
use super::activation::Activation;
use super::attention_decode::Decode;
use crate::gpu::{Arithmetic, CommandList, Variant};
use crate::{Error, Result};

/// Lanes of a workgroup.
const LANES: u32 = 256;

/// Outputs of a workgroup.
const OUTPUTS: usize = 128;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    split_len: u32,
    splits: u32,
    window: u32,
}

/// Every variant for `heads` heads of `dim` values.
pub(super) fn variants(heads: usize, dim: usize) -> Vec<Variant> {
    Arithmetic::ALL.map(|form| variant(heads, dim, form)).into()
}

fn variant(heads: usize, dim: usize, form: Arithmetic) -> Variant {
    let variant = Variant::new("attention_join")
        .constant("WG", LANES)
        .constant("HEADS", heads as u32)
        .constant("DIM", dim as u32);
    form.put(variant)
}

/// x = what the parts in `decode.splits` come to, [rows, heads · dim], for `group`, in its one order. Rows not in use keep
/// what `x` holds.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ or the group takes several orders; as [`CommandList::dispatch`].
pub fn attention_join(
    list: &mut CommandList,
    decode: &Decode<'_>,
    group: &QuantGroup,
    x: &Activation,
) -> Result<()> {
    decode.check("attention_join")?;
    let &Decode { heads, rows, cache, state, splits, .. } = decode;
    let dim = cache.shape().dim;
    let cols = heads * dim;
    x.expect("attention_join", group, rows)?;
    if group.copies() != 1 || group.k() != cols {
        let message =
            format!("{cols} values where the group takes {} in {} orders", group.k(), group.copies());
        return Err(Error::shape("attention_join", message));
    }
    let cut = decode.cut();
    let params = Params {
        rows: rows as u32,
        split_len: cut.length as u32,
        splits: cut.splits as u32,
        window: decode.window(),
    };
    let kernel = list.device().kernel(&variant(heads, dim, x.form()))?;
    let buffers = [splits.buffer(), &state.positions, group.orders(), x.buffer()];
    list.dispatch(&kernel, &buffers, &params, [cols.div_ceil(OUTPUTS) as u32, rows as u32, 1])
}
