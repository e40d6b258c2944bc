//! How tokens are chosen, as people say it and as the kernels read it.

use crate::{Error, Result};

/// How to choose a token. [`Default`] is greedy.
///
/// The steps, in order: repetition penalty, temperature, top-k, top-p, min-p, draw. The penalty works on the logits; the
/// three cuts see the probabilities that the tempered logits have among the tokens that are still in, and the draw is from
/// those that remain. Temperature 0 takes the highest logit after the penalty; the cuts never remove that one. Equal
/// logits are ordered by token id.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerSettings {
    /// What the logits are divided by; 0 takes the most likely token.
    pub temperature: f32,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest most likely tokens whose probabilities sum to at least this; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this likely, as a share of the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Logits of tokens that occurred are divided by this if positive, else multiplied; 1 is off
    /// (Keskar et al., "CTRL", 2019, with the sign rule of transformers).
    pub repetition_penalty: f32,
    /// Chooses one of 2^64 sequences of random numbers.
    pub seed: u64,
}

impl Default for SamplerSettings {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl SamplerSettings {
    /// Checks each value.
    ///
    /// # Errors
    /// [`Error::Argument`] with the command line's name of the first value out of range.
    pub fn validate(&self) -> Result<()> {
        let check = |fits: bool, flag: &str, value: f32, range: &str| {
            if fits { Ok(()) } else { Err(Error::argument(flag, format!("{value} is not {range}"))) }
        };
        let Self { temperature, top_p, min_p, repetition_penalty, .. } = *self;
        check(
            temperature == 0.0 || (temperature.is_finite() && temperature > 0.0),
            "--temperature",
            temperature,
            "a number from 0 (always the most likely token) up",
        )?;
        check(top_p > 0.0 && top_p <= 1.0, "--top-p", top_p, "above 0 and at most 1 (1 is off)")?;
        check((0.0..=1.0).contains(&min_p), "--min-p", min_p, "between 0 (off) and 1")?;
        let penalty = (0.01..=100.0).contains(&repetition_penalty);
        check(penalty, "--repetition-penalty", repetition_penalty, "between 0.01 and 100 (1 is off)")
    }
}

/// `Settings` of `shaders/common/sampling.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct RowSettings {
    temperature: f32,
    inverse_temperature: f32,
    penalty: f32,
    inverse_penalty: f32,
    top_p: [u32; 2],
    seed: [u32; 2],
    top_k: u32,
    min_p: f32,
    context: u32,
    unused: u32,
}

/// Low and high word.
fn words(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

impl RowSettings {
    /// Of a row that is not in use after `context` positions.
    pub(super) fn new(settings: &SamplerSettings, context: usize) -> Self {
        let SamplerSettings { temperature, top_k, top_p, min_p, repetition_penalty, seed } = *settings;
        // A fraction of 64 bits; 0 is off.
        let top_p = if top_p < 1.0 { ((f64::from(top_p) * 2.0_f64.powi(64)) as u64).max(1) } else { 0 };
        // e^(−d / temperature) ≥ min_p for d up to this.
        let distance = -f64::from(temperature) * f64::from(min_p).ln();
        Self {
            temperature,
            inverse_temperature: (1.0 / temperature).min(f32::MAX),
            penalty: repetition_penalty,
            inverse_penalty: 1.0 / repetition_penalty,
            top_p: words(top_p),
            seed: words(seed),
            top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
            min_p: (distance as f32).min(f32::MAX),
            context: u32::try_from(context).unwrap_or(u32::MAX),
            unused: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_name_their_flag() {
        let hot = SamplerSettings { temperature: 1.0, ..Default::default() };
        assert!(hot.validate().is_ok());
        let cases = [
            ("--temperature", SamplerSettings { temperature: -0.5, ..hot }),
            ("--temperature", SamplerSettings { temperature: f32::NAN, ..hot }),
            ("--temperature", SamplerSettings { temperature: f32::INFINITY, ..hot }),
            ("--top-p", SamplerSettings { top_p: 0.0, ..hot }),
            ("--top-p", SamplerSettings { top_p: 1.5, ..hot }),
            ("--min-p", SamplerSettings { min_p: -0.1, ..hot }),
            ("--min-p", SamplerSettings { min_p: f32::NAN, ..hot }),
            ("--repetition-penalty", SamplerSettings { repetition_penalty: 0.0, ..hot }),
            ("--repetition-penalty", SamplerSettings { repetition_penalty: f32::NAN, ..hot }),
        ];
        for (flag, settings) in cases {
            let message = settings.validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{flag}: ")), "{message}");
        }
    }

    #[test]
    fn what_is_off_keeps_all_and_what_is_extreme_is_finite() {
        let off = RowSettings::new(&SamplerSettings { temperature: 1.0, ..Default::default() }, 9);
        assert_eq!((off.top_p, off.top_k, off.min_p), ([0, 0], 0, f32::MAX));
        let cuts = SamplerSettings { temperature: 2.0, top_p: 0.5, min_p: 0.5, ..Default::default() };
        let on = RowSettings::new(&cuts, 9);
        assert_eq!((on.top_p, on.min_p), ([0, 1 << 31], 2.0 * std::f32::consts::LN_2));
        let cold = SamplerSettings { temperature: 1e-45, top_p: f32::MIN_POSITIVE, ..cuts };
        let cold = RowSettings::new(&cold, usize::MAX);
        assert_eq!((cold.top_p, cold.inverse_temperature, cold.context), ([1, 0], f32::MAX, u32::MAX));
    }
}
