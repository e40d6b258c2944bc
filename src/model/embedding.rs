//! Tokens to hidden states, from a table on the device or rows looked up on the host.

use super::linear::load_dense;
use super::source::WeightSource;
use crate::Result;
use crate::formats::config::LlamaConfig;
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
    /// In the mapped file (or what else the weights come from); rows are looked up and sent.
    Host,
}

/// An embedding table.
pub enum Embedding {
    /// On the device.
    Device(DenseMatrix),
    /// Where the weights come from; its shape.
    Host([usize; 2]),
}

impl Embedding {
    /// Loads or finds the table.
    ///
    /// # Errors
    /// As the source and the device report.
    pub fn load(
        device: &Device,
        source: &dyn WeightSource,
        config: &LlamaConfig,
        placement: Placement,
    ) -> Result<Self> {
        let shape = [config.vocab_size, config.hidden_size];
        match placement {
            Placement::Device => Ok(Self::Device(load_dense(device, source, EMBEDDING_TABLE, shape, None)?)),
            Placement::Host => {
                // A table that is missing or of another shape is refused now, not with the first token.
                source.rows(EMBEDDING_TABLE, shape, 0..1)?;
                Ok(Self::Host(shape))
            }
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

    /// Sends the rows of `tokens` (below the vocabulary) from the source; nothing for a table on the device.
    ///
    /// # Errors
    /// As the source and the device report.
    pub fn send(&self, source: &dyn WeightSource, tokens: &[u32], hidden: &Tensor) -> Result<()> {
        match self {
            Self::Device(_) => Ok(()),
            Self::Host(shape) => hidden.write(&host_rows(source, tokens, *shape)?),
        }
    }
}

/// Rows of the table of this shape for `tokens`, rounded to halves as the device's table is: [tokens, columns].
pub(super) fn host_rows(source: &dyn WeightSource, tokens: &[u32], shape: [usize; 2]) -> Result<Vec<f32>> {
    let mut rows = Vec::with_capacity(tokens.len() * shape[1]);
    for &token in tokens {
        let token = token as usize;
        let halves = source.rows(EMBEDDING_TABLE, shape, token..token + 1)?;
        rows.extend(halves.iter().map(|value| value.to_f32()));
    }
    Ok(rows)
}
