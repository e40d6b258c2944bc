//! The kernels of a forward pass beside its products, for one row as in decoding and for the rows of a prompt.

use half::f16;

use super::entry::{Entry, Layer};
use super::products::{empty, quantized, random, weights};
use crate::Result;
use crate::gpu::{CommandList, Device};
use crate::ops;
use crate::ops::attention::{attention, splits, stem};
use crate::ops::cache::{CachePrecision, PAGE, RowState, cache_write};
use crate::ops::halve::Halves;
use crate::ops::rope::RopeTable;
use crate::ops::{CacheShape, PagedCache};
use crate::random::Random;
use crate::selftest::Packing;

/// All of them, in the order in which a pass needs them.
pub(super) fn entries(device: &Device, layer: Layer) -> Vec<Entry> {
    let mut entries = Vec::new();
    let rows = [1, layer.prompt];
    entries.extend(rows.map(|rows| embed(layer, rows)));
    entries.extend(rows.map(|rows| rms_norm(layer, rows)));
    entries.extend(rows.map(|rows| permute(layer, rows)));
    entries.push(halve(layer));
    entries.extend(rows.map(|rows| rope(layer, rows)));
    entries.extend(rows.map(|rows| write(layer, rows)));
    entries.extend(rows.map(|rows| attend(device, layer, rows)));
    entries.extend(rows.map(|rows| swiglu(layer, rows)));
    entries
}

fn embed(layer: Layer, rows: usize) -> Entry {
    let Layer { hidden, vocabulary, .. } = layer;
    let shape = format!("{rows} x {hidden} out of {vocabulary}");
    Entry::new(&["embed"], shape, rows * (4 + 6 * hidden), None, move |list, sets| {
        let (table, out) = (weights(list, 0, vocabulary, hidden)?, empty(list, rows, hidden)?);
        for set in 0..sets {
            let draw = Random::new(set as u64, "tokens");
            let tokens: Vec<u32> = (0..rows).map(|row| draw.below(row as u64, vocabulary) as u32).collect();
            let tokens = list.device().upload("tokens", &tokens)?;
            ops::embed::embed(list, &table, &tokens, &out, rows)?;
        }
        Ok(())
    })
}

fn rms_norm(layer: Layer, rows: usize) -> Entry {
    let cols = layer.hidden;
    let bytes = 4 * (2 * rows + 1) * cols;
    Entry::new(&["rms_norm"], format!("{rows} x {cols}"), bytes, None, move |list, sets| {
        let out = empty(list, rows, cols)?;
        for set in 0..sets {
            let (x, weight) = (random(list, "x", set, rows, cols)?, random(list, "weight", set, 1, cols)?);
            ops::rms_norm::rms_norm(list, &x, &weight, &out, rows, 1e-5)?;
        }
        Ok(())
    })
}

fn permute(layer: Layer, rows: usize) -> Entry {
    let cols = layer.hidden;
    let bytes = 4 * (2 * rows + 1) * cols;
    Entry::new(&["permute"], format!("{rows} x {cols}"), bytes, None, move |list, sets| {
        let out = empty(list, rows, cols)?;
        for set in 0..sets {
            // A permutation comes with a matrix; one with few columns does.
            let matrix = quantized(list, set, &Packing::mixed(cols, 32, &[4], 128, false))?;
            let x = random(list, "x", set, rows, cols)?;
            ops::permute::permute(list, &x, matrix.permutation(), &out, rows)?;
        }
        Ok(())
    })
}

/// A prompt's rows in packed order as halves, one a value.
fn halve(layer: Layer) -> Entry {
    let (rows, cols) = (layer.prompt, layer.hidden);
    let bytes = (6 * rows + 4) * cols;
    Entry::new(&["halve"], format!("{rows} x {cols}"), bytes, None, move |list, sets| {
        let out = list.device().alloc("out", (2 * rows * cols) as u64)?;
        let units = list.device().alloc("units", 4 * rows as u64)?;
        for set in 0..sets {
            let matrix = quantized(list, set, &Packing::mixed(cols, 32, &[4], 128, false))?;
            let x = random(list, "x", set, rows, cols)?;
            ops::halve::halve(list, &x, Some(matrix.permutation()), &out, &units, rows, Halves::One)?;
        }
        Ok(())
    })
}

/// Positions up to `end`, in order, in slot 0.
pub(super) fn state(list: &CommandList, rows: usize, end: usize) -> Result<RowState> {
    let positions: Vec<u32> = (end - rows..end).map(|position| position as u32).collect();
    let device = list.device();
    Ok(RowState {
        positions: device.upload("positions", &positions)?,
        slots: device.upload("slots", &vec![0_u32; rows])?,
    })
}

/// Angles a position of a head's pairs of values.
pub(super) fn frequencies(dim: usize) -> Vec<f64> {
    (0..dim / 2).map(|i| 10_000_f64.powf(-2.0 * i as f64 / dim as f64)).collect()
}

/// Keys and values of one sequence, its pages in any order.
fn cache_shape(layer: Layer) -> CacheShape {
    let Layer { kv_heads, dim, context, .. } = layer;
    CacheShape { pages_per_slot: context / PAGE, kv_heads, dim, precision: CachePrecision::Half }
}

pub(super) fn cache(list: &CommandList, layer: Layer, set: usize) -> Result<PagedCache> {
    let Layer { kv_heads, dim, context, .. } = layer;
    let device = list.device();
    let halves = |name: &str| -> Vec<f16> {
        let values = Random::new(set as u64, name).values(context * kv_heads * dim);
        values.into_iter().map(f16::from_f32).collect()
    };
    let pages = device.upload("pages", &Random::new(set as u64, "pages").permutation(context / PAGE))?;
    PagedCache::upload(device, cache_shape(layer), &pages, [&halves("keys"), &halves("values")])
}

fn rope(layer: Layer, rows: usize) -> Entry {
    let Layer { heads, dim, context, .. } = layer;
    let bytes = 4 * rows * (2 * heads * dim + dim + 1);
    Entry::new(&["rope"], format!("{rows} x {heads} heads of {dim}"), bytes, None, move |list, sets| {
        let table = RopeTable::new(list.device(), &frequencies(dim), 1.0, context)?;
        for set in 0..sets {
            let x = random(list, "x", set, rows, heads * dim)?;
            let state = state(list, rows, context)?;
            ops::rope::rope(list, &x, &state.positions, &table, rows)?;
        }
        Ok(())
    })
}

fn write(layer: Layer, rows: usize) -> Entry {
    let Layer { kv_heads, dim, context, .. } = layer;
    let cols = kv_heads * dim;
    let shape = format!("{rows} x {kv_heads} heads of {dim}");
    Entry::new(&["cache_write"], shape, rows * (12 * cols + 8), None, move |list, sets| {
        let cache = cache(list, layer, 0)?;
        for set in 0..sets {
            let (k, v) = (random(list, "k", set, rows, cols)?, random(list, "v", set, rows, cols)?);
            let end = context - set % (context / rows) * rows;
            cache_write(list, &k, &v, &state(list, rows, end)?, &cache, rows)?;
        }
        Ok(())
    })
}

fn attend(device: &Device, layer: Layer, rows: usize) -> Entry {
    let Layer { heads, kv_heads, dim, context, .. } = layer;
    let cols = heads * dim;
    let splits = splits(rows, context).0;
    let seen: usize = (context - rows..context).map(|position| position + 1).sum();
    let words = format!("{splits} split{}", if splits == 1 { "" } else { "s" });
    let kernels = match stem(device.capabilities(), cache_shape(layer), rows, heads) {
        "attention_coop" => vec!["attention_coop"],
        first => vec![first, "attention_merge"],
    };
    let shape = format!("{rows} x {heads}/{kv_heads} heads of {dim}, {context} positions in {words}");
    // A product with each key and one with each value; the cache holds halves.
    let (bytes, flops) = (8 * rows * cols + 4 * context * kv_heads * dim, 4 * seen * cols);
    Entry::new(&kernels, shape, bytes, Some(flops), move |list, sets| {
        let (partial, out) = (empty(list, rows, heads * splits * (dim + 2))?, empty(list, rows, cols)?);
        for set in 0..sets {
            let (q, cache) = (random(list, "q", set, rows, cols)?, cache(list, layer, set)?);
            let state = state(list, rows, context)?;
            attention(list, &q, &cache, &state, &partial, &out, rows, None)?;
        }
        Ok(())
    })
}

fn swiglu(layer: Layer, rows: usize) -> Entry {
    let cols = layer.intermediate;
    Entry::new(&["swiglu"], format!("{rows} x {cols}"), 12 * rows * cols, None, move |list, sets| {
        let out = empty(list, rows, cols)?;
        for set in 0..sets {
            let (gate, up) = (random(list, "gate", set, rows, cols)?, random(list, "up", set, rows, cols)?);
            ops::swiglu::swiglu(list, &gate, &up, &out, rows)?;
        }
        Ok(())
    })
}
