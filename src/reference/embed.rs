//! Oracle of the embedding lookup.

use super::Real;

/// Row `tokens[i]` of `table` for each `i`. Table: `[vocabulary, columns]`; result: `[tokens, columns]`.
pub fn embed<T: Real>(table: &[T], columns: usize, tokens: &[u32]) -> Vec<f64> {
    let mut result = Vec::with_capacity(tokens.len() * columns);
    for &token in tokens {
        let first = token as usize * columns;
        for column in 0..columns {
            result.push(table[first + column].to_f64());
        }
    }
    result
}
