//! Tokens to hidden states, from a table on the device or rows looked up on the host.

use super::linear::Linear;
use crate::formats::config::LlamaConfig;
use crate::formats::safetensors::{Checkpoint, TensorView};
use crate::gpu::{Buffer, CommandList, Device};
use crate::ops::embed::embed;
use crate::ops::{DenseMatrix, Tensor};
use crate::{Error, Result};

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

/// The rows of a table [vocabulary, cols] for `tokens`, as they are stored: [tokens, cols].
///
/// # Errors
/// [`Error::Argument`] for a token outside the table.
pub fn table_rows(table: &TensorView<'_>, tokens: &[u32]) -> Result<Vec<u8>> {
    let vocabulary = table.shape[0];
    let row_bytes = table.bytes.len() / vocabulary;
    let mut rows = Vec::with_capacity(tokens.len() * row_bytes);
    for &token in tokens {
        let token = token as usize;
        if token >= vocabulary {
            let message = format!("token id {token} where the vocabulary has {vocabulary}");
            return Err(Error::argument("tokens", message));
        }
        rows.extend_from_slice(&table.bytes[token * row_bytes..(token + 1) * row_bytes]);
    }
    Ok(rows)
}

/// Rows of the table for `tokens`, rounded to halves as the device's table is: [tokens, cols].
pub(super) fn host_rows(checkpoint: &Checkpoint, tokens: &[u32], cols: usize) -> Result<Vec<f32>> {
    let table = checkpoint.get(EMBEDDING_TABLE)?;
    table.expect_shape(&[table.shape[0], cols])?;
    let rows = TensorView { bytes: &table_rows(&table, tokens)?, ..table };
    Ok(rows.to_f16()?.iter().map(|value| value.to_f32()).collect())
}
