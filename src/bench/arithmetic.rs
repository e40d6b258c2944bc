//! How far the arithmetics of generation are apart: the logits of the same tokens in each, beside those in single precision.

use serde::Serialize;

use crate::gpu::Arithmetic;
use crate::model::{Llama, Row};
use crate::random::Random;
use crate::reference::score::score;
use crate::{Error, Result};

/// What one arithmetic changes of a model's output.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Its name.
    pub arithmetic: String,
    /// Mean KL divergence of the tokens' distributions from those in single precision, in nats.
    pub kl_divergence: f64,
    /// The same of the token with the largest.
    pub kl_divergence_most: f64,
    /// Largest difference of a logit.
    pub logit_difference: f64,
    /// Share of tokens after which the likeliest is the same.
    pub top1_agreement: f64,
}

/// What the logits in single precision are like: those of random weights may be flat, or of one token alone.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Likeness {
    /// Mean entropy of the distributions in nats; ln of the vocabulary if all tokens are equally likely.
    pub entropy: f64,
    /// Root of the mean square of a logit's distance from the mean of its row.
    pub logit_deviation: f64,
}

/// Any `count` tokens of a vocabulary.
pub fn random_tokens(count: usize, vocabulary: usize) -> Vec<u32> {
    let random = Random::new(0, "tokens of a comparison");
    (0..count as u64).map(|at| random.below(at, vocabulary) as u32).collect()
}

/// Logits [tokens, vocabulary] after each token of a sequence, by the products of generation: in passes of as many rows as the
/// model was loaded for.
///
/// # Errors
/// [`Error::Argument`] when the model's weights are not all packed or it was loaded for more rows than those products have; as
/// [`Llama::forward`].
pub fn logits(model: &mut Llama, tokens: &[u32]) -> Result<Vec<f32>> {
    if model.arithmetic().is_none() || model.rows() > crate::ops::group_gemv::MOST_ROWS {
        let message = "its weights are not all packed, so its arithmetic is always f32; convert it first";
        return Err(Error::argument("--model", message));
    }
    let rows: Vec<Row> =
        tokens.iter().zip(0..).map(|(&token, position)| Row { token, slot: 0, position }).collect();
    model.forward(&rows, &(0..rows.len()).collect::<Vec<_>>())
}

/// What rows of `vocabulary` logits are like.
pub fn likeness(logits: &[f32], vocabulary: usize) -> Likeness {
    let (mut entropy, mut squares) = (0.0, 0.0);
    for row in logits.chunks_exact(vocabulary) {
        let largest = row.iter().fold(f64::NEG_INFINITY, |largest, &x| largest.max(f64::from(x)));
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64;
        let (mut sum, mut weighted) = (0.0, 0.0);
        for &x in row {
            let shifted = f64::from(x) - largest;
            sum += shifted.exp();
            weighted += shifted * shifted.exp();
            squares += (f64::from(x) - mean).powi(2);
        }
        entropy += sum.ln() - weighted / sum;
    }
    let rows = (logits.len() / vocabulary).max(1) as f64;
    Likeness { entropy: entropy / rows, logit_deviation: (squares / logits.len().max(1) as f64).sqrt() }
}

/// Compares rows of `vocabulary` logits in `arithmetic` with those in single precision.
///
/// # Errors
/// [`Error::Device`] for a logit that is not finite.
pub fn difference(
    arithmetic: Arithmetic,
    found: &[f32],
    single: &[f32],
    vocabulary: usize,
) -> Result<Difference> {
    let (mut sum, mut most, mut agreeing) = (0.0, 0.0_f64, 0);
    for (found, single) in found.chunks_exact(vocabulary).zip(single.chunks_exact(vocabulary)) {
        let score = score(found, Some(single), None).map_err(|error| Error::Device {
            label: format!("logits in {arithmetic}"),
            message: error.to_string(),
        })?;
        sum += score.divergence;
        most = most.max(score.divergence);
        agreeing += usize::from(score.agrees);
    }
    let rows = (found.len() / vocabulary).max(1) as f64;
    let logit = found.iter().zip(single).map(|(&a, &b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    Ok(Difference {
        arithmetic: arithmetic.to_string(),
        kl_divergence: sum / rows,
        kl_divergence_most: most,
        logit_difference: logit,
        top1_agreement: agreeing as f64 / rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_and_entropy_are_those_of_two_tokens() {
        // Probabilities 1/2, 1/2 and 3/4, 1/4; found 3/4, 1/4 and the same.
        let single = [0.0, 0.0, 3.0_f32.ln(), 0.0];
        let found = [3.0_f32.ln(), 0.0, 3.0_f32.ln(), 0.0];
        let difference = difference(Arithmetic::Fixed, &found, &single, 2).unwrap();
        let first = 0.5 * (0.5_f64 / 0.75).ln() + 0.5 * (0.5_f64 / 0.25).ln();
        assert!((difference.kl_divergence - first / 2.0).abs() < 1e-7, "{difference:?}");
        assert!((difference.kl_divergence_most - first).abs() < 1e-7);
        assert!((difference.logit_difference - 3.0_f64.ln()).abs() < 1e-6);
        assert_eq!((difference.top1_agreement, difference.arithmetic.as_str()), (1.0, "fx16"));
        let entropy = (2.0_f64.ln() - 0.75 * 0.75_f64.ln() - 0.25 * 0.25_f64.ln()) / 2.0;
        let likeness = likeness(&single, 2);
        assert!((likeness.entropy - entropy).abs() < 1e-6, "{likeness:?} {entropy}");
        let deviation = 3.0_f64.ln() / 8.0_f64.sqrt();
        assert!((likeness.logit_deviation - deviation).abs() < 1e-6, "{likeness:?} {deviation}");
    }
}
