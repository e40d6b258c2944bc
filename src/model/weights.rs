//! A block with its weights on a device.

use std::sync::Arc;

use super::block::{BlockSpec, GroupSpec};
use super::linear::{Linear, LinearGroup};
use super::source::WeightSource;
use crate::Result;
use crate::gpu::Device;
use crate::ops::Tensor;

/// Norm and linears of a block.
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
        Ok(Self { spec: spec.clone(), norm, groups })
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

/// Loads the weights [1, hidden] of a norm.
///
/// # Errors
/// As the source and the device report.
pub fn load_norm(device: &Device, source: &dyn WeightSource, name: &str, hidden: usize) -> Result<Tensor> {
    Tensor::upload(device, name, &source.vector(&format!("{name}.weight"), hidden)?, hidden)
}
