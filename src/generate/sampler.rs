//! One token from one row of logits.
//!
//! The steps, in order: repetition penalty, temperature, top-k, top-p, min-p, draw. The penalty works
//! on the logits; the three cuts see the probabilities that the tempered logits have among the tokens
//! that are still in, and the draw is from those that remain. Temperature 0 takes the highest logit
//! after the penalty; the cuts never remove that one.
//!
//! All choices are deterministic: equal logits are ordered by token id, arithmetic is f64 in a fixed
//! order, and the random number is a function of (seed, row, step), see [`super::philox`].

use super::philox::uniform;
use crate::error::{Error, Result};

/// How to choose a token. [`Default`] is greedy.
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
    /// Logits of tokens in the history are divided by this if positive, else multiplied; 1 is off
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
        let positive = |x: f32| x.is_finite() && x > 0.0;
        check(
            temperature == 0.0 || positive(temperature),
            "--temperature",
            temperature,
            "a number from 0 (always the most likely token) up",
        )?;
        check(top_p > 0.0 && top_p <= 1.0, "--top-p", top_p, "above 0 and at most 1 (1 is off)")?;
        check((0.0..=1.0).contains(&min_p), "--min-p", min_p, "between 0 (off) and 1")?;
        check(positive(repetition_penalty), "--repetition-penalty", repetition_penalty, "above 0 (1 is off)")
    }
}

/// Chooses tokens by validated [`SamplerSettings`].
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    settings: SamplerSettings,
}

/// A token that is still in, with its tempered logit.
type Candidate = (f64, u32);

impl Sampler {
    /// A sampler by `settings`.
    ///
    /// # Errors
    /// As [`SamplerSettings::validate`].
    pub fn new(settings: SamplerSettings) -> Result<Self> {
        settings.validate()?;
        Ok(Self { settings })
    }

    /// The token after `history`, of which `logits` (`[vocabulary]`, without padding columns) are the
    /// scores. `row` and `step` count rows of the batch and tokens of the row.
    ///
    /// # Errors
    /// [`Error::Numerical`] if a logit is not finite; [`Error::Shape`] if there are none, or the
    /// history has a token id beyond them.
    pub fn sample(&self, logits: &[f32], history: &[u32], row: u64, step: u64) -> Result<u32> {
        let settings = &self.settings;
        if logits.is_empty() || u32::try_from(logits.len()).is_err() {
            return Err(Error::shape("sampler", format!("a row of {} logits", logits.len())));
        }
        if let Some(token) = logits.iter().position(|x| !x.is_finite()) {
            return Err(Error::Numerical {
                place: "logits".into(),
                message: format!(
                    "token {token} of row {row} at step {step} has {}; check the model with `exlay selftest`",
                    logits[token]
                ),
            });
        }
        let mut candidates: Vec<Candidate> = (0..).zip(logits).map(|(id, &x)| (f64::from(x), id)).collect();
        penalize(&mut candidates, history, f64::from(settings.repetition_penalty))?;
        if settings.temperature == 0.0 {
            return Ok(candidates.iter().min_by(|a, b| by_rank(a, b)).expect("logits are not empty").1);
        }
        for (logit, _) in &mut candidates {
            *logit /= f64::from(settings.temperature);
        }
        keep_top_k(&mut candidates, settings.top_k);
        candidates.sort_unstable_by(by_rank);
        let highest = candidates[0].0;
        let mut weights: Vec<f64> = candidates.iter().map(|(logit, _)| (logit - highest).exp()).collect();
        keep_top_p(&mut weights, f64::from(settings.top_p));
        // Weights are shares of the highest one already, and sorted.
        weights.truncate(weights.partition_point(|&weight| weight >= f64::from(settings.min_p)));
        let index = draw(&weights, uniform(settings.seed, row, step));
        Ok(candidates[index].1)
    }
}

/// Higher logits first, equal ones by token id. Logits are finite.
fn by_rank(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    // `+ 0.0` makes the two zeros equal.
    (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then(a.1.cmp(&b.1))
}

/// Makes each token of the history less likely, once however often it occurs.
fn penalize(candidates: &mut [Candidate], history: &[u32], penalty: f64) -> Result<()> {
    let mut seen = history.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        let vocabulary = candidates.len();
        let Some((logit, _)) = candidates.get_mut(id as usize) else {
            return Err(Error::shape("sampler", format!("token {id} in the history, {vocabulary} logits")));
        };
        *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
    }
    Ok(())
}

fn keep_top_k(candidates: &mut Vec<Candidate>, top_k: usize) {
    if top_k > 0 && top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k - 1, by_rank);
        candidates.truncate(top_k);
    }
}

/// `weights` descend. The last one kept is the one that reaches `top_p` of the sum.
fn keep_top_p(weights: &mut Vec<f64>, top_p: f64) {
    if top_p >= 1.0 {
        return;
    }
    let wanted = top_p * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let reached = weights.iter().position(|weight| {
        sum += weight;
        sum >= wanted
    });
    weights.truncate(reached.map_or(weights.len(), |index| index + 1));
}

/// The index whose part of the summed weights holds `uniform`, in `[0, 1)`.
fn draw(weights: &[f64], uniform: f64) -> usize {
    let wanted = uniform * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let found = weights.iter().position(|weight| {
        sum += weight;
        wanted < sum
    });
    // Rounding can bring `wanted` up to the sum itself.
    found.unwrap_or(weights.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(settings: SamplerSettings) -> Sampler {
        Sampler::new(settings).unwrap()
    }

    /// How often each token comes, as shares of `n` draws.
    fn shares(settings: SamplerSettings, logits: &[f32], n: u64) -> Vec<f64> {
        let sampler = sampler(settings);
        let mut counts = vec![0_u64; logits.len()];
        for step in 0..n {
            counts[sampler.sample(logits, &[], 0, step).unwrap() as usize] += 1;
        }
        counts.into_iter().map(|count| count as f64 / n as f64).collect()
    }

    fn assert_shares(settings: SamplerSettings, logits: &[f32], expected: &[f64]) {
        let n = 40_000;
        for (token, (got, want)) in shares(settings, logits, n).iter().zip(expected).enumerate() {
            // Five standard deviations of a share; a token that is cut must never come.
            let tolerance = 5.0 * (want * (1.0 - want) / n as f64).sqrt();
            assert!((got - want).abs() <= tolerance, "token {token}: {got}, expected {want}");
        }
    }

    /// Logits of the probabilities 0.1, 0.4, 0.3, 0.2.
    fn logits() -> Vec<f32> {
        [0.1_f32, 0.4, 0.3, 0.2].iter().map(|p| p.ln() + 3.0).collect()
    }

    fn hot() -> SamplerSettings {
        SamplerSettings { temperature: 1.0, ..Default::default() }
    }

    #[test]
    fn greedy_takes_the_highest_and_the_lowest_id_of_equals() {
        let greedy = sampler(SamplerSettings::default());
        assert_eq!(greedy.sample(&[1.0, 3.0, 3.0, 2.0], &[], 7, 9).unwrap(), 1);
        assert_eq!(greedy.sample(&[-0.0, 0.0], &[], 0, 0).unwrap(), 0);
        assert_eq!(greedy.sample(&[-5.0], &[], 0, 0).unwrap(), 0);
    }

    #[test]
    fn shares_are_the_softmax() {
        assert_shares(hot(), &logits(), &[0.1, 0.4, 0.3, 0.2]);
    }

    #[test]
    fn temperature_two_takes_square_roots() {
        let roots: Vec<f64> = [0.1_f64, 0.4, 0.3, 0.2].iter().map(|p| p.sqrt()).collect();
        let sum: f64 = roots.iter().sum();
        let expected: Vec<f64> = roots.iter().map(|r| r / sum).collect();
        assert_shares(SamplerSettings { temperature: 2.0, ..hot() }, &logits(), &expected);
    }

    #[test]
    fn top_k_keeps_k_and_breaks_ties_by_id() {
        let two = SamplerSettings { top_k: 2, ..hot() };
        assert_shares(two, &logits(), &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
        assert_shares(two, &[0.0, 1.0, 1.0, 1.0], &[0.0, 0.5, 0.5, 0.0]);
        assert_shares(SamplerSettings { top_k: 9, ..hot() }, &logits(), &[0.1, 0.4, 0.3, 0.2]);
    }

    #[test]
    fn top_p_keeps_the_token_that_crosses() {
        let cut = |top_p| SamplerSettings { top_p, ..hot() };
        assert_shares(cut(0.39), &logits(), &[0.0, 1.0, 0.0, 0.0]);
        assert_shares(cut(0.5), &logits(), &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
        assert_shares(cut(0.75), &logits(), &[0.0, 4.0 / 9.0, 3.0 / 9.0, 2.0 / 9.0]);
    }

    #[test]
    fn min_p_is_a_share_of_the_highest() {
        let cut = SamplerSettings { min_p: 0.6, ..hot() };
        assert_shares(cut, &logits(), &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
        assert_shares(SamplerSettings { min_p: 1.0, ..hot() }, &logits(), &[0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn cuts_come_after_the_temperature_and_see_what_is_left() {
        // Tempered by 0.5 the probabilities are 0.01, 0.16, 0.09, 0.04 of 0.30. Of the best two,
        // 0.16/0.25 = 0.64 alone reaches a top-p of 0.6; of all, 0.16/0.30 = 0.53 does not.
        let settings = SamplerSettings { temperature: 0.5, top_k: 2, top_p: 0.6, ..hot() };
        assert_shares(settings, &logits(), &[0.0, 1.0, 0.0, 0.0]);
        let without_k = SamplerSettings { top_k: 0, ..settings };
        assert_shares(without_k, &logits(), &[0.0, 16.0 / 25.0, 9.0 / 25.0, 0.0]);
    }

    #[test]
    fn the_penalty_divides_positive_and_multiplies_negative_logits_once() {
        let greedy = sampler(SamplerSettings { repetition_penalty: 2.0, ..Default::default() });
        // 3.0 becomes 1.5 (not 0.75 for two occurrences), below 1.6 and above 1.4.
        assert_eq!(greedy.sample(&[3.0, 1.6], &[0, 0], 0, 0).unwrap(), 1);
        assert_eq!(greedy.sample(&[3.0, 1.4], &[0, 0], 0, 0).unwrap(), 0);
        // -1.0 becomes -2.0.
        assert_eq!(greedy.sample(&[-1.0, -1.5], &[0], 0, 0).unwrap(), 1);
        assert!(greedy.sample(&[1.0, 2.0], &[2], 0, 0).is_err());
    }

    #[test]
    fn the_same_seed_row_and_step_give_the_same_token() {
        let draws = |seed, row| -> Vec<u32> {
            let sampler = sampler(SamplerSettings { seed, ..hot() });
            (0..64).map(|step| sampler.sample(&[0.0; 37], &[], row, step).unwrap()).collect()
        };
        assert_eq!(draws(1, 0), draws(1, 0));
        assert_ne!(draws(1, 0), draws(2, 0));
        assert_ne!(draws(1, 0), draws(1, 1));
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = sampler(hot()).sample(&[0.0, bad], &[], 0, 4).unwrap_err();
            assert!(matches!(error, Error::Numerical { .. }), "{error}");
            assert!(error.to_string().contains("token 1 of row 0 at step 4"), "{error}");
        }
        assert!(sampler(hot()).sample(&[], &[], 0, 0).is_err());
    }

    #[test]
    fn extreme_but_legal_values_do_not_break_the_arithmetic() {
        let cold = SamplerSettings { temperature: f32::MIN_POSITIVE, ..hot() };
        assert_eq!(sampler(cold).sample(&[-f32::MAX, f32::MAX], &[], 0, 0).unwrap(), 1);
        let strict = SamplerSettings { top_p: f32::MIN_POSITIVE, min_p: 1.0, top_k: 1, ..hot() };
        assert_eq!(sampler(strict).sample(&[1.0, 2.0], &[], 0, 0).unwrap(), 1);
    }

    #[test]
    fn values_out_of_range_name_their_flag() {
        let cases = [
            ("--temperature", SamplerSettings { temperature: -0.5, ..hot() }),
            ("--temperature", SamplerSettings { temperature: f32::NAN, ..hot() }),
            ("--temperature", SamplerSettings { temperature: f32::INFINITY, ..hot() }),
            ("--top-p", SamplerSettings { top_p: 0.0, ..hot() }),
            ("--top-p", SamplerSettings { top_p: 1.5, ..hot() }),
            ("--min-p", SamplerSettings { min_p: -0.1, ..hot() }),
            ("--min-p", SamplerSettings { min_p: f32::NAN, ..hot() }),
            ("--repetition-penalty", SamplerSettings { repetition_penalty: 0.0, ..hot() }),
        ];
        for (flag, settings) in cases {
            let message = Sampler::new(settings).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{flag}: ")), "{message}");
        }
    }
}
