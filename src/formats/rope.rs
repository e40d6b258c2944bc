//! Rotary position embedding: its variants and their frequencies.
//!
//! The formulas are those of transformers (`modeling_rope_utils`), in f64.

use std::f64::consts::TAU;

/// Base and scaling of the rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies (`rope_theta`), above 1.
    pub theta: f64,
    /// How the frequencies are changed for longer contexts.
    pub scaling: RopeScaling,
}

/// The supported `rope_type`s.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Unchanged frequencies.
    Default,
    /// All frequencies divided by `factor`.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, those between interpolated.
    Llama3 {
        /// At least 1.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are scaled fully.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept; above `low_freq_factor`.
        high_freq_factor: f64,
        /// Context of the pretraining, in tokens.
        original_max_position_embeddings: f64,
    },
    /// YaRN (Peng et al. 2023).
    Yarn {
        /// At least 1.
        factor: f64,
        /// Context of the pretraining, in tokens.
        original_max_position_embeddings: f64,
        /// Rotations above which a dimension is kept; 32 by default.
        beta_fast: f64,
        /// Rotations below which a dimension is scaled fully; 1 by default.
        beta_slow: f64,
        /// Factor on cos and sin; derived from `factor` and the two below when absent.
        attention_factor: Option<f64>,
        /// Numerator's weight of the derived factor; used with `mscale_all_dim` only.
        mscale: Option<f64>,
        /// Denominator's weight of the derived factor.
        mscale_all_dim: Option<f64>,
        /// Whether the range of dimensions is widened to whole ones; true by default.
        truncate: bool,
    },
}

impl Rope {
    /// Angle per position of each pair of dimensions, `[head_dim / 2]`, and the factor on cos and sin.
    ///
    /// `_max_position` is the context that the model is used with: none of the supported variants
    /// depends on it, the ones that do (dynamic, longrope) are refused when config.json is read.
    pub fn inverse_frequencies(&self, head_dim: usize, _max_position: usize) -> (Vec<f64>, f64) {
        let dims = head_dim as f64;
        let exponents = (0..head_dim / 2).map(|pair| 2.0 * pair as f64 / dims);
        let mut frequencies: Vec<f64> = exponents.map(|exponent| self.theta.powf(-exponent)).collect();
        let mut attention = 1.0;
        match self.scaling {
            RopeScaling::Default => {}
            RopeScaling::Linear { factor } => frequencies.iter_mut().for_each(|f| *f /= factor),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => frequencies.iter_mut().for_each(|f| *f = llama3(*f, factor, low, high, original)),
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: original,
                beta_fast,
                beta_slow,
                attention_factor,
                mscale,
                mscale_all_dim,
                truncate,
            } => {
                let dimension =
                    |rotations: f64| dims * (original / (rotations * TAU)).ln() / (2.0 * self.theta.ln());
                let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(dims - 1.0));
                if low == high {
                    high += 0.001;
                }
                for (pair, frequency) in frequencies.iter_mut().enumerate() {
                    let scaled = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    *frequency = *frequency / factor * scaled + *frequency * (1.0 - scaled);
                }
                attention =
                    attention_factor.unwrap_or_else(|| yarn_attention(factor, mscale, mscale_all_dim));
            }
        }
        (frequencies, attention)
    }
}

fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = TAU / frequency;
    if wavelength < original / high {
        frequency
    } else if wavelength > original / low {
        frequency / factor
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}

fn yarn_attention(factor: f64, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> f64 {
    let scale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
    let given = |weight: Option<f64>| weight.filter(|&weight| weight != 0.0);
    match (given(mscale), given(mscale_all_dim)) {
        (Some(mscale), Some(all)) => scale(mscale) / scale(all),
        _ => scale(1.0),
    }
}
