//! Oracle of a whole Llama or Mistral forward pass: every position of a prompt at once, in double precision.
//!
//! Weights are dense; [`super::weights`] decodes packed ones first. Keys and values stay in double precision.

use rayon::prelude::*;

use super::attention::attention;
use super::embed::embed;
use super::matmul::matmul;
use super::real::widen;
use super::rms_norm::rms_norm;
use super::rope::rope;
use super::swiglu::swiglu;
use super::weights::Weights;
use crate::Result;
use crate::formats::config::LlamaConfig;

/// The logits of every position, `[tokens, vocabulary]`, for a prompt whose first token is at position 0.
///
/// # Errors
/// If a weight is missing.
pub fn forward(config: &LlamaConfig, weights: &Weights, tokens: &[u32]) -> Result<Vec<f64>> {
    let table = weights.get("model.embed_tokens.weight")?;
    let mut hidden = embed(table, config.hidden_size, tokens);
    for layer in 0..config.num_hidden_layers {
        hidden = block(config, weights, layer, &hidden)?;
    }
    head(config, weights, &hidden)
}

/// One decoder block. `hidden`: `[tokens, hidden_size]`, position 0 first; the result has the same shape.
///
/// # Errors
/// If a weight is missing.
pub fn block(config: &LlamaConfig, weights: &Weights, layer: usize, hidden: &[f64]) -> Result<Vec<f64>> {
    let columns = config.hidden_size;
    let key = format!("model.layers.{layer}");
    let norm = weights.get(&format!("{key}.input_layernorm.weight"))?;
    let x = rms_norm(hidden, norm, config.rms_norm_eps, columns);
    let queries = linear(weights, &format!("{key}.self_attn.q_proj"), &x, columns, None)?;
    let keys = linear(weights, &format!("{key}.self_attn.k_proj"), &x, columns, None)?;
    let values = linear(weights, &format!("{key}.self_attn.v_proj"), &x, columns, None)?;
    let x = attend(config, &queries, &keys, &values);
    let width = config.num_attention_heads * config.head_dim;
    let hidden = linear(weights, &format!("{key}.self_attn.o_proj"), &x, width, Some(hidden))?;

    let norm = weights.get(&format!("{key}.post_attention_layernorm.weight"))?;
    let x = rms_norm(&hidden, norm, config.rms_norm_eps, columns);
    let gate = linear(weights, &format!("{key}.mlp.gate_proj"), &x, columns, None)?;
    let up = linear(weights, &format!("{key}.mlp.up_proj"), &x, columns, None)?;
    let x = swiglu(&gate, &up);
    linear(weights, &format!("{key}.mlp.down_proj"), &x, config.intermediate_size, Some(&hidden))
}

/// The final norm and the head. `hidden`: `[tokens, hidden_size]`; result: `[tokens, vocabulary]`.
///
/// # Errors
/// If a weight is missing.
pub fn head(config: &LlamaConfig, weights: &Weights, hidden: &[f64]) -> Result<Vec<f64>> {
    let norm = weights.get("model.norm.weight")?;
    let x = rms_norm(hidden, norm, config.rms_norm_eps, config.hidden_size);
    let stored = weights.get("lm_head.weight");
    let w = if config.tie_word_embeddings && stored.is_err() {
        weights.get("model.embed_tokens.weight")?
    } else {
        stored?
    };
    Ok(matmul(&x, w, config.hidden_size, None, None))
}

/// RoPE and attention of every position. `queries`: `[tokens, heads, dim]`; `keys` and `values`:
/// `[tokens, kv_heads, dim]`; result as `queries`.
fn attend(config: &LlamaConfig, queries: &[f64], keys: &[f64], values: &[f64]) -> Vec<f64> {
    let (heads, kv_heads, dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    let tokens = queries.len() / (heads * dim);
    let positions: Vec<u32> = (0..tokens as u32).collect();
    let (frequencies, scale) = config.rope.inverse_frequencies(dim, config.max_position_embeddings);
    let queries = rope(queries, heads, &positions, &frequencies, scale);
    let keys = by_head(&rope(keys, kv_heads, &positions, &frequencies, scale), kv_heads, dim);
    let values = by_head(values, kv_heads, dim);
    (0..tokens)
        .into_par_iter()
        .flat_map_iter(|position| {
            let query = &queries[position * heads * dim..(position + 1) * heads * dim];
            attention(query, &keys, &values, heads, kv_heads, position, config.sliding_window)
        })
        .collect()
}

/// `[tokens, heads, dim]` to `[heads, tokens, dim]`.
fn by_head(x: &[f64], heads: usize, dim: usize) -> Vec<f64> {
    let tokens = x.len() / (heads * dim);
    let mut result = Vec::with_capacity(x.len());
    for head in 0..heads {
        for token in 0..tokens {
            let first = (token * heads + head) * dim;
            result.extend_from_slice(&x[first..first + dim]);
        }
    }
    result
}

/// `x · Wᵀ`, with the bias where the weights have one. `x`: `[tokens, k]`.
fn linear(weights: &Weights, key: &str, x: &[f64], k: usize, residual: Option<&[f64]>) -> Result<Vec<f64>> {
    let w = weights.get(&format!("{key}.weight"))?;
    let bias = weights.get(&format!("{key}.bias")).ok().map(widen);
    Ok(matmul(x, w, k, bias.as_deref(), residual))
}
