//! A block with its weights on a device.

use std::sync::Arc;

use super::block::BlockSpec;
use super::linear::{Linear, LinearGroup};
use crate::Result;
use crate::formats::safetensors::Checkpoint;
use crate::gpu::Device;
use crate::ops::{Permutation, Tensor};

/// Norm and linears of a block; a copy shares them.
#[derive(Clone)]
pub struct Block {
    spec: BlockSpec,
    norm: Tensor,
    groups: Vec<LinearGroup>,
}

impl Block {
    /// Loads a block from mapped files.
    ///
    /// # Errors
    /// As [`Linear::load`].
    pub fn load(device: &Device, checkpoint: &Checkpoint, spec: &BlockSpec, hidden: usize) -> Result<Self> {
        let norm = load_norm(device, checkpoint, &spec.norm, hidden)?;
        let groups = spec
            .groups
            .iter()
            .map(|group| {
                let mut known: Vec<Arc<Permutation>> = Vec::new();
                let mut linears = Vec::new();
                for linear in &group.linears {
                    let loaded = Linear::load(device, checkpoint, linear, &known)?;
                    known.extend(loaded.permutation().cloned());
                    linears.push(Arc::new(loaded));
                }
                Ok(LinearGroup::new(linears))
            })
            .collect::<Result<_>>()?;
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

/// Loads the weights [1, hidden] of a norm.
///
/// # Errors
/// As the file and the device report.
pub fn load_norm(device: &Device, checkpoint: &Checkpoint, name: &str, hidden: usize) -> Result<Tensor> {
    let view = checkpoint.get(&format!("{name}.weight"))?;
    view.expect_shape(&[hidden])?;
    Tensor::upload(device, name, &view.to_f32()?, hidden)
}
