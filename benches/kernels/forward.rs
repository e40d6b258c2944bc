//! The kernels of a forward pass, for one row as in decoding and for the rows of a prompt.

use exlay::Result;
use exlay::gpu::{CommandList, Device};
use exlay::ops::attention::{attention, splits};
use exlay::ops::cache::{CachePrecision, PAGE, PagedCache, RowState, cache_write};
use exlay::ops::matmul::{GEMV_ROWS, Store, matmul};
use exlay::ops::rope::RopeTable;
use exlay::ops::{self, DenseMatrix, QuantMatrix, Tensor};
use exlay::selftest::{Case, Matmul, Packing, Random};
use half::f16;

use crate::entry::{Entry, Layer};

/// Widths of the packed matrices, which take four bits a weight on average, in groups of 128 rows.
const WIDTHS: [u32; 3] = [5, 4, 3];

/// All of them, in the order in which a pass needs them.
pub(crate) fn entries(device: &Device, layer: Layer) -> Vec<Entry> {
    let linears = [(layer.hidden, layer.hidden), (layer.hidden, layer.intermediate)];
    let mut entries = Vec::new();
    let rows = [1, layer.prompt];
    entries.extend(rows.map(|rows| embed(layer, rows)));
    entries.extend(rows.map(|rows| rms_norm(layer, rows)));
    entries.extend(rows.map(|rows| permute(layer, rows)));
    for (k, n) in linears {
        entries.extend(rows.map(|rows| dense(device, rows, k, n)));
    }
    for (k, n) in linears {
        entries.extend(rows.map(|rows| packed(device, rows, k, n)));
        entries.push(dequantize(k, n));
    }
    entries.extend(rows.map(|rows| rope(layer, rows)));
    entries.extend(rows.map(|rows| write(layer, rows)));
    entries.extend(rows.map(|rows| attend(device, layer, rows)));
    entries.extend(rows.map(|rows| swiglu(layer, rows)));
    entries
}

/// Activations [rows, cols].
fn random(list: &CommandList, name: &str, set: usize, rows: usize, cols: usize) -> Result<Tensor> {
    Tensor::upload(list.device(), name, &Random::new(set as u64, name).values(rows * cols), cols)
}

fn empty(list: &CommandList, rows: usize, cols: usize) -> Result<Tensor> {
    Tensor::zeros(list.device(), "out", rows, cols)
}

/// Half-precision weights [n, k].
fn weights(list: &CommandList, set: usize, n: usize, k: usize) -> Result<DenseMatrix> {
    let random = Random::new(set as u64, "weights");
    let rows =
        |rows: std::ops::Range<usize>| Ok(random.weights((rows.start * k) as u64..(rows.end * k) as u64));
    DenseMatrix::upload(list.device(), "weights", n, k, rows, None)
}

fn packing(k: usize, n: usize) -> Packing {
    Packing::mixed(k, n, &WIDTHS, 128, false)
}

fn quantized(list: &CommandList, set: usize, packing: &Packing) -> Result<QuantMatrix> {
    QuantMatrix::upload(list.device(), "packed", &packing.matrix(set as u64)?, packing.n, &[])
}

fn embed(layer: Layer, rows: usize) -> Entry {
    let Layer { hidden, vocabulary, .. } = layer;
    let shape = format!("{rows} x {hidden} out of {vocabulary}");
    Entry::new(&["embed"], shape, rows * (4 + 6 * hidden), None, move |list, sets| {
        let table = weights(list, 0, vocabulary, hidden)?;
        for set in 0..sets {
            let draw = Random::new(set as u64, "tokens");
            let tokens: Vec<u32> = (0..rows).map(|row| draw.below(row as u64, vocabulary) as u32).collect();
            let tokens = list.device().upload("tokens", &tokens)?;
            let out = empty(list, rows, hidden)?;
            ops::embed::embed(list, &table, &tokens, &out, rows)?;
        }
        Ok(())
    })
}

fn rms_norm(layer: Layer, rows: usize) -> Entry {
    let cols = layer.hidden;
    let bytes = 4 * (2 * rows + 1) * cols;
    Entry::new(&["rms_norm"], format!("{rows} x {cols}"), bytes, None, move |list, sets| {
        for set in 0..sets {
            let (x, weight) = (random(list, "x", set, rows, cols)?, random(list, "weight", set, 1, cols)?);
            let out = empty(list, rows, cols)?;
            ops::rms_norm::rms_norm(list, &x, &weight, &out, rows, 1e-5)?;
        }
        Ok(())
    })
}

fn permute(layer: Layer, rows: usize) -> Entry {
    let cols = layer.hidden;
    let bytes = 4 * (2 * rows + 1) * cols;
    Entry::new(&["permute"], format!("{rows} x {cols}"), bytes, None, move |list, sets| {
        for set in 0..sets {
            // A permutation comes with a matrix; one with few columns does.
            let matrix = quantized(list, set, &packing(cols, 32))?;
            let (x, out) = (random(list, "x", set, rows, cols)?, empty(list, rows, cols)?);
            ops::permute::permute(list, &x, matrix.permutation(), &out, rows)?;
        }
        Ok(())
    })
}

/// The kernel of a dense product, as the selftest names it.
fn product(device: &Device, rows: usize, k: usize, n: usize) -> &'static str {
    Matmul { rows, n, k, bias: false, add: false }.kernel(device)
}

fn dense(device: &Device, rows: usize, k: usize, n: usize) -> Entry {
    let (bytes, flops) = (2 * n * k + 4 * rows * (n + k), 2 * rows * n * k);
    let kernel = product(device, rows, k, n);
    Entry::new(&[kernel], format!("{rows} x [{k}, {n}]"), bytes, Some(flops), move |list, sets| {
        for set in 0..sets {
            let (x, w) = (random(list, "x", set, rows, k)?, weights(list, set, n, k)?);
            matmul(list, &x, &w, &empty(list, rows, n)?, rows, Store::Set)?;
        }
        Ok(())
    })
}

fn packed(device: &Device, rows: usize, k: usize, n: usize) -> Entry {
    let packing = packing(k, n);
    let (bytes, flops) = (packing.bytes() as usize + 4 * rows * (n + k), 2 * rows * n * k);
    let tiled = ["dequantize", product(device, rows, k, n)];
    let kernels: &[_] = if rows <= GEMV_ROWS { &["quant_gemv"] } else { &tiled };
    Entry::new(kernels, format!("{rows} x {}", packing.words()), bytes, Some(flops), move |list, sets| {
        let halves = if rows <= GEMV_ROWS { 0 } else { ops::decode_bytes(list.device(), k, n) };
        let scratch = list.device().alloc("scratch", halves)?;
        for set in 0..sets {
            let (x, matrix) = (random(list, "x", set, rows, k)?, quantized(list, set, &packing)?);
            let y = empty(list, rows, n)?;
            ops::quant_matmul::quant_matmul(list, &x, &matrix, &y, &scratch, rows, Store::Set)?;
        }
        Ok(())
    })
}

fn dequantize(k: usize, n: usize) -> Entry {
    let packing = packing(k, n);
    let bytes = packing.bytes() as usize + 2 * k * n;
    Entry::new(&["dequantize"], packing.words(), bytes, None, move |list, sets| {
        for set in 0..sets {
            let matrix = quantized(list, set, &packing)?;
            for slab in matrix.slabs() {
                let out = list.device().alloc("out", 2 * (k * slab.columns) as u64)?;
                ops::dequantize::dequantize(list, &matrix, slab, &out)?;
            }
        }
        Ok(())
    })
}

/// Positions up to `end`, in order, in slot 0.
fn state(list: &CommandList, rows: usize, end: usize) -> Result<RowState> {
    let positions: Vec<u32> = (end - rows..end).map(|position| position as u32).collect();
    let device = list.device();
    Ok(RowState {
        positions: device.upload("positions", &positions)?,
        slots: device.upload("slots", &vec![0_u32; rows])?,
    })
}

/// Keys and values of one sequence, its pages in any order.
fn cache(list: &CommandList, layer: Layer, set: usize) -> Result<PagedCache> {
    let Layer { heads, dim, context, .. } = layer;
    let device = list.device();
    let halves = |name: &str| -> Result<_> {
        let values = Random::new(set as u64, name).values(context * heads * dim);
        device.upload(name, &values.into_iter().map(f16::from_f32).collect::<Vec<_>>())
    };
    Ok(PagedCache {
        keys: halves("keys")?,
        values: halves("values")?,
        pages: device.upload("pages", &Random::new(set as u64, "pages").permutation(context / PAGE))?,
        pages_per_slot: context / PAGE,
        kv_heads: heads,
        dim,
        precision: CachePrecision::Half,
    })
}

fn rope(layer: Layer, rows: usize) -> Entry {
    let Layer { heads, dim, context, .. } = layer;
    let bytes = 4 * rows * (2 * heads * dim + dim + 1);
    Entry::new(&["rope"], format!("{rows} x {heads} heads of {dim}"), bytes, None, move |list, sets| {
        let frequency = |i: usize| 10_000_f64.powf(-2.0 * i as f64 / dim as f64);
        let frequencies: Vec<f64> = (0..dim / 2).map(frequency).collect();
        let table = RopeTable::new(list.device(), &frequencies, 1.0, context)?;
        for set in 0..sets {
            let x = random(list, "x", set, rows, heads * dim)?;
            let state = state(list, rows, context)?;
            ops::rope::rope(list, &x, &state.positions, &table, rows)?;
        }
        Ok(())
    })
}

fn write(layer: Layer, rows: usize) -> Entry {
    let Layer { heads, dim, context, .. } = layer;
    let bytes = rows * (12 * heads * dim + 8);
    Entry::new(
        &["cache_write"],
        format!("{rows} x {heads} heads of {dim}"),
        bytes,
        None,
        move |list, sets| {
            let cache = cache(list, layer, 0)?;
            for set in 0..sets {
                let (k, v) =
                    (random(list, "k", set, rows, heads * dim)?, random(list, "v", set, rows, heads * dim)?);
                let end = context - set % (context / rows) * rows;
                cache_write(list, &k, &v, &state(list, rows, end)?, &cache, rows)?;
            }
            Ok(())
        },
    )
}

fn attend(device: &Device, layer: Layer, rows: usize) -> Entry {
    let Layer { heads, dim, context, .. } = layer;
    let cols = heads * dim;
    let splits = splits(rows, context).0;
    let seen: usize = (context - rows..context).map(|position| position + 1).sum();
    let eights = device.capabilities().subgroup == Some((8, 8));
    let words = format!("{splits} split{}", if splits == 1 { "" } else { "s" });
    let kernels = [if eights { "attention_subgroup" } else { "attention" }, "attention_merge"];
    let shape = format!("{rows} x {heads} heads of {dim}, {context} positions in {words}");
    // A product with each key and one with each value; the cache holds halves.
    let (bytes, flops) = (cols * (8 * rows + 4 * context), 4 * seen * cols);
    Entry::new(&kernels, shape, bytes, Some(flops), move |list, sets| {
        let partial = empty(list, rows, heads * splits * (dim + 2))?;
        for set in 0..sets {
            let (q, cache) = (random(list, "q", set, rows, cols)?, cache(list, layer, set)?);
            let (state, out) = (state(list, rows, context)?, empty(list, rows, cols)?);
            attention(list, &q, &cache, &state, &partial, &out, rows, None)?;
        }
        Ok(())
    })
}

fn swiglu(layer: Layer, rows: usize) -> Entry {
    let cols = layer.intermediate;
    Entry::new(&["swiglu"], format!("{rows} x {cols}"), 12 * rows * cols, None, move |list, sets| {
        for set in 0..sets {
            let (gate, up) = (random(list, "gate", set, rows, cols)?, random(list, "up", set, rows, cols)?);
            ops::swiglu::swiglu(list, &gate, &up, &empty(list, rows, cols)?, rows)?;
        }
        Ok(())
    })
}
