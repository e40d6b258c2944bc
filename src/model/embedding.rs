//! Tokens to hidden states, from a table on the device or rows looked up on the host.

use super::linear::Linear;
use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::formats::safetensors::{Checkpoint, TensorView};
use crate::gpu::{Buffer, CommandList, Device};
use crate::ops::embed::embed;
use crate::ops::{DenseMatrix, Tensor};

/// Name of the embedding table in the files.
pub const EMBEDDING_TABLE: &str = "model.embed_tokens.weight";

/// Where the embedding table is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Placement {
    /// In device memory.
    #[default]
    Device,
    /// In the mapped file; rows are looked up and sent.
    Host,
}

/// An embedding table.
pub enum Embedding {
    /// On the device.
    Device(DenseMatrix),
    /// In the mapped file, of a vocabulary by this many values.
    Host(usize),
}

impl Embedding {
    /// Loads or finds the table.
    ///
    /// # Errors
    /// As the file and the device report.
    pub fn load(
        device: &Device,
        checkpoint: &Checkpoint,
        config: &LlamaConfig,
        placement: Placement,
    ) -> Result<Self> {
        let view = checkpoint.get(EMBEDDING_TABLE)?;
        view.expect_shape(&[config.vocab_size, config.hidden_size])?;
        if placement == Placement::Host {
            return Ok(Self::Host(config.hidden_size));
        }
        match Linear::dense(device, &view, config.vocab_size, config.hidden_size, None)? {
            Linear::Dense(table) => Ok(Self::Device(table)),
            Linear::Packed(_) => Err(view.error("an embedding is never packed")),
        }
    }

    /// Records the look-up of `rows` tokens on the device; nothing for a table on the host.
    ///
    /// # Errors
    /// As [`embed`].
    pub fn record(
        &self,
        list: &mut CommandList,
        tokens: &Buffer,
        hidden: &Tensor,
        rows: usize,
    ) -> Result<()> {
        match self {
            Self::Device(table) => embed(list, table, tokens, hidden, rows),
            Self::Host(_) => Ok(()),
        }
    }

    /// Sends the rows of `tokens` (below the vocabulary) from the mapped file; nothing for a table on the device.
    ///
    /// # Errors
    /// As the file and the device report.
    pub fn send(&self, checkpoint: &Checkpoint, tokens: &[u32], hidden: &Tensor) -> Result<()> {
        match self {
            Self::Device(_) => Ok(()),
            Self::Host(cols) => hidden.write(&host_rows(checkpoint, tokens, *cols)?),
        }
    }
}

/// Rows of the table for `tokens`, rounded to halves as the device's table is: [tokens, cols].
pub(super) fn host_rows(checkpoint: &Checkpoint, tokens: &[u32], cols: usize) -> Result<Vec<f32>> {
    let view = checkpoint.get(EMBEDDING_TABLE)?;
    let row_bytes = view.dtype.size() * cols;
    let mut rows = Vec::with_capacity(tokens.len() * cols);
    for &token in tokens {
        let bytes = &view.bytes[token as usize * row_bytes..(token as usize + 1) * row_bytes];
        rows.extend(TensorView { bytes, ..view }.to_f16()?.iter().map(|value| value.to_f32()));
    }
    Ok(rows)
}
