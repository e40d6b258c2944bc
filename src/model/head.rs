//! The last norm and the head: hidden states to scores of the vocabulary, a slice of rows at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::block::head_spec;
use super::embedding::EMBEDDING_TABLE;
use super::linear::{Linear, LinearGroup, load_dense};
use super::scratch::Scratch;
use super::source::WeightSource;
use super::weights::load_norm;

use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::gpu::{Buffer, CommandList, Device, Profile};
use crate::ops::Tensor;
use crate::ops::matmul::Store;
use crate::ops::rms_norm::rms_norm;
use crate::ops::sample::{Logits, MOST_ROWS};

/// Name of the last norm in the files, without `.weight`.
pub const LAST_NORM: &str = "model.norm";

/// Bytes of logits at a time, if a binding holds so many.
const SLICE_BYTES: u64 = 8 << 20;

/// Lists that are kept: the rows of a token are few and always the same, and a text that is scored 512 rows a pass has as
/// many slices of [`MOST_ROWS`] or more; those of prompts come once.
const MOST_PREPARED: usize = 64;

/// Norm, weights and room for some rows of logits.
pub struct Head {
    norm: Tensor,
    group: LinearGroup,
    input: Tensor,
    normed: Tensor,
    logits: Tensor,
    eps: f32,
    prepared: Mutex<Vec<Prepared>>,
}

/// A list that yields the logits of some rows of a hidden state.
struct Prepared {
    hidden: Buffer,
    rows: Vec<usize>,
    list: CommandList,
}

/// Name of the tensor that holds the head's float weights: its own, or the embedding table where they are tied and none
/// is stored.
pub fn head_weight(source: &dyn WeightSource, config: &LlamaConfig) -> String {
    let own = format!("{}.weight", head_spec(config).name);
    if config.tie_word_embeddings && !source.has(&own) { EMBEDDING_TABLE.to_owned() } else { own }
}

impl Head {
    /// Loads the head: a stored `lm_head` (packed or not) wins over the tied embedding.
    ///
    /// # Errors
    /// As the source and the device report.
    pub fn load(device: &Device, source: &dyn WeightSource, config: &LlamaConfig) -> Result<Self> {
        let spec = head_spec(config);
        let group = if source.has_packed(&spec) {
            LinearGroup::load(device, source, &[spec])?
        } else {
            let name = head_weight(source, config);
            let dense = load_dense(device, source, &name, [spec.n, spec.k], None)?;
            LinearGroup::new(vec![Arc::new(Linear::Dense(dense))])
        };
        Self::with(device, source, config, group)
    }

    /// A head with these weights.
    ///
    /// # Errors
    /// As the source and the device report.
    pub fn new(
        device: &Device,
        source: &dyn WeightSource,
        config: &LlamaConfig,
        linear: Arc<Linear>,
    ) -> Result<Self> {
        Self::with(device, source, config, LinearGroup::new(vec![linear]))
    }

    fn with(
        device: &Device,
        source: &dyn WeightSource,
        config: &LlamaConfig,
        group: LinearGroup,
    ) -> Result<Self> {
        let hidden = config.hidden_size;
        let bytes = device.max_slab_bytes().min(SLICE_BYTES) as usize;
        let rows = (bytes / (4 * config.vocab_size)).clamp(MOST_ROWS, 256);
        Ok(Self {
            norm: load_norm(device, source, LAST_NORM, hidden)?,
            group,
            input: Tensor::zeros(device, "head input", rows, hidden)?,
            normed: Tensor::zeros(device, "head normed", rows, hidden)?,
            logits: Tensor::zeros(device, "logits", rows, config.vocab_size)?,
            eps: config.rms_norm_eps,
            prepared: Mutex::default(),
        })
    }

    /// The norm's weights [1, hidden].
    pub(super) fn norm(&self) -> &Tensor {
        &self.norm
    }

    /// The weights.
    pub(super) fn group(&self) -> &LinearGroup {
        &self.group
    }

    /// Bytes of what is no weight: room for a slice of rows.
    pub fn room_bytes(&self) -> u64 {
        [&self.input, &self.normed, &self.logits].iter().map(|tensor| tensor.buffer().bytes()).sum()
    }

    /// Rows of a slice.
    pub fn slice_rows(&self) -> usize {
        self.logits.rows()
    }

    /// Scores of the given rows of `hidden`, at most [`Head::slice_rows`] of them: [rows, vocabulary].
    /// `scratch` lends room.
    ///
    /// # Errors
    /// As the device reports.
    pub fn logits(&self, scratch: &Scratch, hidden: &Tensor, rows: &[usize]) -> Result<Vec<f32>> {
        // The lock is kept until the logits are read, which are the same memory for all lists.
        let (prepared, at) = self.list(scratch, hidden, rows)?;
        prepared[at].list.run()?;
        self.logits.read(rows.len())
    }

    /// The same on the device, without waiting: the first rows of a tensor, which any of the head's other methods overwrites.
    ///
    /// # Errors
    /// As the device reports.
    pub fn run(&self, scratch: &Scratch, hidden: &Tensor, rows: &[usize]) -> Result<&Tensor> {
        let (prepared, at) = self.list(scratch, hidden, rows)?;
        prepared[at].list.run()?;
        Ok(&self.logits)
    }

    /// How long the commands take that yield the scores of these rows.
    ///
    /// # Errors
    /// As [`Head::logits`].
    pub fn profile(&self, scratch: &Scratch, hidden: &Tensor, rows: &[usize]) -> Result<Profile> {
        let (prepared, at) = self.list(scratch, hidden, rows)?;
        prepared[at].list.profile()
    }

    /// The lists that are kept, and the number of the one for these rows.
    fn list(
        &self,
        scratch: &Scratch,
        hidden: &Tensor,
        rows: &[usize],
    ) -> Result<(MutexGuard<'_, Vec<Prepared>>, usize)> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let known = prepared.iter().position(|one| one.rows == rows && one.hidden.is(hidden.buffer()));
        if let Some(at) = known {
            return Ok((prepared, at));
        }
        let mut list = CommandList::new(hidden.device(), "head");
        self.normed(&mut list, hidden, rows, &mut |list, normed| {
            self.group.record(list, scratch, normed, &[&self.logits], rows.len(), Store::Set)
        })?;
        if prepared.len() == MOST_PREPARED {
            prepared.remove(0);
        }
        prepared.push(Prepared { hidden: hidden.buffer().clone(), rows: rows.to_vec(), list });
        let at = prepared.len() - 1;
        Ok((prepared, at))
    }

    /// Records that row `from` of `hidden` is kept as row `to` for [`Head::record`].
    ///
    /// # Errors
    /// As [`CommandList::copy`].
    pub(super) fn keep(&self, list: &mut CommandList, hidden: &Tensor, from: usize, to: usize) -> Result<()> {
        let bytes = 4 * hidden.cols() as u64;
        list.copy(hidden.buffer(), from as u64 * bytes, self.input.buffer(), to as u64 * bytes, bytes)
    }

    /// Records the scores of the first `rows` rows (at most [`MOST_ROWS`]) of a hidden state, or of those kept.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the shapes differ; as the device reports.
    pub(super) fn record(
        &self,
        list: &mut CommandList,
        scratch: &Scratch,
        hidden: Option<&Tensor>,
        rows: usize,
    ) -> Result<Logits<'_>> {
        rms_norm(list, hidden.unwrap_or(&self.input), &self.norm, &self.normed, rows, self.eps)?;
        self.group.record(list, scratch, &self.normed, &[&self.logits], rows, Store::Set)?;
        Ok(Logits { partial: self.logits.buffer(), ks: 1, cols: self.logits.cols() })
    }

    /// Records the gathering and the norm of some rows of `hidden`; `then` records what is done with them.
    ///
    /// # Errors
    /// As the device and `then` report.
    pub fn normed(
        &self,
        list: &mut CommandList,
        hidden: &Tensor,
        rows: &[usize],
        then: &mut dyn FnMut(&mut CommandList, &Tensor) -> Result<()>,
    ) -> Result<()> {
        self.input.expect("head", rows.len(), hidden.cols())?;
        let row_bytes = 4 * hidden.cols() as u64;
        // Runs of consecutive rows are one copy each.
        let mut to = 0;
        for run in rows.chunk_by(|a, b| a + 1 == *b) {
            let bytes = run.len() as u64 * row_bytes;
            list.copy(hidden.buffer(), run[0] as u64 * row_bytes, self.input.buffer(), to, bytes)?;
            to += bytes;
        }
        rms_norm(list, &self.input, &self.norm, &self.normed, rows.len(), self.eps)?;
        then(list, &self.normed)
    }
}
