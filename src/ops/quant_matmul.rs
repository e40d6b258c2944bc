//! Products with packed weights: a few rows straight from the packed words (`shaders/quant_gemv.wgsl`), many rows
//! through halves made slab by slab.

use super::matmul::{Columns, GEMV_ROWS, Params, Store, product};
use super::{Operand, QuantMatrix, Tensor, dequantize::dequantize, unpack};
use crate::Result;
use crate::gpu::{Buffer, CommandList, Variant};

pub(super) fn variant() -> Variant {
    Variant::new("quant_gemv").generated("generated/unpack.wgsl", unpack::text())
}

/// y = x·W (+ bias) (+ y) over the first `rows` rows: x [rows, k] in packed row order, y [rows, n]. A few rows are in single
/// precision.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ or `scratch` is too small; as [`CommandList::dispatch`].
pub fn quant_matmul(
    list: &mut CommandList,
    x: &Operand,
    weights: &QuantMatrix,
    y: &Tensor,
    scratch: &Buffer,
    rows: usize,
    store: Store,
) -> Result<()> {
    y.expect("quant_matmul", rows, weights.n())?;
    if rows > GEMV_ROWS {
        for slab in weights.slabs() {
            dequantize(list, weights, slab, scratch)?;
            let count = slab.columns.min(weights.n() - slab.first);
            let (total, bias) = (weights.n(), slab.bias.as_ref());
            let columns = Columns { first: slab.first, count, total, halves: scratch, bias };
            product(list, x, weights.k(), &columns, y, rows, store)?;
        }
        return Ok(());
    }
    x.expect("quant_matmul", rows, weights.k())?;
    let kernel = list.device().kernel(&variant())?;
    for slab in weights.slabs() {
        let params = Params {
            rows: rows as u32,
            n: slab.columns as u32,
            k: weights.k() as u32,
            out_cols: y.cols() as u32,
            first: slab.first as u32,
            flags: Params::flags(slab.bias.is_some(), store),
            x_first: 0,
            w_first: 0,
        };
        let bias = slab.bias.as_ref().unwrap_or(&x.values);
        let buffers =
            [&x.values, &slab.words, &slab.scales, weights.maxima(), weights.blocks(), bias, y.buffer()];
        list.dispatch(&kernel, &buffers, &params, [slab.columns as u32 / 32, rows as u32, 1])?;
    }
    Ok(())
}
