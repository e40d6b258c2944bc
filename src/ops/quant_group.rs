//! Packed linears that share an input, placed so that one dispatch multiplies them all.
//!
//! Words and scales of as many slabs as a binding holds lie in one buffer, a *sheet*; the matrices' own slabs are views of
//! it. What the product finds where is told by `group_table`.

use std::sync::Arc;

use super::Permutation;
use super::group_table::{Piece, Table};
use super::quant::{QuantMatrix, Room, maxima, slab_ranges};
use crate::gpu::{Buffer, Device, VIEW_ALIGNMENT};
use crate::packing::{PackedMatrix, Words};
use crate::{Error, Result};

/// One linear of a group before it is on a device.
pub struct GroupMember<'a> {
    /// Name for messages.
    pub label: &'a str,
    /// The packed tensors.
    pub matrix: &'a PackedMatrix<Words<'a>>,
    /// Output features, without padding.
    pub n: usize,
}

/// What one dispatch of the product reads.
pub(super) struct Sheet {
    pub(super) words: Buffer,
    pub(super) scales: Buffer,
    pub(super) maxima: Buffer,
    /// The table's words in memory, for when they are too many for immediates.
    pub(super) stored: Buffer,
    pub(super) table: Table,
}

/// Packed linears [k, n₀], [k, n₁], … that share an input. Their outputs stand side by side, each padded to a multiple
/// of 32 columns.
pub struct QuantGroup {
    k: usize,
    columns: usize,
    orders: Buffer,
    copies: usize,
    bias: Option<Buffer>,
    sheets: Vec<Sheet>,
}

impl QuantGroup {
    /// Uploads the members; returns the group, and each member as a matrix of its own in the same memory.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is no member or their inputs differ; as [`QuantMatrix::upload`].
    pub fn upload(
        device: &Device,
        label: &str,
        members: &[GroupMember<'_>],
    ) -> Result<(Self, Vec<QuantMatrix>)> {
        let k = members.first().map_or(0, |member| member.matrix.k);
        if k == 0 || members.iter().any(|member| member.matrix.k != k) {
            return Err(Error::shape(label, "the linears of a group need inputs of one length"));
        }
        let pieces = pieces(device, members)?;
        let arenas = arenas(device, label, &pieces)?;
        let (mut words, mut scales) = (pieces.iter(), pieces.iter());
        let gone = || Error::shape(label, "more slabs than were planned");
        let mut room = Room {
            words: &mut |bytes| {
                let piece = words.next().ok_or_else(gone)?;
                arenas[piece.sheet].0.view(piece.words.start, bytes)
            },
            scales: &mut |bytes| {
                let piece = scales.next().ok_or_else(gone)?;
                arenas[piece.sheet].1.view(piece.scales.start, bytes)
            },
        };
        let mut matrices: Vec<QuantMatrix> = Vec::with_capacity(members.len());
        let mut distinct: Vec<Arc<Permutation>> = Vec::new();
        for member in members {
            let matrix =
                QuantMatrix::place(device, member.label, member.matrix, member.n, &distinct, &mut room)?;
            if !distinct.iter().any(|one| Arc::ptr_eq(one, matrix.permutation())) {
                distinct.push(Arc::clone(matrix.permutation()));
            }
            matrices.push(matrix);
        }
        let copy = |matrix: &QuantMatrix| {
            let same = |one: &Arc<Permutation>| Arc::ptr_eq(one, matrix.permutation());
            distinct.iter().position(same).expect("every order was collected") as u32
        };
        let copies: Vec<u32> = matrices.iter().map(copy).collect();
        let orders = match &distinct[..] {
            [one] => one.buffer().clone(),
            several => {
                let all: Vec<u32> = several.iter().flat_map(|one| one.order()).copied().collect();
                device.upload(&format!("{label}.orders"), &all)?
            }
        };
        let sheets = arenas
            .into_iter()
            .enumerate()
            .map(|(sheet, (words, scales))| {
                let here: Vec<&Piece> = pieces.iter().filter(|piece| piece.sheet == sheet).collect();
                let table = Table::new(members, &copies, &here);
                let all: Vec<f32> = members.iter().flat_map(|member| maxima(member.matrix)).collect();
                Ok(Sheet {
                    words,
                    scales,
                    maxima: device.upload(&format!("{label}.maxima"), &all)?,
                    stored: device.upload(&format!("{label}.table"), &table.words)?,
                    table,
                })
            })
            .collect::<Result<_>>()?;
        let group = Self {
            k,
            columns: members.iter().map(|member| member.matrix.n).sum(),
            orders,
            copies: distinct.len(),
            bias: bias(device, label, members)?,
            sheets,
        };
        Ok((group, matrices))
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Outputs of all members, with each one's padding.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Orders in which members take the input: an activation has a copy in each.
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// The orders, u32 [copies, k]: entry i is the input feature that packed row i multiplies.
    pub fn orders(&self) -> &Buffer {
        &self.orders
    }

    /// Single-precision bias `[columns]` where a member has one.
    pub(super) fn bias(&self) -> Option<&Buffer> {
        self.bias.as_ref()
    }

    pub(super) fn sheets(&self) -> &[Sheet] {
        &self.sheets
    }
}

/// The slabs of all members, shared out among as few sheets as bindings allow.
fn pieces(device: &Device, members: &[GroupMember<'_>]) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let (mut sheet, mut words, mut scales) = (0, 0, 0);
    for (index, member) in members.iter().enumerate() {
        let (word_rows, groups) = (member.matrix.layout.word_rows(), member.matrix.layout.groups().len());
        for columns in slab_ranges(device, member.label, member.matrix)? {
            let word_bytes = 4 * (word_rows * columns.len()) as u64;
            let scale_bytes = (groups * columns.len() / 2) as u64;
            if words > 0 && words + word_bytes > device.max_slab_bytes() {
                (sheet, words, scales) = (sheet + 1, 0, 0);
            }
            let (word_end, scale_end) = (words + word_bytes, scales + scale_bytes);
            pieces.push(Piece {
                member: index,
                columns,
                sheet,
                words: words..word_end,
                scales: scales..scale_end,
            });
            words = word_end.next_multiple_of(VIEW_ALIGNMENT);
            scales = scale_end.next_multiple_of(VIEW_ALIGNMENT);
        }
    }
    Ok(pieces)
}

/// Memory for the words and the scales of each sheet.
fn arenas(device: &Device, label: &str, pieces: &[Piece]) -> Result<Vec<(Buffer, Buffer)>> {
    pieces
        .chunk_by(|a, b| a.sheet == b.sheet)
        .map(|sheet| {
            let end = |bytes: fn(&Piece) -> u64| sheet.iter().map(bytes).max().unwrap_or(0);
            let words = device.alloc(&format!("{label}.words"), end(|piece| piece.words.end))?;
            Ok((words, device.alloc(&format!("{label}.scales"), end(|piece| piece.scales.end))?))
        })
        .collect()
}

/// The biases side by side, zero where a member has none.
fn bias(device: &Device, label: &str, members: &[GroupMember<'_>]) -> Result<Option<Buffer>> {
    if members.iter().all(|member| member.matrix.bias.is_none()) {
        return Ok(None);
    }
    let mut values: Vec<f32> = Vec::new();
    for member in members {
        match &member.matrix.bias {
            Some(bias) => values.extend(bias.iter().map(|value| value.to_f32())),
            None => values.resize(values.len() + member.matrix.n, 0.0),
        }
    }
    device.upload(&format!("{label}.bias"), &values).map(Some)
}
