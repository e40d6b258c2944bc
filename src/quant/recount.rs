//! What a written model holds, counted from its files.

use std::path::Path;

use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::formats::exl2::read_packed;
use crate::formats::safetensors::Checkpoint;
use crate::model::{EMBEDDING_TABLE, blocks, head_spec};

/// What a written model holds: its bits, and the bytes of its parts, which add up to all tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recount {
    /// All stored bits of the decoder's linears, without biases, over their weights.
    pub bits_per_weight: f64,
    /// The same for the head.
    pub head_bits_per_weight: f64,
    /// Bytes of the decoder's linears.
    pub decoder_bytes: u64,
    /// Bytes of the head.
    pub head_bytes: u64,
    /// Bytes of the embedding table.
    pub embedding_bytes: u64,
    /// Bytes of all norms.
    pub norm_bytes: u64,
    /// Bytes of all biases.
    pub bias_bytes: u64,
    /// Bytes of all tensors.
    pub total_bytes: u64,
}

/// Counts what a model directory holds, from its files.
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
    let mut found = Recount {
        bits_per_weight: bits as f64 / weights.max(1) as f64,
        head_bits_per_weight: head_bits as f64 / (head.k * head.n) as f64,
        ..Recount::default()
    };
    for name in checkpoint.names() {
        let bytes = checkpoint.get(name)?.bytes.len() as u64;
        found.total_bytes += bytes;
        *match name.rsplit_once('.') {
            _ if name == EMBEDDING_TABLE => &mut found.embedding_bytes,
            Some((_, "bias")) => &mut found.bias_bytes,
            Some((of, _)) if of == head.name => &mut found.head_bytes,
            // The linears hold nothing under this name once they are packed.
            Some((_, "weight")) => &mut found.norm_bytes,
            _ => &mut found.decoder_bytes,
        } += bytes;
    }
    Ok(found)
}
