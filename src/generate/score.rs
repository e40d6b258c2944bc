//! Statistics of a scored text: perplexity, divergence from a reference model, agreement with it.
//!
//! Logits come chunk by chunk, so a window of 2048 × 49152 of them is never held. Everything is f64.
//! Rows are worked on in parallel, each from its first column to its last, and their results are added
//! in order: the same bits at any thread count.
//!
//! Definitions, for the tokens `t[0..n]` of a window and row `i` of its logits, which predicts
//! `t[i + 1]`:
//! - negative log likelihood: `-ln softmax(row i)[t[i + 1]]` in nats, for `i` in `0..n-1`: all tokens but
//!   the first;
//! - divergence: `Σ p (ln p - ln q)` in nats with `p` the reference's and `q` the model's probabilities, over
//!   the vocabulary without padding columns, for each of the `n` rows;
//! - top-1 agreement: the share of the `n` rows in which both have the highest logit at the same token
//!   (the lowest id of equals).

use rayon::prelude::*;

use crate::error::{Error, Result};

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

/// A chunk of rows of logits, row-major `[rows, columns]`; columns beyond the vocabulary are padding.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    /// `rows × columns` values.
    pub values: &'a [f32],
    /// Values from one row to the next.
    pub columns: usize,
}

impl<'a> Logits<'a> {
    /// The first `vocabulary` values of a row.
    fn row(self, row: usize, vocabulary: usize) -> &'a [f32] {
        &self.values[row * self.columns..][..vocabulary]
    }
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
    /// Scores over the first `vocabulary` columns, with or without a reference model.
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

    /// Takes the next rows of the window: the model's logits, and the reference's for the same tokens.
    /// The last row ends the window.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more rows than tokens, chunks differ in rows, or a reference is
    /// missing or not expected; [`Error::Numerical`] with the row if a logit is not finite.
    pub fn push(&mut self, model: Logits<'_>, reference: Option<Logits<'_>>) -> Result<()> {
        let rows = self.rows(model)?;
        if reference.is_some() != self.with_reference {
            return Err(Error::shape("score", "a reference in only some of the chunks"));
        }
        let reference_rows = reference.map(|reference| self.rows(reference)).transpose()?;
        if reference_rows.is_some_and(|count| count != rows) {
            return Err(Error::shape(
                "score",
                format!("{rows} rows beside {reference_rows:?} of the reference"),
            ));
        }
        if rows > self.tokens.len() - self.row {
            return Err(Error::shape(
                "score",
                format!("row {} of a window of {} tokens", self.row + rows, self.tokens.len()),
            ));
        }
        let vocabulary = self.vocabulary;
        let scores: Vec<RowScore> = (0..rows)
            .into_par_iter()
            .map(|row| {
                let target = self.tokens.get(self.row + row + 1).map(|&token| token as usize);
                let fault = |whose: &str, token: usize| Error::Numerical {
                    place: format!("logits of the {whose}"),
                    message: format!(
                        "token {token} of position {} in window {} is not finite; check the model with `exlay selftest`",
                        self.row + row,
                        self.finished.len()
                    ),
                };
                score_row(model.row(row, vocabulary), reference.map(|logits| logits.row(row, vocabulary)), target, fault)
            })
            .collect::<Result<_>>()?;
        for score in &scores {
            self.sums.negative_log_likelihood += score.negative_log_likelihood;
            self.sums.divergence += score.divergence;
            self.sums.agreements += u64::from(score.agrees);
        }
        self.row += rows;
        if self.row == self.tokens.len() {
            self.finished.push(self.sums);
            self.tokens.clear();
            self.row = 0;
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

    fn rows(&self, logits: Logits<'_>) -> Result<usize> {
        let Logits { values, columns } = logits;
        if columns < self.vocabulary || columns == 0 || values.len() % columns != 0 {
            return Err(Error::shape(
                "score",
                format!("{} logits in rows of {columns}, vocabulary {}", values.len(), self.vocabulary),
            ));
        }
        Ok(values.len() / columns)
    }
}

#[derive(Clone, Copy, Debug)]
struct RowScore {
    negative_log_likelihood: f64,
    divergence: f64,
    agrees: bool,
}

/// Scores one row; without a `target` its likelihood counts as nothing.
fn score_row(
    model: &[f32],
    reference: Option<&[f32]>,
    target: Option<usize>,
    fault: impl Fn(&str, usize) -> Error,
) -> Result<RowScore> {
    let best = highest(model).map_err(|token| fault("model", token))?;
    let shift = f64::from(model[best]);
    let sum: f64 = model.iter().map(|&x| (f64::from(x) - shift).exp()).sum();
    let log_sum = shift + sum.ln();
    let negative_log_likelihood = target.map_or(0.0, |target| log_sum - f64::from(model[target]));
    let Some(reference) = reference else {
        return Ok(RowScore { negative_log_likelihood, divergence: 0.0, agrees: false });
    };
    let reference_best = highest(reference).map_err(|token| fault("reference", token))?;
    let reference_shift = f64::from(reference[reference_best]);
    // With p = e / Σe: Σ p (ln p - ln q) = Σ e (r - m) / Σ e - ln Σ exp r + ln Σ exp m.
    let (mut reference_sum, mut weighted) = (0.0, 0.0);
    for (&r, &m) in reference.iter().zip(model) {
        let e = (f64::from(r) - reference_shift).exp();
        reference_sum += e;
        weighted += e * (f64::from(r) - f64::from(m));
    }
    let divergence = weighted / reference_sum - (reference_shift + reference_sum.ln()) + log_sum;
    Ok(RowScore { negative_log_likelihood, divergence, agrees: best == reference_best })
}

/// The index of the highest value, the lowest of equals; `Err` with the first that is not finite.
fn highest(row: &[f32]) -> std::result::Result<usize, usize> {
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
