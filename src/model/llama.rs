//! A whole model on one device: rows of tokens in, logits out.

pub(super) mod steps;
mod tune;

use std::collections::HashMap;
use std::path::Path;

use self::steps::Steps;
use super::batch::{Batch, Row};
use super::cache::{Cache, CacheSize};
use super::decode::{Decode, DecodeModel, own_keys, read_scores};
use super::embedding::{Embedding, Placement};
use super::head::Head;
use super::pass::Pass;
use super::plan::Planner;
use super::room::{Room, pass_rows};
use super::scratch::Scratch;
use super::source::WeightSource;
use super::weights::{Block, Weights};
use crate::formats::config::LlamaConfig;
use crate::formats::safetensors::Checkpoint;
use crate::gpu::{Arithmetic, CommandList, Device, Profile};
use crate::ops::Tensor;
use crate::ops::attention_decode::OwnKeys;
use crate::ops::cache::CachePrecision;
use crate::ops::rope::RopeTable;
use crate::{Error, Result};

pub use self::steps::{DecodeRow, MOST_IN_FLIGHT};

/// How to load a model.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Most rows of a pass; prompts are cut into chunks of this.
    pub rows: usize,
    /// Sequences and their length.
    pub cache: CacheSize,
    /// Where the embedding table is kept.
    pub embedding: Placement,
    /// Element format of the cache.
    pub precision: CachePrecision,
}

/// Device memory in bytes, as the allocator counted it while the parts were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryByPart {
    /// Embedding, blocks, norms and head.
    pub weights: u64,
    /// Keys and values.
    pub cache: u64,
    /// Activations, tables and the rows' state.
    pub scratch: u64,
}

/// Runs of a token's list over which its time is taken.
const RUNS: u32 = 8;

/// How long the commands of a token take.
#[derive(Clone, Debug)]
pub struct TokenProfile {
    /// From the embedding to the last block.
    pub pass: Profile,
    /// The last norm and the head, where they are a list of their own.
    pub head: Profile,
    /// Seconds of all of it as it runs in a model, command after command.
    pub seconds: f64,
}

/// A model on a device.
pub struct Llama {
    config: LlamaConfig,
    source: Box<dyn WeightSource>,
    device: Device,
    embedding: Embedding,
    blocks: Vec<Block>,
    head: Head,
    cache: Cache,
    scratch: Scratch,
    rope: RopeTable,
    batch: Batch,
    lists: HashMap<usize, CommandList>,
    /// The pass of few rows, where the weights allow it, and its lists by rows and whether their slots repeat.
    decode: Option<Decode>,
    decode_lists: HashMap<(usize, bool), CommandList>,
    steps: Steps,
    memory: MemoryByPart,
}

impl Llama {
    /// Loads the model in `directory`, dense or packed, telling `progress` after each block (done, all).
    ///
    /// # Errors
    /// As the files and the device report; [`Error::Argument`] for a context beyond the model's; [`Error::Limit`], before
    /// anything is loaded, when the device's memory limit does not hold it.
    pub fn load(
        device: &Device,
        directory: &Path,
        options: LoadOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let config = LlamaConfig::load(directory)?;
        let checkpoint = Checkpoint::open(directory)?;
        Self::from_source(device, config, Box::new(checkpoint), options, progress)
    }

    /// Loads a model of these sizes from anywhere, as [`Llama::load`] does from a directory.
    ///
    /// # Errors
    /// As [`Llama::load`].
    pub fn from_source(
        device: &Device,
        config: LlamaConfig,
        source: Box<dyn WeightSource>,
        options: LoadOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let context = options.cache.context;
        config.check_context(context)?;
        if options.cache.slots == 0 {
            return Err(Error::argument("--batch", "a cache for no text at all"));
        }
        let rows = match device.memory_limit() {
            Some(limit) => {
                Planner::new(device, &config, &*source, options.embedding)?.rows(&options, limit)?
            }
            None => pass_rows(&config, &options),
        };
        let room = Room::new(device, &config, &*source, &options, rows)?;
        let weights = Weights::load(device, &config, &*source, options.embedding, progress)?;
        let Weights { embedding, blocks, head, bytes: [weight_bytes, head_room] } = weights;
        let held = device.memory().held;
        let decode = Decode::new(device, &config, &blocks, &head, context, rows)?;
        let Room { cache, scratch, rope, batch, steps, bytes: [cached, rest] } = room;
        let scratch_bytes = rest + head_room + device.memory().held - held;
        Ok(Self {
            config,
            source,
            device: device.clone(),
            embedding,
            blocks,
            head,
            cache,
            scratch,
            rope,
            batch,
            lists: HashMap::new(),
            decode,
            decode_lists: HashMap::new(),
            steps,
            memory: MemoryByPart { weights: weight_bytes, cache: cached, scratch: scratch_bytes },
        })
    }

    /// Builds the kernels that a model of these sizes will want for a full pass over a prompt and for steps, without loading
    /// it: for a thread beside the one that does, which finds them built or waits for the one in work.
    ///
    /// # Errors
    /// As [`Llama::from_source`].
    pub fn compile_ahead(
        device: &Device,
        config: LlamaConfig,
        source: Box<dyn WeightSource>,
        options: LoadOptions,
        greedy: bool,
    ) -> Result<()> {
        let model = Self::from_source(&device.counting()?, config, source, options, &mut |_, _| {})?;
        let pass = || model.prepare(model.scratch.rows());
        let (pass, (first, step)) = rayon::join(pass, || {
            rayon::join(|| model.step_list(greedy, true), || model.step_list(greedy, false))
        });
        [pass, first, step].into_iter().try_for_each(|list| list.map(drop))
    }

    /// The model's sizes.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Device memory by part.
    pub fn memory(&self) -> MemoryByPart {
        self.memory
    }

    /// Most rows of a pass.
    pub fn rows(&self) -> usize {
        self.scratch.rows()
    }

    /// The cache's size.
    pub fn cache_size(&self) -> CacheSize {
        self.cache.size()
    }

    /// Runs rows through all blocks: each token sees those of its slot at lower positions and itself. Returns the
    /// logits [wanted, vocabulary] of the rows listed in `wanted` (ascending).
    ///
    /// # Errors
    /// [`Error::Argument`] when a token, position or slot is out of range; as the device reports.
    pub fn forward(&mut self, rows: &[Row], wanted: &[usize]) -> Result<Vec<f32>> {
        let most = self.scratch.rows();
        let mut logits = Vec::with_capacity(wanted.len() * self.config.vocab_size);
        for (index, chunk) in rows.chunks(most).enumerate() {
            let first = index * most;
            let here: Vec<usize> = wanted
                .iter()
                .filter(|&&row| row >= first && row < first + chunk.len())
                .map(|row| row - first)
                .collect();
            if self.decode.as_ref().is_some_and(|decode| chunk.len() <= decode.rows()) {
                logits.extend(self.decode(chunk, &here)?);
                continue;
            }
            self.pass(chunk)?;
            for slice in here.chunks(self.slice_rows()) {
                logits.extend(self.logits(slice)?);
            }
        }
        Ok(logits)
    }

    /// Runs at most [`Llama::rows`] rows through all blocks; their hidden states stay for [`Llama::logits`]. For
    /// callers who want logits slice by slice.
    ///
    /// # Errors
    /// As [`Llama::forward`].
    pub fn pass(&mut self, rows: &[Row]) -> Result<()> {
        let bucket = self.seat(rows, self.scratch.hidden())?;
        if !self.lists.contains_key(&bucket) {
            let list = self.prepare(bucket)?;
            self.lists.insert(bucket, list);
        }
        self.lists[&bucket].run()
    }

    /// Arithmetic of products of few rows; `None` where the weights are not all packed.
    pub fn arithmetic(&self) -> Option<Arithmetic> {
        self.decode.as_ref().map(Decode::arithmetic)
    }

    /// Runs a few rows the short way; the logits [wanted, vocabulary] of those that are wanted.
    fn decode(&mut self, rows: &[Row], wanted: &[usize]) -> Result<Vec<f32>> {
        let Some(decode) = &self.decode else { return Ok(Vec::new()) };
        let bucket = self.seat(rows, decode.embedded())?;
        let own = own_keys(rows);
        let key = (bucket, own == OwnKeys::Stored);
        if !self.decode_lists.contains_key(&key) {
            let mut list = CommandList::new(&self.device, format!("decode of {bucket} rows"));
            self.record_decode(&mut list, decode, bucket, own)?;
            self.decode_lists.insert(key, list);
        }
        self.decode_lists[&key].run()?;
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        read_scores(decode.logits(&self.head), bucket, wanted, self.config.vocab_size)
    }

    /// Tells the device about the rows of a pass and, with the table on the host, sends their embeddings to `hidden`; the
    /// bucket of the pass.
    fn seat(&self, rows: &[Row], hidden: &Tensor) -> Result<usize> {
        let bucket = rows.len().next_power_of_two();
        let CacheSize { slots, context } = self.cache.size();
        self.batch.set(rows, bucket, self.config.vocab_size, slots, context)?;
        let tokens: Vec<u32> = rows.iter().map(|row| row.token).collect();
        self.embedding.send(&*self.source, &tokens, hidden)?;
        Ok(bucket)
    }

    /// Records the short way from the rows' tokens to their scores.
    fn record_decode(
        &self,
        list: &mut CommandList,
        decode: &Decode,
        rows: usize,
        own: OwnKeys,
    ) -> Result<()> {
        self.embedding.record(list, self.batch.tokens(), decode.embedded(), rows)?;
        let model = DecodeModel {
            config: &self.config,
            blocks: &self.blocks,
            head: &self.head,
            cache: &self.cache,
            rope: &self.rope,
            state: self.batch.state(),
        };
        decode.record(list, &model, rows, own)
    }

    /// Logits [wanted, vocabulary] of rows of the last pass, at most [`Llama::slice_rows`] of them.
    ///
    /// # Errors
    /// As [`Head::logits`].
    pub fn logits(&self, wanted: &[usize]) -> Result<Vec<f32>> {
        self.head.logits(&self.scratch, self.scratch.hidden(), wanted)
    }

    /// The same as the first rows of a tensor on the device, without waiting; the next logits take its place.
    ///
    /// # Errors
    /// As [`Head::run`].
    pub fn device_logits(&mut self, wanted: &[usize]) -> Result<&Tensor> {
        self.head.run(&self.scratch, self.scratch.hidden(), wanted)
    }

    /// Most rows of logits at a time.
    pub fn slice_rows(&self) -> usize {
        self.head.slice_rows()
    }

    /// Runs one row and then each of its commands again by itself: how long they take, logits included.
    ///
    /// # Errors
    /// As [`Llama::forward`].
    pub fn profile(&mut self, row: Row) -> Result<TokenProfile> {
        if self.decode.is_some() {
            self.decode(&[row], &[0])?;
            let list = &self.decode_lists[&(1, false)];
            let pass = list.profile()?;
            let head = Profile { clock: pass.clock, steps: Vec::new() };
            return Ok(TokenProfile {
                seconds: list.seconds(RUNS, pass.clock)? / f64::from(RUNS),
                pass,
                head,
            });
        }
        self.pass(&[row])?;
        let pass = self.lists[&1].profile()?;
        let head = self.head.profile(&self.scratch, self.scratch.hidden(), &[0])?;
        let list = self.lists[&1].seconds(RUNS, pass.clock)? / f64::from(RUNS);
        let seconds = list + head.steps.iter().map(|step| step.1).sum::<f64>();
        Ok(TokenProfile { pass, head, seconds })
    }

    /// Bytes of weights and of `context` tokens' keys and values that a token reads.
    pub fn token_bytes(&self, context: usize) -> u64 {
        let config = &self.config;
        let seen = config.sliding_window.map_or(context, |window| context.min(window));
        let cached = 2 * config.num_hidden_layers * seen * config.key_value_size();
        let table = match &self.embedding {
            Embedding::Device(table) => table.slabs().iter().map(|slab| slab.buffer.bytes()).sum(),
            Embedding::Host(_) => 0,
        };
        self.memory.weights - table + (cached * self.cache.layer(0).shape().precision.bytes()) as u64
    }

    /// The dispatches of a pass over `rows` rows.
    fn prepare(&self, rows: usize) -> Result<CommandList> {
        let mut list = CommandList::new(&self.device, format!("pass of {rows} rows"));
        self.record(&mut list, rows)?;
        Ok(list)
    }

    /// Records the rows' tokens through all blocks.
    fn record(&self, list: &mut CommandList, rows: usize) -> Result<()> {
        self.embedding.record(list, self.batch.tokens(), self.scratch.hidden(), rows)?;
        let state = self.batch.state();
        let pass = Pass { config: &self.config, scratch: &self.scratch, rope: &self.rope, state, rows };
        for block in &self.blocks {
            pass.block(list, block, self.cache.layer(block.spec().layer), &mut |_, _, _| Ok(()))?;
        }
        Ok(())
    }
}
