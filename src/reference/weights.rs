//! The dense weights that the whole-model oracle works on, by their Hugging Face names.

use std::collections::HashMap;

use half::f16;

use super::dequantize::original_order;
use super::unpack::Packed;
use crate::formats::config::LlamaConfig;
use crate::formats::safetensors::Checkpoint;
use crate::{Error, Result};

/// Dense weights in `f32`, row-major `[out, in]`, by name (`model.layers.0.mlp.up_proj.weight`).
#[derive(Clone, Debug, Default)]
pub struct Weights {
    tensors: HashMap<String, Vec<f32>>,
}

impl Weights {
    /// No weights.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every weight of a checkpoint that was already found valid; packed linears are decoded exactly.
    ///
    /// # Errors
    /// If a tensor is missing or has another type than its name implies.
    pub fn load(config: &LlamaConfig, checkpoint: &Checkpoint) -> Result<Self> {
        let mut weights = Self::new();
        let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
        for name in &names {
            if let Some(key) = name.strip_suffix(".q_weight") {
                let out = out_features(config, key);
                weights.insert(format!("{key}.weight"), decode(checkpoint, key, out)?);
                if checkpoint.has(&format!("{key}.bias")) {
                    let mut bias = checkpoint.get(&format!("{key}.bias"))?.to_f32()?;
                    bias.truncate(out);
                    weights.insert(format!("{key}.bias"), bias);
                }
            } else if name.ends_with(".weight") || name.ends_with(".bias") {
                let packed = name.strip_suffix(".bias").map(|key| format!("{key}.q_weight"));
                if !packed.is_some_and(|packed| checkpoint.has(&packed)) {
                    weights.insert(name.clone(), checkpoint.get(name)?.to_f32()?);
                }
            }
        }
        Ok(weights)
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, values: Vec<f32>) {
        self.tensors.insert(name.into(), values);
    }

    /// A tensor's values.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn get(&self, name: &str) -> Result<&[f32]> {
        match self.tensors.get(name) {
            Some(values) => Ok(values),
            None => Err(Error::argument(name, "the reference model has no such tensor; insert it first")),
        }
    }
}

/// Rows of the dense `[out, in]` form of a packed linear, which its padded columns do not tell.
fn out_features(config: &LlamaConfig, key: &str) -> usize {
    match key.rsplit('.').next() {
        Some("q_proj") => config.num_attention_heads * config.head_dim,
        Some("k_proj" | "v_proj") => config.num_key_value_heads * config.head_dim,
        Some("gate_proj" | "up_proj") => config.intermediate_size,
        Some("lm_head") => config.vocab_size,
        _ => config.hidden_size,
    }
}

/// The packed linear `key` as dense weights, `[out, in]`.
fn decode(checkpoint: &Checkpoint, key: &str, out: usize) -> Result<Vec<f32>> {
    let q_weight = checkpoint.get(&format!("{key}.q_weight"))?.to_u32()?;
    let q_scale = checkpoint.get(&format!("{key}.q_scale"))?.to_u32()?;
    let q_scale_max = checkpoint.get(&format!("{key}.q_scale_max"))?.to_f16()?;
    let q_groups = checkpoint.get(&format!("{key}.q_groups"))?.to_u16()?;
    let q_invperm = checkpoint.get(&format!("{key}.q_invperm"))?.to_u32()?;
    let packed = Packed {
        q_weight: &q_weight,
        q_scale: &q_scale,
        q_scale_max: &q_scale_max,
        q_groups: &q_groups,
        q_invperm: &q_invperm,
    };
    Ok(transposed(&original_order(packed), packed.columns(), out))
}

/// `[K, columns]` to `[out, K]`, leaving padded columns out.
fn transposed(matrix: &[f16], columns: usize, out: usize) -> Vec<f32> {
    let mut result = Vec::with_capacity(matrix.len() / columns * out);
    for column in 0..out {
        for row in matrix.chunks_exact(columns) {
            result.push(row[column].to_f32());
        }
    }
    result
}
