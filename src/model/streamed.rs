//! A model run a block at a time, for models larger than the card: weights pass through, hidden states wait on the host.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;

use super::batch::{Batch, Row};
use super::block::blocks;
use super::cache::{Cache, CacheSize};
use super::head::Head;
use super::pass::{Pass, rope_table};
use super::scratch::Scratch;
use super::weights::Block;
use crate::formats::config::LlamaConfig;
use crate::formats::safetensors::Checkpoint;
use crate::gpu::{CommandList, Device};
use crate::ops::Tensor;
use crate::ops::cache::CachePrecision;
use crate::ops::rope::RopeTable;
use crate::{Error, Result};

/// A model whose blocks are loaded, used and dropped in turn.
pub struct Streamed {
    config: LlamaConfig,
    checkpoint: Checkpoint,
    device: Device,
    cache: Cache,
    scratch: Scratch,
    rope: RopeTable,
    sequences: Vec<Sequence>,
}

/// The rows of the window in a slot.
struct Sequence {
    batch: Batch,
    /// First position and number of those that are on the device.
    set: Cell<Option<(usize, usize)>>,
}

impl Sequence {
    fn new(device: &Device, rows: usize) -> Result<Self> {
        Ok(Self { batch: Batch::new(device, rows)?, set: Cell::new(None) })
    }
}

impl Streamed {
    /// Opens the model in `directory` for windows of up to `context` tokens, in passes of up to `rows` rows.
    ///
    /// # Errors
    /// As the files and the device report.
    pub fn open(device: &Device, directory: &Path, rows: usize, context: usize) -> Result<Self> {
        let config = LlamaConfig::load(directory)?;
        config.check_context(context)?;
        let rows = rows.clamp(1, context).next_power_of_two();
        Ok(Self {
            checkpoint: Checkpoint::open(directory)?,
            cache: Cache::new(device, &config, 1, CacheSize { slots: 1, context }, CachePrecision::Half)?,
            // A block's linears may be replaced by packed ones.
            scratch: Scratch::new(device, &config, rows, context, |_| true)?,
            rope: rope_table(device, &config, context)?,
            sequences: vec![Sequence::new(device, rows)?],
            device: device.clone(),
            config,
        })
    }

    /// The model's sizes.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The mapped files.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Hidden states [tokens, hidden] of a window after the embedding.
    ///
    /// # Errors
    /// [`Error::Argument`] for a token outside the vocabulary; as the files report.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.config.vocab_size) {
            let message = format!("token id {token} where the vocabulary has {}", self.config.vocab_size);
            return Err(Error::argument("tokens", message));
        }
        let shape = [self.config.vocab_size, self.config.hidden_size];
        super::embedding::host_rows(&self.checkpoint, tokens, shape)
    }

    /// Loads block `index` of [`blocks`].
    ///
    /// # Errors
    /// As [`Block::load`].
    pub fn block(&self, index: usize) -> Result<Block> {
        let specs = blocks(&self.config);
        Block::load(&self.device, &self.checkpoint, &specs[index], self.config.hidden_size)
    }

    /// Something that runs windows through a block; `tap` sees each group's input and the rows of it that are in use,
    /// once for each number of rows that occurs, and what it records is run with every window.
    pub fn runner<'a>(&'a self, block: &'a Block, tap: RunnerTap<'a>) -> Runner<'a> {
        Runner { tap: Some(tap), ..self.untapped(block) }
    }

    /// The same without anything that sees the inputs.
    pub fn untapped<'a>(&'a self, block: &'a Block) -> Runner<'a> {
        Runner { model: self, block, tap: None, slot: 0, end: block.groups().len(), lists: HashMap::new() }
    }

    /// Makes room for windows in this many slots, where runners may be in the midst of one each; there is one at first.
    ///
    /// # Errors
    /// As [`Cache::new`].
    pub fn make_room(&mut self, slots: usize) -> Result<()> {
        if slots > self.cache.size().slots {
            let size = CacheSize { slots, ..self.cache.size() };
            self.cache = Cache::new(&self.device, &self.config, 1, size, CachePrecision::Half)?;
        }
        while self.sequences.len() < slots {
            self.sequences.push(Sequence::new(&self.device, self.scratch.rows())?);
        }
        Ok(())
    }

    fn sequence(&self, slot: u32) -> Result<&Sequence> {
        let slots = self.sequences.len();
        let missing = || Error::shape("window", format!("slot {slot} where there is room for {slots}"));
        self.sequences.get(slot as usize).ok_or_else(missing)
    }

    /// Activations, for a head that records or runs.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Loads the head.
    ///
    /// # Errors
    /// As [`Head::load`].
    pub fn head(&self) -> Result<Head> {
        Head::load(&self.device, &self.checkpoint, &self.config)
    }
}

/// Sees the input of a group (its number, the tensor, its rows in use) while a [`Runner`] prepares a list.
pub type RunnerTap<'a> = &'a mut dyn FnMut(&mut CommandList, usize, &Tensor, usize) -> Result<()>;

/// Runs windows through one block, replaying lists that are prepared once.
pub struct Runner<'a> {
    model: &'a Streamed,
    block: &'a Block,
    tap: Option<RunnerTap<'a>>,
    slot: u32,
    end: usize,
    lists: HashMap<usize, CommandList>,
}

impl Runner<'_> {
    /// The same in another slot; see [`Streamed::make_room`].
    #[must_use]
    pub fn in_slot(self, slot: u32) -> Self {
        Self { slot, ..self }
    }

    /// The same as far as the input of group `end`; what is left in the hidden states is then what was there.
    #[must_use]
    pub fn until(self, end: usize) -> Self {
        Self { end, ..self }
    }

    /// Runs one window (positions 0 ..) through the block, replacing `hidden` [tokens, hidden].
    ///
    /// # Errors
    /// As the device and the tap report.
    pub fn run(&mut self, hidden: &mut [f32]) -> Result<()> {
        let rows = self.model.scratch.rows();
        let chunks = hidden.chunks_mut(rows * self.model.config.hidden_size);
        chunks.enumerate().try_for_each(|(index, chunk)| self.pass(index * rows, chunk))
    }

    /// Runs tokens of a window from position `first` on, after those before them: at most as many as a pass has rows.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn pass(&mut self, first: usize, hidden: &mut [f32]) -> Result<()> {
        let stream = self.model.scratch.hidden();
        stream.write(hidden)?;
        self.forward(first, hidden.len() / self.model.config.hidden_size)?;
        stream.read_into(hidden)
    }

    /// The same on the first `rows` hidden states of the scratch, where the results are left; does not wait.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn forward(&mut self, first: usize, rows: usize) -> Result<()> {
        self.list(first, rows)?.run()
    }

    /// What [`Runner::forward`] runs, to be submitted with other work before anything runs at another position in this slot.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn list(&mut self, first: usize, rows: usize) -> Result<&CommandList> {
        let Streamed { config, cache, .. } = self.model;
        let CacheSize { slots, context } = cache.size();
        let sequence = self.model.sequence(self.slot)?;
        if sequence.set.get() != Some((first, rows)) {
            let row = |at: usize| Row { token: 0, slot: self.slot, position: (first + at) as u32 };
            let state: Vec<Row> = (0..rows).map(row).collect();
            sequence.batch.set(&state, rows.next_power_of_two(), config.vocab_size, slots, context)?;
            sequence.set.set(Some((first, rows)));
        }
        if !self.lists.contains_key(&rows) {
            let list = self.prepare(rows)?;
            self.lists.insert(rows, list);
        }
        Ok(&self.lists[&rows])
    }

    fn prepare(&mut self, rows: usize) -> Result<CommandList> {
        let Streamed { config, device, cache, scratch, rope, .. } = self.model;
        let state = self.model.sequence(self.slot)?.batch.state();
        let mut list = CommandList::new(device, self.block.spec().name.clone());
        let pass = Pass { config, scratch, rope, state, rows: rows.next_power_of_two() };
        pass.until(&mut list, self.block, cache.layer(0), self.end, &mut |list, group, input| {
            self.tap.as_mut().map_or(Ok(()), |tap| tap(list, group, input, rows))
        })?;
        Ok(list)
    }
}
