//! What a written model holds, counted from its files.

use std::path::Path;

use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::formats::exl2::read_packed;
use crate::formats::safetensors::Checkpoint;
use crate::model::{blocks, head_spec};

/// Bits of a written model, counted from its files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recount {
    /// All stored bits of the decoder's linears, without biases, over their weights.
    pub bits_per_weight: f64,
    /// The same for the head.
    pub head_bits_per_weight: f64,
    /// Bytes of all tensors.
    pub total_bytes: u64,
}

/// Bits of a model directory, counted from its files.
///
/// # Errors
/// As the files report.
pub fn recount(directory: &Path) -> Result<Recount> {
    let config = LlamaConfig::load(directory)?;
    let checkpoint = Checkpoint::open(directory)?;
    let (mut bits, mut weights) = (0, 0);
    for spec in blocks(&config) {
        for linear in spec.linears() {
            bits += read_packed(&checkpoint, &linear.name, linear.k, linear.n)?.stored_bits();
            weights += (linear.k * linear.n) as u64;
        }
    }
    let head = head_spec(&config);
    let head_bits = read_packed(&checkpoint, &head.name, head.k, head.n)?.stored_bits();
    let mut total_bytes = 0;
    for name in checkpoint.names() {
        total_bytes += checkpoint.get(name)?.bytes.len() as u64;
    }
    Ok(Recount {
        bits_per_weight: bits as f64 / weights.max(1) as f64,
        head_bits_per_weight: head_bits as f64 / (head.k * head.n) as f64,
        total_bytes,
    })
}
