//! The forward pass of one block, top to bottom.

use super::block::{BlockKind, Role};
use super::scratch::Scratch;
use super::weights::Block;
use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::gpu::{CommandList, Device};
use crate::ops::attention::attention;
use crate::ops::cache::{RowState, cache_write};
use crate::ops::matmul::Store;
use crate::ops::rms_norm::rms_norm;
use crate::ops::rope::{RopeTable, rope};
use crate::ops::swiglu::swiglu;
use crate::ops::{PagedCache, Tensor};

/// Sees the input [rows, k] of a group of linears while a pass is recorded, and may record something of its own.
pub type Tap<'a> = &'a mut dyn FnMut(&mut CommandList, usize, &Tensor) -> Result<()>;

/// What all blocks of a pass share.
pub struct Pass<'a> {
    /// Sizes of the model.
    pub config: &'a LlamaConfig,
    /// Activations.
    pub scratch: &'a Scratch,
    /// Rotations.
    pub rope: &'a RopeTable,
    /// Positions and slots of the rows.
    pub state: &'a RowState,
    /// Rows of this pass.
    pub rows: usize,
}

impl Pass<'_> {
    /// Records hidden += block(hidden) over the rows. `cache` belongs to the block's layer; `tap` sees each group's
    /// input.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when a weight does not fit; as [`CommandList::dispatch`].
    pub fn block(
        &self,
        list: &mut CommandList,
        block: &Block,
        cache: &PagedCache,
        tap: Tap<'_>,
    ) -> Result<()> {
        self.until(list, block, cache, block.groups().len(), tap)
    }

    /// Records a block as far as the input of group `end`, which `tap` sees as those before it; all of it where there is
    /// no such group.
    ///
    /// # Errors
    /// As [`Pass::block`].
    pub fn until(
        &self,
        list: &mut CommandList,
        block: &Block,
        cache: &PagedCache,
        end: usize,
        tap: Tap<'_>,
    ) -> Result<()> {
        let hidden = self.scratch.hidden();
        let normed = self.scratch.tensor(Role::Normed);
        rms_norm(list, hidden, block.norm(), normed, self.rows, self.config.rms_norm_eps)?;
        for (index, group) in block.spec().groups.iter().enumerate().take(end + 1) {
            if index > 0 {
                match block.spec().kind {
                    BlockKind::Attention => self.attend(list, cache)?,
                    BlockKind::Mlp => self.activate(list)?,
                }
            }
            let input = self.scratch.tensor(group.input);
            tap(list, index, input)?;
            if index < end {
                self.group(list, block, index, input)?;
            }
        }
        Ok(())
    }

    /// Outputs of group `index` of a block; a residual output is added to the hidden state.
    fn group(&self, list: &mut CommandList, block: &Block, index: usize, input: &Tensor) -> Result<()> {
        let spec = &block.spec().groups[index];
        let outputs: Vec<_> = spec.linears.iter().map(|linear| self.scratch.tensor(linear.output)).collect();
        let residual = spec.linears.iter().any(|linear| linear.output == Role::Residual);
        let store = if residual { Store::Add } else { Store::Set };
        block.groups()[index].record(list, self.scratch, input, &outputs, self.rows, store)
    }

    /// queries, keys, values → attended, with the keys and values left in the cache.
    fn attend(&self, list: &mut CommandList, cache: &PagedCache) -> Result<()> {
        let scratch = self.scratch;
        let (queries, keys) = (scratch.tensor(Role::Queries), scratch.tensor(Role::Keys));
        let values = scratch.tensor(Role::Values);
        rope(list, queries, &self.state.positions, self.rope, self.rows)?;
        rope(list, keys, &self.state.positions, self.rope, self.rows)?;
        cache_write(list, keys, values, self.state, cache, self.rows)?;
        let attended = scratch.tensor(Role::Attended);
        let window = self.config.sliding_window;
        attention(list, queries, cache, self.state, scratch.partial(), attended, self.rows, window)
    }

    /// gate, up → activated.
    fn activate(&self, list: &mut CommandList) -> Result<()> {
        let scratch = self.scratch;
        swiglu(
            list,
            scratch.tensor(Role::Gate),
            scratch.tensor(Role::Up),
            scratch.tensor(Role::Activated),
            self.rows,
        )
    }
}

/// The rotations of a model for contexts up to `context`.
///
/// # Errors
/// As [`Device::upload`].
pub(super) fn rope_table(device: &Device, config: &LlamaConfig, context: usize) -> Result<RopeTable> {
    let (frequencies, scale) = config.rope.inverse_frequencies(config.head_dim, context);
    RopeTable::new(device, &frequencies, scale, context)
}
