//! Products with dense and packed weights, for one row, a few, and the rows of a prompt. Each writes the output of the one
//! before, so that it waits for that, as in a model.

use super::entry::{Entry, Layer};
use crate::Result;
use crate::gpu::{CommandList, Device};
use crate::model::mixed_layout;
use crate::ops::matmul::{GEMV_ROWS, Store, matmul};
use crate::ops::{self, DenseMatrix, Operand, OperandRoom, QuantMatrix, Tensor};
use crate::random::Random;
use crate::selftest::{Case, Dequantize, Matmul, Packing, QuantMatmul, Reorder};

/// Bits per weight of the mixed matrices: those of a 70B model for 24 GB, and the usual ones.
pub(super) const BITS: [f64; 2] = [2.5, 4.0];

/// All of them for the linears of a layer.
pub(super) fn entries(device: &Device, layer: Layer) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (k, n) in layer.linears() {
        entries.extend([1, layer.prompt].map(|rows| dense(device, rows, k, n)));
        for packing in BITS.into_iter().filter_map(|bits| mixed(k, n, bits)) {
            entries.extend([1, GEMV_ROWS, layer.prompt].map(|rows| packed(device, rows, &packing)));
            entries.extend([dequantize(packing.clone()), reorder(packing)]);
        }
    }
    // The head.
    entries.push(packed(device, 1, &Packing::mixed(layer.hidden, layer.vocabulary, &[6], 128, false)));
    entries
}

/// Activations [rows, cols].
pub(super) fn random(list: &CommandList, name: &str, set: usize, rows: usize, cols: usize) -> Result<Tensor> {
    Tensor::upload(list.device(), name, &Random::new(set as u64, name).values(rows * cols), cols)
}

/// An output.
pub(super) fn empty(list: &CommandList, rows: usize, cols: usize) -> Result<Tensor> {
    Tensor::zeros(list.device(), "out", rows, cols)
}

/// Half-precision weights [n, k].
pub(super) fn weights(list: &CommandList, set: usize, n: usize, k: usize) -> Result<DenseMatrix> {
    let random = Random::new(set as u64, "weights");
    let rows =
        |rows: std::ops::Range<usize>| Ok(random.weights((rows.start * k) as u64..(rows.end * k) as u64));
    DenseMatrix::upload(list.device(), "weights", n, k, rows, None)
}

/// A packed matrix.
pub(super) fn quantized(list: &CommandList, set: usize, packing: &Packing) -> Result<QuantMatrix> {
    QuantMatrix::upload(list.device(), "packed", &packing.matrix(set as u64)?, packing.n, &[])
}

/// Several widths in a matrix, as a converted model has them.
pub(super) fn mixed(k: usize, n: usize, bits: f64) -> Option<Packing> {
    let layout = mixed_layout(k, n, bits).ok()?;
    let groups = layout.groups().iter().map(|group| (group.bits, group.rows)).collect();
    Some(Packing { groups, n, bias: false })
}

/// The kernel of a dense product, as the selftest names it.
fn product(device: &Device, rows: usize, k: usize, n: usize) -> &'static str {
    Matmul { rows, n, k, bias: false, add: false }.kernel(device)
}

fn dense(device: &Device, rows: usize, k: usize, n: usize) -> Entry {
    let (bytes, flops) = (2 * n * k + 4 * rows * (n + k), 2 * rows * n * k);
    let kernel = product(device, rows, k, n);
    Entry::new(&[kernel], format!("{rows} x [{k}, {n}]"), bytes, Some(flops), move |list, sets| {
        let (y, room) = (empty(list, rows, n)?, OperandRoom::new(list.device(), rows, k)?);
        for set in 0..sets {
            let (x, w) = (random(list, "x", set, rows, k)?, weights(list, set, n, k)?);
            let x = Operand::prepare(list, &x, None, &room, rows)?;
            matmul(list, &x, &w, &y, rows, Store::Set)?;
        }
        Ok(())
    })
    .verified_by(Matmul { rows, n, k, bias: false, add: false })
}

fn packed(device: &Device, rows: usize, packing: &Packing) -> Entry {
    let (k, n, packing) = (packing.k(), packing.n, packing.clone());
    let case = QuantMatmul { rows, packing: packing.clone(), add: false };
    let (bytes, flops) = (packing.bytes() as usize + 4 * rows * (n + k), 2 * rows * n * k);
    let tiled = ["dequantize", product(device, rows, k, n)];
    let kernels: &[_] = if rows <= GEMV_ROWS { &["quant_gemv"] } else { &tiled };
    Entry::new(kernels, format!("{rows} x {}", packing.words()), bytes, Some(flops), move |list, sets| {
        let halves = if rows <= GEMV_ROWS { 0 } else { ops::decode_bytes(list.device(), k, n) };
        let scratch = list.device().alloc("scratch", halves)?;
        let (y, room) = (empty(list, rows, n)?, OperandRoom::new(list.device(), rows, k)?);
        for set in 0..sets {
            let (x, matrix) = (random(list, "x", set, rows, k)?, quantized(list, set, &packing)?);
            let x = Operand::prepare(list, &x, None, &room, rows)?;
            ops::quant_matmul::quant_matmul(list, &x, &matrix, &y, &scratch, rows, Store::Set)?;
        }
        Ok(())
    })
    .verified_by(case)
}

fn dequantize(packing: Packing) -> Entry {
    let (k, n) = (packing.k(), packing.n);
    let bytes = packing.bytes() as usize + 2 * k * n;
    let case = Dequantize { packing: packing.clone() };
    Entry::new(&["dequantize"], packing.words(), bytes, None, move |list, sets| {
        let out = list.device().alloc("out", ops::decode_bytes(list.device(), k, n))?;
        for set in 0..sets {
            let matrix = quantized(list, set, &packing)?;
            for slab in matrix.slabs() {
                ops::dequantize::dequantize(list, &matrix, slab, &out)?;
            }
        }
        Ok(())
    })
    .verified_by(case)
}

/// Words into the device's order, as when weights are loaded.
fn reorder(packing: Packing) -> Entry {
    let bytes = 2 * packing.bytes() as usize;
    let case = Reorder { packing: packing.clone() };
    Entry::new(&["reorder"], packing.words(), bytes, None, move |list, sets| {
        for set in 0..sets {
            let matrix = quantized(list, set, &packing)?;
            for slab in matrix.slabs() {
                ops::reorder::reorder(list, matrix.layout(), matrix.blocks(), &slab.words, slab.columns)?;
            }
        }
        Ok(())
    })
    .verified_by(case)
}
