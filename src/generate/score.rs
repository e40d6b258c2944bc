//! Statistics of a scored text: perplexity, divergence from a reference model, agreement with it.
//!
//! Rows are scored on the device in single precision ([`crate::ops::score`]: each to about 1e-6 nats), chunk by chunk, and
//! added here in double precision in their order: the same scores give the same bits.
//!
//! Definitions, for the tokens `t[0..n]` of a window and row `i` of its logits, which predicts
//! `t[i + 1]`:
//! - negative log likelihood: `-ln softmax(row i)[t[i + 1]]` in nats, for `i` in `0..n-1`: all tokens but
//!   the first;
//! - divergence: `Σ p (ln p - ln q)` in nats with `p` the reference's and `q` the model's probabilities, for each
//!   of the `n` rows;
//! - top-1 agreement: the share of the `n` rows in which both have the highest logit at the same token
//!   (the lowest id of equals).

use crate::error::{Error, Result};
use crate::ops::score::{NO_TARGET, RowScore, Whose};

/// A mean and its standard error over windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Over all rows of all windows.
    pub mean: f64,
    /// `None` with fewer than two windows.
    pub standard_error: Option<f64>,
}

/// What [`Scores`] add up to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Tokens in all windows, the first of each included.
    pub tokens: u64,
    /// Windows scored.
    pub windows: usize,
    /// The exponential of the mean negative log likelihood; its standard error to first order.
    pub perplexity: Estimate,
    /// Mean divergence from the reference in nats, if there is one.
    pub kl_divergence: Option<Estimate>,
    /// Share of rows, 0 to 1, if there is a reference.
    pub top1_agreement: Option<Estimate>,
}

/// Consecutive windows of `length` tokens, at most `count`. What is left over at the end is not scored;
/// a text shorter than one window is one window.
pub fn windows(tokens: &[u32], length: usize, count: usize) -> impl Iterator<Item = &[u32]> {
    let length = length.min(tokens.len()).max(1);
    tokens.chunks_exact(length).take(count)
}

/// What each of the rows from `first` on predicts in a window of `tokens`, `rows` of them.
pub fn targets(tokens: &[u32], first: usize, rows: usize) -> Vec<u32> {
    (first + 1..=first + rows).map(|next| tokens.get(next).copied().unwrap_or(NO_TARGET)).collect()
}

/// Sums of one window.
#[derive(Clone, Copy, Debug, Default)]
struct WindowSums {
    tokens: usize,
    negative_log_likelihood: f64,
    divergence: f64,
    agreements: u64,
}

/// Collects scores window by window, and within a window chunk by chunk.
#[derive(Clone, Debug)]
pub struct Scores {
    vocabulary: usize,
    with_reference: bool,
    finished: Vec<WindowSums>,
    sums: WindowSums,
    tokens: Vec<u32>,
    row: usize,
}

impl Scores {
    /// Scores of models with `vocabulary` tokens, with or without a reference model.
    pub fn new(vocabulary: usize, with_reference: bool) -> Self {
        Self {
            vocabulary,
            with_reference,
            finished: vec![],
            sums: WindowSums::default(),
            tokens: vec![],
            row: 0,
        }
    }

    /// Starts a window of `tokens`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are no tokens, one lies outside the vocabulary, or the last window is
    /// not complete.
    pub fn begin_window(&mut self, tokens: &[u32]) -> Result<()> {
        self.check_complete()?;
        if tokens.is_empty() {
            return Err(Error::shape("score", "a window without tokens"));
        }
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.vocabulary) {
            return Err(Error::shape(
                "score",
                format!("token {token} in the text, {} tokens in the model's vocabulary", self.vocabulary),
            ));
        }
        self.tokens = tokens.to_vec();
        self.row = 0;
        self.sums = WindowSums { tokens: tokens.len(), ..Default::default() };
        Ok(())
    }

    /// Takes the next rows of the window. The last row ends the window.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more rows than tokens; [`Error::Numerical`] with the row if a logit is not finite, or
    /// a score that single precision could not hold.
    pub fn push(&mut self, rows: &[RowScore]) -> Result<()> {
        if rows.len() > self.tokens.len() - self.row {
            return Err(Error::shape(
                "score",
                format!("row {} of a window of {} tokens", self.row + rows.len(), self.tokens.len()),
            ));
        }
        for (row, score) in rows.iter().enumerate() {
            self.check(self.row + row, score)?;
            self.sums.negative_log_likelihood += f64::from(score.negative_log_likelihood);
            self.sums.divergence += f64::from(score.divergence);
            self.sums.agreements += u64::from(score.agrees);
        }
        self.row += rows.len();
        if self.row == self.tokens.len() {
            self.finished.push(self.sums);
            self.tokens.clear();
            self.row = 0;
        }
        Ok(())
    }

    /// That the scores of the window's row `position` are numbers.
    fn check(&self, position: usize, score: &RowScore) -> Result<()> {
        let place = format!("position {position} in window {}", self.finished.len());
        let fault = |whose: &str, message: String| {
            Err(Error::Numerical { place: format!("logits of the {whose}"), message })
        };
        if let Some((whose, token)) = score.not_finite() {
            let whose = match whose {
                Whose::Model => "model",
                Whose::Reference => "reference",
            };
            let message =
                format!("token {token} of {place} is not finite; check the model with `exlay selftest`");
            return fault(whose, message);
        }
        for (value, whose) in
            [(score.negative_log_likelihood, "model"), (score.divergence, "model beside the reference")]
        {
            if !value.is_finite() {
                let message = format!(
                    "{place}: too far apart for single precision; check the model with `exlay selftest`"
                );
                return fault(whose, message);
            }
        }
        Ok(())
    }

    /// The statistics of all windows.
    ///
    /// # Errors
    /// [`Error::Shape`] if the last window is not complete or no token was predicted.
    pub fn summary(&self) -> Result<Summary> {
        self.check_complete()?;
        let windows = &self.finished;
        if !windows.iter().any(|window| window.tokens > 1) {
            return Err(Error::shape("score", "no token to predict: the text needs at least two"));
        }
        let over_rows = |value: fn(&WindowSums) -> f64| ratio(windows, value, |window| window.tokens as f64);
        let loss =
            ratio(windows, |window| window.negative_log_likelihood, |window| (window.tokens - 1) as f64);
        let mean = loss.mean.exp();
        Ok(Summary {
            tokens: windows.iter().map(|window| window.tokens as u64).sum(),
            windows: windows.len(),
            perplexity: Estimate { mean, standard_error: loss.standard_error.map(|error| mean * error) },
            kl_divergence: self.with_reference.then(|| over_rows(|window| window.divergence)),
            top1_agreement: self.with_reference.then(|| over_rows(|window| window.agreements as f64)),
        })
    }

    fn check_complete(&self) -> Result<()> {
        if self.row < self.tokens.len() {
            let message = format!("a window ends after {} of {} rows", self.row, self.tokens.len());
            return Err(Error::shape("score", message));
        }
        Ok(())
    }
}

/// `Σ value / Σ weight` over windows, with the standard error of a ratio of sums over windows
/// (Cochran, "Sampling techniques", 2.11); for equal weights that is the deviation of the windows'
/// means over √windows.
fn ratio(
    windows: &[WindowSums],
    value: impl Fn(&WindowSums) -> f64,
    weight: impl Fn(&WindowSums) -> f64,
) -> Estimate {
    let total: f64 = windows.iter().map(&weight).sum();
    let mean = windows.iter().map(&value).sum::<f64>() / total;
    let count = windows.len() as f64;
    let standard_error = (windows.len() > 1).then(|| {
        let squares: f64 = windows.iter().map(|w| (value(w) - mean * weight(w)).powi(2)).sum();
        (squares * count / (count - 1.0)).sqrt() / total
    });
    Estimate { mean, standard_error }
}

#[cfg(test)]
mod tests;
