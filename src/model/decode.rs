//! The pass of a few rows through packed weights: nine dispatches a layer, each made of what the one before left.
//!
//! | dispatch | takes | leaves |
//! |---|---|---|
//! | [`residual_norm`] | hidden, sums of the last product | hidden, the group's input |
//! | [`group_gemv`] | input | sums of q, k and v |
//! | [`attention_decode()`] | sums, cache | parts of attention, the row's keys and values in the cache |
//! | [`attention_join`] | parts | o's input |
//! | [`group_gemv`] | input | sums of o |
//! | [`residual_norm`] | hidden, sums | hidden, the group's input |
//! | [`group_gemv`] | input | sums of gate and up |
//! | [`swiglu_gather`] | sums | down's input |
//! | [`group_gemv`] | input | sums of down |
//!
//! [`super::Pass`] is the pass for prompts, for weights in halves and for whoever wants to look in between.

use std::collections::BTreeSet;

use super::batch::Row;
use super::block::BlockKind;
use super::cache::Cache;
use super::head::Head;
use super::weights::Block;
use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::gpu::{Arithmetic, CommandList, Device};
use crate::ops::activation::{Activation, Partial};
use crate::ops::attention_decode::{self, OwnKeys, Projections, attention_decode};
use crate::ops::attention_join::attention_join;
use crate::ops::cache::{PAGE, RowState};
use crate::ops::group_gemv::{MOST_ROWS, group_gemv};
use crate::ops::group_geometry::{most_sums, sums};
use crate::ops::kv_write::kv_write;
use crate::ops::residual_norm::{Left, residual_norm};
use crate::ops::rope::RopeTable;
use crate::ops::sample::Logits;
use crate::ops::swiglu_gather::swiglu_gather;
use crate::ops::{CacheShape, QuantGroup, RowNorm, Tensor};

/// Room for the pass of up to [`Decode::rows`] rows.
pub struct Decode {
    rows: usize,
    /// The residual stream, which changes places at each norm.
    hidden: [Tensor; 2],
    activation: Activation,
    partial: Partial,
    logits: Partial,
    norm: RowNorm,
    splits: Tensor,
}

/// The parts of a model that a pass reads.
pub struct DecodeModel<'a> {
    /// Sizes.
    pub config: &'a LlamaConfig,
    /// All blocks.
    pub blocks: &'a [Block],
    /// The head.
    pub head: &'a Head,
    /// Keys and values.
    pub cache: &'a Cache,
    /// Rotations.
    pub rope: &'a RopeTable,
    /// Positions and slots of the rows.
    pub state: &'a RowState,
}

/// Waits for a pass of `rows` rows and reads the scores [wanted, vocabulary] of some of them.
///
/// # Errors
/// As [`Device::read`].
pub(super) fn read_scores(
    logits: Logits<'_>,
    rows: usize,
    wanted: &[usize],
    vocabulary: usize,
) -> Result<Vec<f32>> {
    let Logits { partial, ks, cols } = logits;
    let (part, mut count) = (rows * cols, ks);
    let mut parts: Vec<f32> = partial.device().read(partial, 0, ks * part)?;
    while count > 1 {
        count /= 2;
        for to in 0..count {
            for i in 0..part {
                parts[to * part + i] = parts[2 * to * part + i] + parts[(2 * to + 1) * part + i];
            }
        }
    }
    Ok(wanted.iter().flat_map(|row| &parts[row * cols..row * cols + vocabulary]).copied().collect())
}

/// New keys where all rows are of different slots: they need not wait for each other.
pub(super) fn own_keys(rows: &[Row]) -> OwnKeys {
    let repeated =
        rows.iter().enumerate().any(|(i, row)| rows[..i].iter().any(|other| other.slot == row.slot));
    if repeated { OwnKeys::Stored } else { OwnKeys::New }
}

/// The groups of a block, and of the head, where all are of the kind that this pass multiplies.
fn groups<'a>(blocks: &'a [Block], head: &'a Head) -> Option<Vec<&'a QuantGroup>> {
    let groups = blocks.iter().flat_map(Block::groups).chain([head.group()]);
    groups.map(|group| group.together()).collect()
}

/// The shapes [k, columns] of the products of a pass.
pub(super) fn shapes(blocks: &[Block], head: &Head) -> BTreeSet<[usize; 2]> {
    let shape = |group: &QuantGroup| [group.k(), group.columns()];
    groups(blocks, head).into_iter().flatten().map(shape).collect()
}

impl Decode {
    /// Room for at most `rows` rows (and at most eight); `None` where the model needs [`super::Pass`]: its weights are not
    /// all packed, or its heads are of a kind that the kernels do not have.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn new(
        device: &Device,
        config: &LlamaConfig,
        blocks: &[Block],
        head: &Head,
        context: usize,
        rows: usize,
    ) -> Result<Option<Self>> {
        let form = device.arithmetic();
        let (heads, kv_heads, dim) =
            (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let Some(groups) = groups(blocks, head) else { return Ok(None) };
        // Outputs stand without padding between them, and only the norm makes inputs in several orders.
        let whole = (kv_heads * dim).is_multiple_of(32) && (heads * dim).is_multiple_of(32);
        let one_order = blocks
            .iter()
            .flat_map(|block| &block.groups()[1..])
            .all(|group| group.together().is_some_and(|group| group.copies() == 1));
        if !whole || !one_order || !attention_decode::supported(heads, kv_heads, dim) {
            return Ok(None);
        }
        let rows = rows.clamp(1, MOST_ROWS);
        let partial = |group: &&QuantGroup| most_sums(group.k(), group.columns()) * rows * group.columns();
        let input = |group: &&QuantGroup| group.copies() * form.row_words(group.k());
        let (head_group, in_blocks) = groups.split_last().expect("the head's group is the last");
        // Splits depend on the rows: room for the most that any bucket needs.
        let pages = context.next_multiple_of(PAGE);
        let splits = |rows| attention_decode::scratch(rows, heads, kv_heads, dim, pages);
        let buckets = (0..=MOST_ROWS.ilog2()).map(|power| 1 << power).filter(|&bucket| bucket <= rows);
        let hidden = || Tensor::zeros(device, "hidden", rows, config.hidden_size);
        let words = groups.iter().map(input).max().unwrap_or(0);
        Ok(Some(Self {
            rows,
            hidden: [hidden()?, hidden()?],
            activation: Activation::new(device, form, words * rows)?,
            partial: Partial::new(device, in_blocks.iter().map(partial).max().unwrap_or(1))?,
            logits: Partial::new(device, partial(head_group))?,
            norm: RowNorm::new(device, rows, config.hidden_size, config.rms_norm_eps)?,
            splits: Tensor::zeros(device, "attention splits", 1, buckets.map(splits).max().unwrap_or(4))?,
        }))
    }

    /// Most rows of a pass.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How activations are stored.
    pub fn arithmetic(&self) -> Arithmetic {
        self.activation.form()
    }

    /// Where the pass takes the rows' embeddings from: [rows, hidden].
    pub fn embedded(&self) -> &Tensor {
        &self.hidden[0]
    }

    /// Where a pass leaves its scores.
    ///
    /// # Panics
    /// If the head is not the one that this was made for.
    pub fn logits(&self, head: &Head) -> Logits<'_> {
        let group = head.group().together().expect("the head is packed");
        let (cols, partial) = (group.columns(), self.logits.buffer());
        Logits { partial, ks: sums(partial.device(), group.k(), cols), cols }
    }

    /// Records the pass of `rows` rows (1, 2, 4 or 8) from their embeddings to their scores. Rows of one slot need
    /// [`OwnKeys::Stored`].
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when something does not fit; as [`CommandList::dispatch`].
    pub fn record(
        &self,
        list: &mut CommandList,
        model: &DecodeModel<'_>,
        rows: usize,
        own: OwnKeys,
    ) -> Result<()> {
        let nothing = Left { partial: &self.partial, sums: 0, columns: 0 };
        let mut left = nothing;
        let mut at = 0;
        for block in model.blocks {
            let [first, second] = block.groups() else { continue };
            let (Some(first), Some(second)) = (first.together(), second.together()) else { continue };
            self.normed(list, &mut at, left, block.norm(), first, rows)?;
            let from = self.product(list, first, true, rows)?;
            match block.spec().kind {
                BlockKind::Attention => {
                    self.attend(list, model, block.spec().layer, from, second, rows, own)?;
                }
                BlockKind::Mlp => {
                    let up = from.columns / 2;
                    swiglu_gather(list, from, up, second, &self.activation, rows)?;
                }
            }
            left = self.product(list, second, false, rows)?;
        }
        if let Some(group) = model.head.group().together() {
            self.normed(list, &mut at, left, model.head.norm(), group, rows)?;
            group_gemv(list, &self.activation, group, Some(&self.norm), &self.logits, rows)?;
        }
        Ok(())
    }

    fn normed(
        &self,
        list: &mut CommandList,
        at: &mut usize,
        left: Left<'_>,
        weight: &Tensor,
        group: &QuantGroup,
        rows: usize,
    ) -> Result<()> {
        let (from, to) = (&self.hidden[*at], &self.hidden[1 - *at]);
        *at = 1 - *at;
        residual_norm(list, from, left, weight, to, group, &self.norm, &self.activation, rows)
    }

    fn product(
        &self,
        list: &mut CommandList,
        group: &QuantGroup,
        normed: bool,
        rows: usize,
    ) -> Result<Left<'_>> {
        group_gemv(list, &self.activation, group, normed.then_some(&self.norm), &self.partial, rows)?;
        let columns = group.columns();
        let sums = sums(list.device(), group.k(), columns);
        Ok(Left { partial: &self.partial, sums, columns })
    }

    #[expect(clippy::too_many_arguments, reason = "each is an operand; a struct would only rename them")]
    fn attend(
        &self,
        list: &mut CommandList,
        model: &DecodeModel<'_>,
        layer: usize,
        from: Left<'_>,
        next: &QuantGroup,
        rows: usize,
        own: OwnKeys,
    ) -> Result<()> {
        let decode = attention_decode::Decode {
            heads: model.config.num_attention_heads,
            rows,
            window: model.config.sliding_window,
            cache: model.cache.layer(layer),
            state: model.state,
            splits: &self.splits,
        };
        let CacheShape { kv_heads, dim, .. } = decode.cache.shape();
        let key = decode.heads * dim;
        let value = key + kv_heads * dim;
        let from = Projections { left: from, key, value, rope: model.rope };
        if own == OwnKeys::Stored {
            kv_write(list, &decode, &from)?;
        }
        attention_decode(list, &decode, &from, own)?;
        attention_join(list, &decode, next, &self.activation)
    }
}
