//! Oracle of causal attention with grouped key/value heads, for one query row.

use super::Real;

/// The output of one query row at `position` over the keys at `0..=position`, or over the last `window` of
/// them (the row itself included, as in transformers' Mistral). Scores are scaled by `1/√dim`.
///
/// `query`: `[heads, dim]`; `keys` and `values`: `[kv_heads][positions][dim]`, with more than `position`
/// positions, those after `position` ignored; query head `h` reads key/value head `h / (heads / kv_heads)`.
/// Result: `[heads, dim]`.
pub fn attention<Q: Real, C: Real>(
    query: &[Q],
    keys: &[C],
    values: &[C],
    heads: usize,
    kv_heads: usize,
    position: usize,
    window: Option<usize>,
) -> Vec<f64> {
    let dim = query.len() / heads;
    let positions = keys.len() / (kv_heads * dim);
    assert_eq!(heads % kv_heads, 0, "whole groups of query heads");
    assert_eq!(keys.len(), values.len(), "as many keys as values");
    assert!(position < positions, "the row's own key is among the keys");
    let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
    let mut result = Vec::with_capacity(query.len());
    for head in 0..heads {
        let kv_head = head / (heads / kv_heads);
        let row = |at: usize| (kv_head * positions + at) * dim;
        let mut scores = Vec::with_capacity(position + 1 - first);
        for at in first..=position {
            let mut score = 0.0;
            for i in 0..dim {
                score += query[head * dim + i].to_f64() * keys[row(at) + i].to_f64();
            }
            scores.push(score / (dim as f64).sqrt());
        }
        let weights = softmax(&scores);
        for i in 0..dim {
            let mut sum = 0.0;
            for (at, weight) in (first..=position).zip(&weights) {
                sum += weight * values[row(at) + i].to_f64();
            }
            result.push(sum);
        }
    }
    result
}

/// `exp(x - max) / Σ exp(x - max)`.
pub fn softmax(scores: &[f64]) -> Vec<f64> {
    let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = scores.iter().map(|score| (score - maximum).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|value| value / sum).collect()
}
