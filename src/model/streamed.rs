//! A model run a block at a time, for models larger than the card: weights pass through, hidden states wait on the host.

use std::path::Path;

use super::block::blocks;
use super::head::Head;
use super::scratch::Scratch;
use super::weights::Block;
use super::workbench::{Runner, Workbench};
use crate::formats::config::LlamaConfig;
use crate::formats::safetensors::Checkpoint;
use crate::gpu::Device;
use crate::{Error, Result};

/// A model whose blocks are loaded, used and dropped in turn.
pub struct Streamed {
    checkpoint: Checkpoint,
    workbench: Workbench,
}

impl Streamed {
    /// Opens the model in `directory` for windows of up to `context` tokens, in passes of up to `rows` rows.
    ///
    /// # Errors
    /// As the files and the device report.
    pub fn open(device: &Device, directory: &Path, rows: usize, context: usize) -> Result<Self> {
        let config = LlamaConfig::load(directory)?;
        let checkpoint = Checkpoint::open(directory)?;
        Ok(Self { checkpoint, workbench: Workbench::new(device, config, rows, context)? })
    }

    /// The model's sizes.
    pub fn config(&self) -> &LlamaConfig {
        self.workbench.config()
    }

    /// Hidden states [tokens, hidden] of a window after the embedding.
    ///
    /// # Errors
    /// [`Error::Argument`] for a token outside the vocabulary; as the files report.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let LlamaConfig { vocab_size, hidden_size, .. } = *self.config();
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            let message = format!("token id {token} where the vocabulary has {vocab_size}");
            return Err(Error::argument("tokens", message));
        }
        super::embedding::host_rows(&self.checkpoint, tokens, [vocab_size, hidden_size])
    }

    /// Loads block `index` of [`blocks`].
    ///
    /// # Errors
    /// As [`Block::load`].
    pub fn block(&self, index: usize) -> Result<Block> {
        let config = self.config();
        let specs = blocks(config);
        Block::load(self.workbench.device(), &self.checkpoint, &specs[index], config.hidden_size)
    }

    /// Something that runs windows through a block; see [`Workbench::untapped`].
    pub fn untapped<'a>(&'a self, block: &'a Block) -> Runner<'a> {
        self.workbench.untapped(block)
    }

    /// Activations, for a head that records or runs.
    pub fn scratch(&self) -> &Scratch {
        self.workbench.scratch()
    }

    /// Loads the head.
    ///
    /// # Errors
    /// As [`Head::load`].
    pub fn head(&self) -> Result<Head> {
        Head::load(self.workbench.device(), &self.checkpoint, self.config())
    }
}
