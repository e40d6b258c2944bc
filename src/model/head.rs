//! The last norm and the head: hidden states to scores of the vocabulary, a slice of rows at a time.

use std::sync::{Arc, Mutex, PoisonError};

use super::block::head_spec;
use super::embedding::EMBEDDING_TABLE;
use super::linear::{Linear, LinearGroup};
use super::scratch::Scratch;
use super::weights::load_norm;

use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::formats::exl2;
use crate::formats::safetensors::Checkpoint;
use crate::gpu::{Buffer, CommandList, Device};
use crate::ops::Tensor;
use crate::ops::matmul::Store;
use crate::ops::rms_norm::rms_norm;

/// Name of the last norm in the files, without `.weight`.
pub const LAST_NORM: &str = "model.norm";

/// Bytes of logits at a time.
const SLICE_BYTES: usize = 32 << 20;

/// Lists that are kept: the rows of a token are few and always the same, those of prompts are not.
const MOST_PREPARED: usize = 16;

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
pub fn head_weight(checkpoint: &Checkpoint, config: &LlamaConfig) -> String {
    let own = format!("{}.weight", head_spec(config).name);
    if config.tie_word_embeddings && !checkpoint.has(&own) { EMBEDDING_TABLE.to_owned() } else { own }
}

impl Head {
    /// Loads the head: a stored `lm_head` (packed or not) wins over the tied embedding.
    ///
    /// # Errors
    /// As the file and the device report.
    pub fn load(device: &Device, checkpoint: &Checkpoint, config: &LlamaConfig) -> Result<Self> {
        let spec = head_spec(config);
        let linear = if exl2::has_packed(checkpoint, &spec.name) {
            Linear::load(device, checkpoint, &spec, &[])?
        } else {
            let view = checkpoint.get(&head_weight(checkpoint, config))?;
            view.expect_shape(&[spec.n, spec.k])?;
            Linear::dense(device, &view, spec.n, spec.k, None)?
        };
        Self::new(device, checkpoint, config, Arc::new(linear))
    }

    /// A head with these weights.
    ///
    /// # Errors
    /// As the file and the device report.
    pub fn new(
        device: &Device,
        checkpoint: &Checkpoint,
        config: &LlamaConfig,
        linear: Arc<Linear>,
    ) -> Result<Self> {
        let hidden = config.hidden_size;
        let rows = (SLICE_BYTES / (4 * config.vocab_size)).clamp(1, 256);
        Ok(Self {
            norm: load_norm(device, checkpoint, LAST_NORM, hidden)?,
            group: LinearGroup::new(vec![linear]),
            input: Tensor::zeros(device, "head input", rows, hidden)?,
            normed: Tensor::zeros(device, "head normed", rows, hidden)?,
            logits: Tensor::zeros(device, "logits", rows, config.vocab_size)?,
            eps: config.rms_norm_eps,
            prepared: Mutex::default(),
        })
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
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let known = prepared.iter().position(|one| one.rows == rows && one.hidden.is(hidden.buffer()));
        let at = match known {
            Some(at) => at,
            None => {
                let mut list = CommandList::new(hidden.device(), "head");
                self.normed(&mut list, hidden, rows, &mut |list, normed| {
                    self.group.record(list, scratch, normed, &[&self.logits], rows.len(), Store::Set)
                })?;
                if prepared.len() == MOST_PREPARED {
                    prepared.remove(0);
                }
                prepared.push(Prepared { hidden: hidden.buffer().clone(), rows: rows.to_vec(), list });
                prepared.len() - 1
            }
        };
        prepared[at].list.run()?;
        self.logits.read(rows.len())
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
