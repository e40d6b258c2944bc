//! What a block is run on: a cache for one window, activations, rotations. Whose weights they are is not known here.

use std::cell::Cell;
use std::collections::HashMap;

use super::batch::{Batch, Row};
use super::cache::{Cache, CacheSize};
use super::pass::{Pass, rope_table};
use super::scratch::Scratch;
use super::weights::Block;
use crate::formats::config::LlamaConfig;
use crate::gpu::{CommandList, Device};
use crate::ops::Tensor;
use crate::ops::cache::CachePrecision;
use crate::ops::rope::RopeTable;
use crate::{Error, Result};

/// Room to run windows through one block after the other.
pub struct Workbench {
    config: LlamaConfig,
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

impl Workbench {
    /// Room for windows of up to `context` tokens of a model of these sizes, in passes of up to `rows` rows.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for a context beyond the model's; as the device reports.
    pub fn new(device: &Device, config: LlamaConfig, rows: usize, context: usize) -> Result<Self> {
        config.check_context(context)?;
        let rows = rows.clamp(1, context).next_power_of_two();
        Ok(Self {
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

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Something that runs windows through a block; `tap` sees each group's input and the rows of it that are in use,
    /// once for each number of rows that occurs, and what it records is run with every window.
    pub fn runner<'a>(&'a self, block: &'a Block, tap: RunnerTap<'a>) -> Runner<'a> {
        Runner { tap: Some(tap), ..self.untapped(block) }
    }

    /// The same without anything that sees the inputs.
    pub fn untapped<'a>(&'a self, block: &'a Block) -> Runner<'a> {
        Runner { bench: self, block, tap: None, slot: 0, end: block.groups().len(), lists: HashMap::new() }
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

    /// Activations.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

/// Sees the input of a group (its number, the tensor, its rows in use) while a [`Runner`] prepares a list.
pub type RunnerTap<'a> = &'a mut dyn FnMut(&mut CommandList, usize, &Tensor, usize) -> Result<()>;

/// Runs windows through one block, replaying lists that are prepared once.
pub struct Runner<'a> {
    bench: &'a Workbench,
    block: &'a Block,
    tap: Option<RunnerTap<'a>>,
    slot: u32,
    end: usize,
    lists: HashMap<usize, CommandList>,
}

impl Runner<'_> {
    /// The same in another slot; see [`Workbench::make_room`].
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
        let rows = self.bench.scratch.rows();
        let chunks = hidden.chunks_mut(rows * self.bench.config.hidden_size);
        chunks.enumerate().try_for_each(|(index, chunk)| self.pass(index * rows, chunk))
    }

    /// Runs tokens of a window from position `first` on, after those before them: at most as many as a pass has rows.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn pass(&mut self, first: usize, hidden: &mut [f32]) -> Result<()> {
        let stream = self.bench.scratch.hidden();
        stream.write(hidden)?;
        self.forward(first, hidden.len() / self.bench.config.hidden_size)?;
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
        let Workbench { config, cache, .. } = self.bench;
        let CacheSize { slots, context } = cache.size();
        let sequence = self.bench.sequence(self.slot)?;
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
        let Workbench { config, device, cache, scratch, rope, .. } = self.bench;
        let state = self.bench.sequence(self.slot)?.batch.state();
        let mut list = CommandList::new(device, self.block.spec().name.clone());
        let pass = Pass { config, scratch, rope, state, rows: rows.next_power_of_two() };
        pass.until(&mut list, self.block, cache.layer(0), self.end, &mut |list, group, input| {
            self.tap.as_mut().map_or(Ok(()), |tap| tap(list, group, input, rows))
        })?;
        Ok(list)
    }
}
