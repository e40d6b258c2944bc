//! A block with its weights on a device.

use std::sync::Arc;

use super::block::BlockSpec;
use super::linear::{Linear, LinearGroup};
use super::source::WeightSource;
use crate::Result;
use crate::gpu::Device;
use crate::ops::{Permutation, Tensor};

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
    /// As [`Linear::load`].
    pub fn load(device: &Device, source: &dyn WeightSource, spec: &BlockSpec, hidden: usize) -> Result<Self> {
        let norm = load_norm(device, source, &spec.norm, hidden)?;
        let groups = spec
            .groups
            .iter()
            .map(|group| {
                let mut known: Vec<Arc<Permutation>> = Vec::new();
                let mut linears = Vec::new();
                for linear in &group.linears {
                    let loaded = Linear::load(device, source, linear, &known)?;
                    known.extend(loaded.permutation().cloned());
                    linears.push(Arc::new(loaded));
                }
                Ok(LinearGroup::new(linears))
            })
            .collect::<Result<_>>()?;
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
