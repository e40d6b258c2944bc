//! The kernels of decoding that do several things at once: products of whole groups of packed linears, and the two steps
//! between them. Each waits for the one before, as in a model.

use super::entry::{Entry, Layer};
use super::products::{BITS, empty, mixed, random};
use crate::Result;
use crate::gpu::{Arithmetic, CommandList, Device};
use crate::ops::activation::{Activation, Partial};
use crate::ops::group_gemv::{self, MOST_ROWS};
use crate::ops::group_geometry::most_sums;
use crate::ops::residual_norm::Left;
use crate::ops::{self, GroupMember, QuantGroup, RowNorm};
use crate::packing::{PackedMatrix, WIDTHS};
use crate::selftest::{Case, GroupGemv, Packing, ResidualNorm, SwigluGather};

/// Shapes [k, n] at which each width is timed alone: gate or up and down of a 70B model, gate or up of a 7B model.
const SINGLE: [(usize, usize); 3] = [(8192, 28_672), (28_672, 8192), (4096, 11_008)];

/// All of them for a layer, in each of these arithmetics: products of each number of rows that has a variant, the steps between them for one
/// row and for as many as there may be.
pub(super) fn entries(forms: &[Arithmetic], layer: Layer) -> Vec<Entry> {
    let Layer { hidden, intermediate: inner, heads, kv_heads, dim, .. } = layer;
    let (queries, keys) = (heads * dim, kv_heads * dim);
    let groups = [
        (hidden, vec![queries, keys, keys], true),
        (queries, vec![hidden], false),
        (hidden, vec![inner, inner], true),
        (inner, vec![hidden], false),
    ];
    let mut entries = Vec::new();
    for &form in forms {
        for rows in [1, 2, 4, MOST_ROWS] {
            for bits in BITS {
                for (k, outputs, norm) in &groups {
                    let members = outputs.iter().filter_map(|&n| mixed(*k, n, bits)).collect();
                    entries.push(product(GroupGemv { rows, form, members, one_order: true, norm: *norm }));
                }
            }
        }
        for rows in [1, MOST_ROWS] {
            for (k, from) in [(queries, "o"), (inner, "down")] {
                let case = ResidualNorm { rows, cols: hidden, sums: most_sums(k, hidden), copies: 1, form };
                entries.push(residual(case, from));
            }
            entries.push(gated(SwigluGather { rows, cols: inner, sums: most_sums(hidden, 2 * inner), form }));
        }
    }
    entries
}

/// Each width alone, for one row: at the shapes of large matrices where the layer is of a model, else at its own.
pub(super) fn widths(forms: &[Arithmetic], layer: Layer) -> Vec<Entry> {
    let own = [(layer.hidden, layer.intermediate)];
    let shapes = if layer.hidden < 4096 { &own[..] } else { &SINGLE };
    let mut entries = Vec::new();
    for &(k, n) in shapes {
        for bits in WIDTHS {
            let members = vec![Packing::mixed(k, n, &[bits], if bits < 4 { 64 } else { 128 }, false)];
            entries.extend(forms.iter().map(|&form| {
                let members = members.clone();
                product(GroupGemv { rows: 1, form, members, one_order: true, norm: false })
            }));
        }
    }
    entries
}

/// Packed matrices with one order.
fn group(device: &Device, members: &[Packing], set: usize) -> Result<QuantGroup> {
    let mut matrices: Vec<PackedMatrix> = Vec::with_capacity(members.len());
    for (index, packing) in members.iter().enumerate() {
        let mut matrix = packing.matrix((members.len() * set + index) as u64)?;
        if let Some(first) = matrices.first() {
            matrix.q_invperm.clone_from(&first.q_invperm);
        }
        matrices.push(matrix);
    }
    let lent: Vec<_> = matrices.iter().map(PackedMatrix::lend).collect();
    let members: Vec<_> = lent
        .iter()
        .zip(members)
        .map(|(matrix, packing)| GroupMember { label: "packed", matrix, n: packing.n })
        .collect();
    Ok(QuantGroup::upload(device, "packed", &members)?.0)
}

/// The input of a group of `rows` rows, made by the kernel that makes it in a model, and its norm.
fn input(
    device: &Device,
    group: &QuantGroup,
    form: Arithmetic,
    rows: usize,
    set: usize,
) -> Result<(Activation, RowNorm)> {
    let mut list = CommandList::new(device, "the input of what is timed");
    let k = group.k();
    let (hidden, weight) = (random(&list, "x", set, rows, k)?, random(&list, "weight", set, 1, k)?);
    let (next, partial) = (empty(&list, rows, k)?, Partial::new(device, 1)?);
    let (x, norm) = (
        Activation::new(device, form, group.copies() * rows * form.row_words(k))?,
        RowNorm::new(device, rows, k, 1e-5)?,
    );
    let left = Left { partial: &partial, sums: 0, columns: k };
    ops::residual_norm::residual_norm(&mut list, &hidden, left, &weight, &next, group, &norm, &x, rows)?;
    list.run()?;
    Ok((x, norm))
}

/// A product at the case's shape.
fn product(case: GroupGemv) -> Entry {
    let GroupGemv { rows, form, members, norm, .. } = &case;
    let (rows, form, members, norm) = (*rows, *form, members.clone(), *norm);
    let k = members.first().map_or(0, Packing::k);
    let outputs: usize = members.iter().map(|packing| packing.n).sum();
    let values = rows * outputs * most_sums(k, outputs);
    let bytes = case.bytes() as usize + 4 * rows * form.row_words(k) + 4 * values;
    let (shape, flops) = (case.shape(), 2 * rows * k * outputs);
    Entry::new(&["group_gemv"], shape, bytes, Some(flops), move |list, sets| {
        let device = list.device().clone();
        let mut out: Option<Partial> = None;
        for set in 0..sets {
            let group = group(&device, &members, set)?;
            let (x, row_norm) = input(&device, &group, form, rows, set)?;
            let out = match &out {
                Some(out) => out,
                None => {
                    let columns = group.columns();
                    out.insert(Partial::new(&device, rows * columns * most_sums(k, columns))?)
                }
            };
            group_gemv::group_gemv(list, &x, &group, norm.then_some(&row_norm), out, rows)?;
        }
        Ok(())
    })
    .verified_by(case)
}

/// Sums that a product left, of `columns` columns.
pub(super) fn left(device: &Device, rows: usize, columns: usize, sums: usize, set: usize) -> Result<Partial> {
    let partial = Partial::new(device, sums * rows * columns)?;
    let values = crate::random::Random::new(set as u64, "left").values(sums * rows * columns);
    device.write(partial.buffer(), 0, &values)?;
    Ok(partial)
}

/// A group that gives an order for `k` values and is not multiplied with.
pub(super) fn order(device: &Device, k: usize) -> Result<QuantGroup> {
    group(device, &[Packing::mixed(k, 32, &[4], 128, false)], 0)
}

fn residual(case: ResidualNorm, from: &str) -> Entry {
    let ResidualNorm { rows, cols, sums, form, .. } = case;
    let bytes = 4 * rows * (cols * (sums + 2) + form.row_words(cols)) + 8 * cols;
    let shape = format!("{}, after {from}", case.shape());
    Entry::new(&["residual_norm"], shape, bytes, None, move |list, sets| {
        let device = list.device().clone();
        let (group, next) = (order(&device, cols)?, empty(list, rows, cols)?);
        let (x, norm) = (
            Activation::new(&device, form, rows * form.row_words(cols))?,
            RowNorm::new(&device, rows, cols, 1e-5)?,
        );
        for set in 0..sets {
            let (hidden, weight) =
                (random(list, "x", set, rows, cols)?, random(list, "weight", set, 1, cols)?);
            let partial = left(&device, rows, cols, sums, set)?;
            let left = Left { partial: &partial, sums, columns: cols };
            ops::residual_norm::residual_norm(list, &hidden, left, &weight, &next, &group, &norm, &x, rows)?;
        }
        Ok(())
    })
    .verified_by(case)
}

fn gated(case: SwigluGather) -> Entry {
    let SwigluGather { rows, cols, sums, form } = case;
    let bytes = 4 * rows * (2 * cols * sums + form.row_words(cols)) + 4 * cols;
    Entry::new(&["swiglu_gather"], case.shape(), bytes, None, move |list, sets| {
        let device = list.device().clone();
        let (group, x) =
            (order(&device, cols)?, Activation::new(&device, form, rows * form.row_words(cols))?);
        for set in 0..sets {
            let partial = left(&device, rows, 2 * cols, sums, set)?;
            let left = Left { partial: &partial, sums, columns: 2 * cols };
            ops::swiglu_gather::swiglu_gather(list, left, cols, &group, &x, rows)?;
        }
        Ok(())
    })
    .verified_by(case)
}
