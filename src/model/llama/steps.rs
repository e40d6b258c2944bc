//! Tokens of a few rows, step after step, without the host in between.
//!
//! [`Llama::begin`] runs the prompts and has the first tokens chosen; each [`Llama::step`] is one submission from the
//! tokens that the step before chose to the next ones, and may be submitted before those are known here. What was
//! chosen comes back in order through [`Llama::choices`]. When a text ends is the caller's business: rows go on until
//! [`Llama::retire`] or the end of their context, and what they have left in the cache beyond the end of a text does not
//! matter, because a row sees only positions that were written since its own beginning.

use std::collections::HashMap;

use super::Llama;
use crate::gpu::{CommandList, Device, Readback};
use crate::model::batch::Row;
use crate::model::decode::Decode;
use crate::model::embedding::Embedding;
use crate::ops::attention_decode::OwnKeys;
use crate::ops::sample::{
    Choice, Logits, MOST_ROWS, RowStart, SampleState, SamplerSettings, choice_offset, sample,
};
use crate::{Error, Result};

/// Most steps whose choices have not been read.
pub const MOST_IN_FLIGHT: usize = 8;

/// A text to be continued.
#[derive(Clone, Copy, Debug)]
pub struct DecodeRow<'a> {
    /// Its tokens, at least one.
    pub prompt: &'a [u32],
    /// How many of them, fewer than all, its slot of the cache holds already.
    pub cached: usize,
    /// How its tokens are chosen.
    pub sampling: SamplerSettings,
}

/// What the steps of a model need besides the model.
pub(in crate::model) struct Steps {
    state: SampleState,
    readback: Readback,
    lists: HashMap<Plan, CommandList>,
    /// Rows of the batch, those not in use included.
    rows: usize,
    greedy: bool,
    /// Steps submitted since the beginning.
    tick: u64,
    /// Tokens chosen last, as far as they were read.
    latest: Vec<u32>,
}

/// What a prepared list does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    rows: usize,
    greedy: bool,
    /// Only choose, from the ends of the prompts.
    first: bool,
}

impl Steps {
    /// For as many rows as there are slots, up to [`MOST_ROWS`].
    pub(in crate::model) fn new(device: &Device, slots: usize, vocabulary: usize) -> Result<Self> {
        let rows = most_rows(slots).next_power_of_two();
        Ok(Self {
            state: SampleState::new(device, rows, vocabulary)?,
            readback: Readback::new(device, "choices", 4 * rows as u64, MOST_IN_FLIGHT)?,
            lists: HashMap::new(),
            rows: 0,
            greedy: true,
            tick: 0,
            latest: Vec::new(),
        })
    }
}

/// Rows that decode together in a cache of `slots` sequences.
pub(in crate::model) fn most_rows(slots: usize) -> usize {
    slots.min(MOST_ROWS)
}

impl Llama {
    /// Most rows that [`Llama::begin`] takes: one a slot, up to [`MOST_ROWS`].
    pub fn most_decode_rows(&self) -> usize {
        most_rows(self.cache.size().slots)
    }

    /// Most steps whose choices have not been read: one when the embedding is on the host, which must know a token
    /// before the next step can begin.
    pub fn most_in_flight(&self) -> usize {
        match self.embedding {
            Embedding::Device(_) => MOST_IN_FLIGHT,
            Embedding::Host(_) => 1,
        }
    }

    /// Runs the prompts, row i in slot i, and has a first token chosen for each. Earlier rows are forgotten.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings or tokens out of range, an empty prompt or one beyond the context, or no rows or too
    /// many; as the device reports.
    pub fn begin(&mut self, rows: &[DecodeRow<'_>]) -> Result<()> {
        let (most, context) = (self.most_decode_rows(), self.cache.size().context);
        if rows.is_empty() || rows.len() > most {
            let message = format!("{} texts at a time where the cache has room for 1 to {most}", rows.len());
            return Err(Error::argument("--batch", message));
        }
        for row in rows {
            row.sampling.validate()?;
            if row.prompt.len() <= row.cached || row.prompt.len() > context {
                let (least, count) = (row.cached + 1, row.prompt.len());
                let message = format!("has {count} tokens where {least} to {context} fit");
                return Err(Error::argument("--prompt", message));
            }
        }
        self.steps.readback.discard()?;
        for (slot, row) in rows.iter().enumerate() {
            let last = self.run_prompt(row.prompt, row.cached, slot as u32)?;
            let mut list = CommandList::new(&self.device, "end of a prompt");
            self.head.keep(&mut list, self.scratch.hidden(), last, slot)?;
            list.run()?;
        }
        let ends: Vec<Row> = (0..)
            .zip(rows)
            .map(|(slot, row)| {
                let position = row.prompt.len() - 1;
                Row { token: row.prompt[position], slot, position: position as u32 }
            })
            .collect();
        let bucket = rows.len().next_power_of_two();
        let slots = self.cache.size().slots;
        self.batch.set(&ends, bucket, self.config.vocab_size, slots, context)?;
        let starts: Vec<_> = rows
            .iter()
            .map(|row| RowStart { settings: row.sampling, history: row.prompt, context })
            .collect();
        self.steps.state.set(&starts)?;
        self.steps.rows = bucket;
        self.steps.greedy = rows.iter().all(|row| row.sampling.temperature == 0.0);
        self.steps.tick = 0;
        self.submit(true)
    }

    /// Runs a prompt but for what is cached in a slot; its last row's place in the hidden state.
    fn run_prompt(&mut self, prompt: &[u32], cached: usize, slot: u32) -> Result<usize> {
        let rows: Vec<Row> =
            (0..).zip(prompt).skip(cached).map(|(position, &token)| Row { token, slot, position }).collect();
        let most = self.scratch.rows();
        for chunk in rows.chunks(most) {
            self.pass(chunk)?;
        }
        Ok((rows.len() - 1) % most)
    }

    /// Submits a step of all rows in use.
    ///
    /// # Errors
    /// [`Error::Shape`] when [`Llama::most_in_flight`] steps have not been read or nothing has begun; as the device
    /// reports.
    pub fn step(&mut self) -> Result<()> {
        if self.steps.rows == 0 || self.in_flight() >= self.most_in_flight() {
            let message = format!("{} steps in flight, {} at most", self.in_flight(), self.most_in_flight());
            return Err(Error::shape("step", message));
        }
        let embedded = self.decode.as_ref().map_or(self.scratch.hidden(), Decode::embedded);
        self.embedding.send(&*self.source, &self.steps.latest, embedded)?;
        self.submit(false)
    }

    /// Steps submitted whose choices have not been read.
    pub fn in_flight(&self) -> usize {
        self.steps.readback.pending()
    }

    /// What the oldest of the steps in flight chose for each row, after waiting for it.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is none; as the device reports.
    pub fn choices(&mut self) -> Result<Vec<Choice>> {
        let words: Vec<u32> = self.steps.readback.wait()?;
        let choices: Vec<_> = words.into_iter().map(Choice::from_word).collect();
        let token = |choice: &Choice| if let Choice::Token(token) = *choice { token } else { 0 };
        self.steps.latest = choices.iter().map(token).collect();
        Ok(choices)
    }

    /// Takes a row out of use from the next step on.
    ///
    /// # Errors
    /// As the device reports.
    pub fn retire(&mut self, row: usize) -> Result<()> {
        self.batch.retire(row)
    }

    /// Submits a prepared list, and the reading of what it chooses.
    fn submit(&mut self, first: bool) -> Result<()> {
        let plan = Plan { rows: self.steps.rows, greedy: self.steps.greedy, first };
        if !self.steps.lists.contains_key(&plan) {
            let list = self.plan(plan)?;
            self.steps.lists.insert(plan, list);
        }
        let Steps { state, readback, lists, rows, tick, .. } = &mut self.steps;
        let offset = choice_offset(*rows, *tick);
        lists[&plan].run_and_read(readback, state.choices(), offset, 4 * *rows as u64)?;
        *tick += 1;
        Ok(())
    }

    /// The list of a step of all rows, or of the first choice.
    pub(super) fn step_list(&self, greedy: bool, first: bool) -> Result<CommandList> {
        self.plan(Plan { rows: self.most_decode_rows().next_power_of_two(), greedy, first })
    }

    fn plan(&self, plan: Plan) -> Result<CommandList> {
        let Plan { rows, greedy, first } = plan;
        let mut list = CommandList::new(&self.device, format!("step of {rows} rows"));
        let logits = if first {
            self.head.record(&mut list, &self.scratch, None, rows)?
        } else {
            self.record_logits(&mut list, rows)?
        };
        let positions = &self.batch.state().positions;
        sample(&mut list, logits, &self.steps.state, positions, self.batch.tokens(), rows, greedy)?;
        Ok(list)
    }

    /// Records a step from the rows' tokens to their logits: the place for every way of doing that.
    fn record_logits(&self, list: &mut CommandList, rows: usize) -> Result<Logits<'_>> {
        if let Some(decode) = &self.decode {
            self.record_decode(list, decode, rows, OwnKeys::New)?;
            return Ok(decode.logits(&self.head));
        }
        self.record(list, rows)?;
        self.head.record(list, &self.scratch, Some(self.scratch.hidden()), rows)
    }
}
