//! Weights on a device: those of a block, and all.

use std::sync::Arc;

use super::block::{BlockSpec, GroupSpec, blocks};
use super::embedding::{Embedding, Placement};
use super::head::Head;
use super::linear::{Linear, LinearGroup};
use super::source::WeightSource;
use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::gpu::Device;
use crate::ops::Tensor;

/// Norm and linears of a block; a copy shares them.
#[derive(Clone)]
pub struct Block {
    spec: BlockSpec,
    norm: Tensor,
    groups: Vec<LinearGroup>,
}

impl Block {
    /// Loads a block.
    ///
    /// # Errors
    /// As [`LinearGroup::load`].
    pub fn load(device: &Device, source: &dyn WeightSource, spec: &BlockSpec, hidden: usize) -> Result<Self> {
        let norm = load_norm(device, source, &spec.norm, hidden)?;
        let load = |group: &GroupSpec| LinearGroup::load(device, source, &group.linears);
        let groups = spec.groups.iter().map(load).collect::<Result<_>>()?;
        Ok(Self::new(spec.clone(), norm, groups))
    }

    /// A block of parts: `norm` is [1, hidden], and the groups are those of `spec`.
    pub fn new(spec: BlockSpec, norm: Tensor, groups: Vec<LinearGroup>) -> Self {
        Self { spec, norm, groups }
    }

    /// What it is.
    pub fn spec(&self) -> &BlockSpec {
        &self.spec
    }

    /// The norm's weights [1, hidden].
    pub fn norm(&self) -> &Tensor {
        &self.norm
    }

    /// The linears, as [`BlockSpec::groups`] has them.
    pub fn groups(&self) -> &[LinearGroup] {
        &self.groups
    }

    /// Puts another linear in the place of linear `index` of group `group`.
    pub fn replace(&mut self, group: usize, index: usize, linear: Arc<Linear>) {
        self.groups[group].replace(index, linear);
    }
}

/// All weights of a model on a device.
pub(super) struct Weights {
    pub(super) embedding: Embedding,
    pub(super) blocks: Vec<Block>,
    pub(super) head: Head,
    /// Bytes of the weights, and of the head's room.
    pub(super) bytes: [u64; 2],
}

impl Weights {
    /// Loads them, telling `progress` after each block (done, all).
    ///
    /// # Errors
    /// As the source and the device report.
    pub(super) fn load(
        device: &Device,
        config: &LlamaConfig,
        source: &dyn WeightSource,
        placement: Placement,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let before = device.memory().held;
        let embedding = Embedding::load(device, source, config, placement)?;
        let specs = blocks(config);
        let mut loaded = Vec::with_capacity(specs.len());
        for spec in &specs {
            loaded.push(Block::load(device, source, spec, config.hidden_size)?);
            progress(loaded.len(), specs.len());
        }
        let head = Head::load(device, source, config)?;
        device.wait("weights")?;
        let room = head.room_bytes();
        let bytes = [device.memory().held - before - room, room];
        Ok(Self { embedding, blocks: loaded, head, bytes })
    }
}

/// Loads the weights [1, hidden] of a norm.
///
/// # Errors
/// As the source and the device report.
pub fn load_norm(device: &Device, source: &dyn WeightSource, name: &str, hidden: usize) -> Result<Tensor> {
    Tensor::upload(device, name, &source.vector(&format!("{name}.weight"), hidden)?, hidden)
}
