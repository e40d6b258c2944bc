//! Oracle of what a row of logits says about a text, and beside a reference's.

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// `-ln softmax(model)[target]` in nats, 0 without a target.
    pub negative_log_likelihood: f64,
    /// `Σ p·(ln p − ln q)` in nats with p and q the softmax of the reference's and the model's logits; 0 without a reference.
    pub divergence: f64,
    /// Both have the highest logit at the same token, the lowest of equals; so it is without a reference.
    pub agrees: bool,
}

/// A logit that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("logit {token} of the {} is not finite", if *.of_reference { "reference" } else { "model" })]
pub struct NotFinite {
    /// Whether it is the reference's.
    pub of_reference: bool,
    /// Its token, the first such.
    pub token: usize,
}

/// Scores one row.
///
/// # Errors
/// [`NotFinite`] for the first logit that is not, the model's before the reference's.
pub fn score(model: &[f32], reference: Option<&[f32]>, target: Option<usize>) -> Result<Score, NotFinite> {
    let best = highest(model).map_err(|token| NotFinite { of_reference: false, token })?;
    let shift = f64::from(model[best]);
    let sum: f64 = model.iter().map(|&x| (f64::from(x) - shift).exp()).sum();
    let log_sum = shift + sum.ln();
    let negative_log_likelihood = target.map_or(0.0, |target| log_sum - f64::from(model[target]));
    let Some(reference) = reference else {
        return Ok(Score { negative_log_likelihood, divergence: 0.0, agrees: true });
    };
    let reference_best = highest(reference).map_err(|token| NotFinite { of_reference: true, token })?;
    let reference_shift = f64::from(reference[reference_best]);
    // With p = e / Σe: Σ p (ln p - ln q) = Σ e (r - m) / Σ e - ln Σ exp r + ln Σ exp m.
    let (mut reference_sum, mut weighted) = (0.0, 0.0);
    for (&r, &m) in reference.iter().zip(model) {
        let e = (f64::from(r) - reference_shift).exp();
        reference_sum += e;
        weighted += e * (f64::from(r) - f64::from(m));
    }
    let divergence = weighted / reference_sum - (reference_shift + reference_sum.ln()) + log_sum;
    Ok(Score { negative_log_likelihood, divergence, agrees: best == reference_best })
}

/// Mean divergence in nats of rows of `cols` logits from a reference's.
///
/// # Errors
/// As [`score`].
pub fn mean_divergence(model: &[f32], reference: &[f32], cols: usize) -> Result<f64, NotFinite> {
    let rows = model.chunks(cols).zip(reference.chunks(cols));
    let count = rows.len() as f64;
    let sum: f64 = rows
        .map(|(model, reference)| Ok(score(model, Some(reference), None)?.divergence))
        .sum::<Result<_, _>>()?;
    Ok(sum / count)
}

/// The index of the highest value, the lowest of equals; `Err` with the first that is not finite.
fn highest(row: &[f32]) -> Result<usize, usize> {
    let mut best = 0;
    for (index, &value) in row.iter().enumerate() {
        if !value.is_finite() {
            return Err(index);
        }
        if value > row[best] {
            best = index;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits that are the logarithms of probabilities, up to a constant.
    fn logs(probabilities: &[f64], shift: f64) -> Vec<f32> {
        probabilities.iter().map(|p| (p.ln() + shift) as f32).collect()
    }

    /// f32 logits up to 32 are off by 2^-20 at most; each figure is a sum of at most three such.
    const TOLERANCE: f64 = 3e-6;

    fn assert_near(got: f64, want: f64) {
        assert!((got - want).abs() < TOLERANCE, "{got}, expected {want}");
    }

    #[test]
    fn likelihoods_by_hand() {
        for shift in [0.0, 7.5, -31.0] {
            let row = logs(&[0.125, 0.125, 0.75], shift);
            for (target, p) in [0.125_f64, 0.125, 0.75].into_iter().enumerate() {
                let found = score(&row, None, Some(target)).unwrap();
                assert_near(found.negative_log_likelihood, -p.ln());
                assert_eq!((found.divergence, found.agrees), (0.0, true));
            }
            assert_eq!(score(&row, None, None).unwrap().negative_log_likelihood, 0.0);
        }
    }

    #[test]
    fn divergence_and_agreement_by_hand() {
        let first = score(&logs(&[0.5, 0.5], 7.5), Some(&logs(&[0.25, 0.75], -31.0)), None).unwrap();
        assert_near(first.divergence, 0.25 * (0.25_f64 / 0.5).ln() + 0.75 * (0.75_f64 / 0.5).ln());
        assert!(!first.agrees, "a tie, taken as token 0, beside token 1");
        let second = score(&logs(&[0.25, 0.75], 0.0), Some(&logs(&[0.125, 0.875], 3.0)), None).unwrap();
        assert_near(second.divergence, 0.125 * (0.125_f64 / 0.25).ln() + 0.875 * (0.875_f64 / 0.75).ln());
        assert!(second.agrees);
        let pair = |a, b| [logs(a, 0.0), logs(b, 0.0)].concat();
        let (model, reference) = (pair(&[0.5, 0.5], &[0.25, 0.75]), pair(&[0.25, 0.75], &[0.125, 0.875]));
        let mean = mean_divergence(&model, &reference, 2).unwrap();
        assert_near(mean, (first.divergence + second.divergence) / 2.0);
    }

    #[test]
    fn a_row_does_not_diverge_from_itself() {
        let row: Vec<f32> = (0..37).map(|i| ((i * 7919) % 101) as f32 / 3.0 - 20.0).collect();
        assert_eq!(score(&row, Some(&row), None).unwrap().divergence, 0.0);
    }

    #[test]
    fn the_first_logit_that_is_not_finite_is_named() {
        let (good, bad) = ([0.0; 3], [0.0, f32::NAN, f32::INFINITY]);
        let fault = |of_reference| NotFinite { of_reference, token: 1 };
        assert_eq!(score(&bad, Some(&bad), None), Err(fault(false)));
        assert_eq!(score(&good, Some(&bad), None), Err(fault(true)));
        assert_eq!(fault(true).to_string(), "logit 1 of the reference is not finite");
    }
}
