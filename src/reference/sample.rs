//! Oracle of choosing a token: one token from one row of logits.
//!
//! The steps, in order: repetition penalty, temperature, top-k, top-p, min-p, draw. The penalty works
//! on the logits; the three cuts see the probabilities that the tempered logits have among the tokens
//! that are still in, and the draw is from those that remain. Temperature 0 takes the highest logit
//! after the penalty; the cuts never remove that one.
//!
//! All choices are deterministic: equal logits are ordered by token id, arithmetic is f64 in a fixed
//! order, and the random number is a function of (seed, step), see [`super::philox`]. The penalty alone is one product in
//! single precision (by the rounded inverse where it divides), because it decides which of two tokens ranks higher.

use super::philox::uniform;

/// How to choose; each field as in `ops::sample::SamplerSettings`.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// 0 is off.
    pub top_k: usize,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub min_p: f32,
    /// 1 is off.
    pub repetition_penalty: f32,
    /// Of the random numbers.
    pub seed: u64,
}

/// A token, and how close others were to being it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// The token.
    pub token: u32,
    /// Distance of the drawn number, and of top-p, from the nearest end of a token's part of what they are shares of.
    pub share_margin: f64,
    /// Distance of the nearest token's weight from the limit of min-p, as a share of the limit.
    pub min_p_margin: f64,
    /// Mean over the weights of (highest − tempered logit): errors of the weights grow with it.
    pub mean_distance: f64,
}

/// A token that is still in, with its tempered logit.
type Candidate = (f64, u32);

impl Sampler {
    /// The token at step `step` of a text whose earlier tokens are `history` (in any order, prompt included), of which
    /// `logits` `[vocabulary]` are the scores, all finite.
    pub fn choose(&self, logits: &[f32], history: &[u32], step: u32) -> Chosen {
        let mut scores = logits.to_vec();
        self.penalize(&mut scores, history);
        let mut candidates: Vec<Candidate> = (0..).zip(&scores).map(|(id, &x)| (f64::from(x), id)).collect();
        if self.temperature == 0.0 {
            let token = candidates.iter().min_by(|a, b| by_rank(a, b)).expect("logits are not empty").1;
            return Chosen { token, share_margin: 1.0, min_p_margin: 1.0, mean_distance: 0.0 };
        }
        for (logit, _) in &mut candidates {
            *logit /= f64::from(self.temperature);
        }
        candidates.sort_unstable_by(by_rank);
        if self.top_k > 0 {
            candidates.truncate(self.top_k);
        }
        let highest = candidates[0].0;
        let mut weights: Vec<f64> = candidates.iter().map(|(logit, _)| (logit - highest).exp()).collect();
        let distances = candidates
            .iter()
            .zip(&weights)
            .map(|((logit, _), weight)| if *weight > 0.0 { (highest - logit) * weight } else { 0.0 });
        let mean_distance = distances.sum::<f64>() / weights.iter().sum::<f64>();
        let cut_margin = keep_top_p(&mut weights, f64::from(self.top_p));
        // Weights are shares of the highest one already, and sorted.
        let limit = f64::from(self.min_p);
        // Those equal to the highest cannot be confused with the limit.
        let others = weights.iter().filter(|&&weight| weight < 1.0);
        let min_p_margin = others.map(|weight| (weight - limit).abs() / limit).fold(1.0, f64::min);
        weights.truncate(weights.partition_point(|&weight| weight >= limit));
        let (index, draw_margin) = draw(&weights, uniform(self.seed, step));
        let share_margin = cut_margin.min(draw_margin);
        Chosen { token: candidates[index].1, share_margin, min_p_margin, mean_distance }
    }

    /// Makes each token of the history less likely, once however often it occurs.
    fn penalize(&self, scores: &mut [f32], history: &[u32]) {
        let mut seen = history.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            let score = &mut scores[id as usize];
            let factor = if *score > 0.0 { 1.0 / self.repetition_penalty } else { self.repetition_penalty };
            *score = (*score * factor).clamp(-f32::MAX, f32::MAX);
        }
    }
}

/// Higher logits first, equal ones by token id. Logits are finite.
fn by_rank(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    // `+ 0.0` makes the two zeros equal.
    (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then(a.1.cmp(&b.1))
}

/// `weights` descend. The last one kept is the one that reaches `top_p` of the sum. Returns how far from an end of that
/// one's part of the sum `top_p` is.
fn keep_top_p(weights: &mut Vec<f64>, top_p: f64) -> f64 {
    if top_p >= 1.0 {
        return 1.0;
    }
    let all = weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let reached = weights.iter().position(|weight| {
        sum += weight;
        sum >= top_p * all
    });
    let last = reached.unwrap_or(weights.len() - 1);
    weights.truncate(last + 1);
    // At the first weight's beginning there is nothing to confuse it with.
    let before = if last == 0 { 1.0 } else { top_p - (sum - weights[last]) / all };
    before.min(sum / all - top_p).max(0.0)
}

/// The index whose part of the summed weights holds `uniform`, in `[0, 1)`, and how far from an end of its part that is.
fn draw(weights: &[f64], uniform: f64) -> (usize, f64) {
    let all = weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let found = weights.iter().position(|weight| {
        sum += weight;
        uniform * all < sum
    });
    // Rounding can bring the product up to the sum itself.
    let index = found.unwrap_or(weights.len() - 1);
    let before = if index == 0 { 1.0 } else { uniform - (sum - weights[index]) / all };
    let after = if index == weights.len() - 1 { 1.0 } else { sum / all - uniform };
    (index, before.min(after).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEDY: Sampler =
        Sampler { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 };

    /// How often each token comes, as shares of `n` draws.
    fn shares(sampler: Sampler, logits: &[f32], n: u32) -> Vec<f64> {
        let mut counts = vec![0_u32; logits.len()];
        for step in 0..n {
            counts[sampler.choose(logits, &[], step).token as usize] += 1;
        }
        counts.into_iter().map(|count| f64::from(count) / f64::from(n)).collect()
    }

    fn assert_shares(sampler: Sampler, logits: &[f32], expected: &[f64]) {
        let n = 40_000;
        for (token, (got, want)) in shares(sampler, logits, n).iter().zip(expected).enumerate() {
            // Five standard deviations of a share; a token that is cut must never come.
            let tolerance = 5.0 * (want * (1.0 - want) / f64::from(n)).sqrt();
            assert!((got - want).abs() <= tolerance, "token {token}: {got}, expected {want}");
        }
    }

    /// Logits of the probabilities 0.1, 0.4, 0.3, 0.2.
    fn logits() -> Vec<f32> {
        [0.1_f32, 0.4, 0.3, 0.2].iter().map(|p| p.ln() + 3.0).collect()
    }

    fn hot() -> Sampler {
        Sampler { temperature: 1.0, ..GREEDY }
    }

    #[test]
    fn greedy_takes_the_highest_and_the_lowest_id_of_equals() {
        assert_eq!(GREEDY.choose(&[1.0, 3.0, 3.0, 2.0], &[], 9).token, 1);
        assert_eq!(GREEDY.choose(&[-0.0, 0.0], &[], 0).token, 0);
        assert_eq!(GREEDY.choose(&[-5.0], &[], 0).token, 0);
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
        assert_shares(Sampler { temperature: 2.0, ..hot() }, &logits(), &expected);
    }

    #[test]
    fn top_k_keeps_k_and_breaks_ties_by_id() {
        let two = Sampler { top_k: 2, ..hot() };
        assert_shares(two, &logits(), &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
        assert_shares(two, &[0.0, 1.0, 1.0, 1.0], &[0.0, 0.5, 0.5, 0.0]);
        assert_shares(Sampler { top_k: 9, ..hot() }, &logits(), &[0.1, 0.4, 0.3, 0.2]);
    }

    #[test]
    fn top_p_keeps_the_token_that_crosses() {
        let cut = |top_p| Sampler { top_p, ..hot() };
        assert_shares(cut(0.39), &logits(), &[0.0, 1.0, 0.0, 0.0]);
        assert_shares(cut(0.5), &logits(), &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
        assert_shares(cut(0.75), &logits(), &[0.0, 4.0 / 9.0, 3.0 / 9.0, 2.0 / 9.0]);
    }

    #[test]
    fn min_p_is_a_share_of_the_highest() {
        let cut = Sampler { min_p: 0.6, ..hot() };
        assert_shares(cut, &logits(), &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
        assert_shares(Sampler { min_p: 1.0, ..hot() }, &logits(), &[0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn cuts_come_after_the_temperature_and_see_what_is_left() {
        // Tempered by 0.5 the probabilities are 0.01, 0.16, 0.09, 0.04 of 0.30. Of the best two,
        // 0.16/0.25 = 0.64 alone reaches a top-p of 0.6; of all, 0.16/0.30 = 0.53 does not.
        let settings = Sampler { temperature: 0.5, top_k: 2, top_p: 0.6, ..hot() };
        assert_shares(settings, &logits(), &[0.0, 1.0, 0.0, 0.0]);
        let without_k = Sampler { top_k: 0, ..settings };
        assert_shares(without_k, &logits(), &[0.0, 16.0 / 25.0, 9.0 / 25.0, 0.0]);
    }

    #[test]
    fn the_penalty_divides_positive_and_multiplies_negative_logits_once() {
        let greedy = Sampler { repetition_penalty: 2.0, ..GREEDY };
        // 3.0 becomes 1.5 (not 0.75 for two occurrences), below 1.6 and above 1.4.
        assert_eq!(greedy.choose(&[3.0, 1.6], &[0, 0], 0).token, 1);
        assert_eq!(greedy.choose(&[3.0, 1.4], &[0, 0], 0).token, 0);
        // -1.0 becomes -2.0.
        assert_eq!(greedy.choose(&[-1.0, -1.5], &[0], 0).token, 1);
    }

    #[test]
    fn the_same_seed_and_step_give_the_same_token() {
        let draws = |seed| -> Vec<u32> {
            (0..64).map(|step| Sampler { seed, ..hot() }.choose(&[0.0; 37], &[], step).token).collect()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn extreme_but_legal_values_do_not_break_the_arithmetic() {
        let cold = Sampler { temperature: f32::MIN_POSITIVE, ..hot() };
        assert_eq!(cold.choose(&[-f32::MAX, f32::MAX], &[], 0).token, 1);
        let strict = Sampler { top_p: f32::MIN_POSITIVE, min_p: 1.0, top_k: 1, ..hot() };
        assert_eq!(strict.choose(&[1.0, 2.0], &[], 0).token, 1);
    }

    #[test]
    fn margins_are_the_distances_to_the_nearest_end() {
        // Parts of the kept 0.4, 0.3: ends at 4/7.
        let two = Sampler { top_p: 0.5, ..hot() };
        let chosen = two.choose(&logits(), &[], 0);
        let end = (uniform(0, 0) - 4.0 / 7.0).abs();
        // Top-p is 0.1 from either end of 0.3's part, 0.4 to 0.7.
        assert!((chosen.share_margin - end.min(0.1)).abs() < 1e-6, "{chosen:?}");
        let limited = Sampler { min_p: 0.6, ..hot() };
        // 0.3 is 0.75 of the highest weight, 0.2 is 0.5.
        assert!((limited.choose(&logits(), &[], 0).min_p_margin - 0.1 / 0.6).abs() < 1e-6);
    }
}
