//! `exlay eval`: flags and result of scoring a text.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use exlay::Error;
use exlay::generate::eval::text_tokens;
use exlay::generate::{Estimate, EvalOptions, Summary, evaluate};
use serde::Serialize;

use super::progress::Steps;
use super::{Embedding, GlobalArgs, output, units};

/// Score a text: perplexity, and divergence from a reference model.
///
/// The texts of all rows are joined by one newline and tokenized once, without special tokens, then cut into
/// consecutive windows.
#[derive(Clone, Debug, Args)]
pub(crate) struct EvalArgs {
    /// Directory of the model, EXL2 or F16.
    #[arg(short = 'm', long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Text to score: a .parquet with a column of texts, or a .txt.
    #[arg(short = 'd', long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Column of the .parquet that holds the texts, if it is not `text`.
    #[arg(long, value_name = "NAME")]
    pub(crate) column: Option<String>,
    /// Directory of a model with the same tokens to compare with: mean KL divergence and top-1 agreement.
    #[arg(long, value_name = "DIR")]
    pub(crate) reference: Option<PathBuf>,
    /// Tokens in a window, if the model's limit is not lower.
    #[arg(long, value_name = "TOKENS", default_value_t = 2048, value_parser = parse_context)]
    pub(crate) context: usize,
    /// Most windows to score.
    #[arg(long, value_name = "COUNT", default_value_t = 40, value_parser = parse_windows)]
    pub(crate) windows: usize,
    /// Where rows of the embedding table are looked up.
    #[arg(long, default_value = "device")]
    pub(crate) embedding: Embedding,
    /// Hold one layer at a time on the device, for models larger than its memory; the same result, slower.
    #[arg(long)]
    pub(crate) stream: bool,
}

fn parse_context(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(tokens) if tokens >= 2 => Ok(tokens),
        _ => Err("write a whole number from 2 up: the first token of a window is not predicted".into()),
    }
}

fn parse_windows(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("write a whole number from 1 up".into()),
    }
}

pub(crate) fn run(args: &EvalArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let tokens = text_tokens(&args.model, &args.data, args.column.as_deref())?;
    let device = global.open_device()?;
    let options = EvalOptions {
        context: args.context,
        windows: args.windows,
        embedding: args.embedding.into(),
        stream: args.stream,
        ..Default::default()
    };
    let started = Instant::now();
    let mut steps = Steps::new();
    let mut progress = |label, done, all| steps.report(label, done, all);
    let reference = args.reference.as_deref();
    let result = evaluate(&device, &args.model, reference, &tokens, options, &mut progress);
    steps.end();
    let evaluation = result.map_err(|error| {
        let advice = matches!(error, Error::OutOfMemory { .. } | Error::Limit { .. }) && !args.stream;
        let error = anyhow::Error::new(error);
        if advice { error.context("--stream holds one layer at a time on the device") } else { error }
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let adapter = device.name().to_owned();
    let report = EvalReport::new(&evaluation.summary, evaluation.context, seconds, adapter);
    output::print(&if global.json { output::json(&report)? } else { report.to_string() })?;
    Ok(())
}

/// The result. Standard errors (`_se`) are over windows and absent with one window; divergence and agreement
/// are absent without a reference.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EvalReport {
    /// Tokens in all windows.
    pub(crate) tokens: u64,
    /// Windows scored.
    pub(crate) windows: usize,
    /// Tokens in a window.
    pub(crate) context: usize,
    /// Over the tokens of each window but the first.
    pub(crate) perplexity: f64,
    pub(crate) perplexity_se: Option<f64>,
    /// Nats, over all positions.
    pub(crate) kl_divergence: Option<f64>,
    pub(crate) kl_divergence_se: Option<f64>,
    /// Share of all positions, 0 to 1.
    pub(crate) top1_agreement: Option<f64>,
    pub(crate) top1_agreement_se: Option<f64>,
    /// Wall-clock time of the scoring.
    pub(crate) seconds: f64,
    /// Name of the adapter.
    pub(crate) adapter: String,
}

impl EvalReport {
    /// `summary` of windows of `context` tokens.
    pub(crate) fn new(summary: &Summary, context: usize, seconds: f64, adapter: String) -> Self {
        let mean = |estimate: Option<Estimate>| estimate.map(|estimate| estimate.mean);
        let error = |estimate: Option<Estimate>| estimate.and_then(|estimate| estimate.standard_error);
        Self {
            tokens: summary.tokens,
            windows: summary.windows,
            context,
            perplexity: summary.perplexity.mean,
            perplexity_se: summary.perplexity.standard_error,
            kl_divergence: mean(summary.kl_divergence),
            kl_divergence_se: error(summary.kl_divergence),
            top1_agreement: mean(summary.top1_agreement),
            top1_agreement_se: error(summary.top1_agreement),
            seconds,
            adapter,
        }
    }
}

impl std::fmt::Display for EvalReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let with_error = |value: f64, error: Option<f64>, digits: usize| match error {
            Some(error) => format!("{value:.digits$} ± {error:.digits$}"),
            None => format!("{value:.digits$}"),
        };
        writeln!(f, "perplexity       {}", with_error(self.perplexity, self.perplexity_se, 4))?;
        if let Some(divergence) = self.kl_divergence {
            writeln!(f, "KL divergence    {} nats", with_error(divergence, self.kl_divergence_se, 6))?;
        }
        if let Some(agreement) = self.top1_agreement {
            let error = self.top1_agreement_se.map(|error| 100.0 * error);
            writeln!(f, "top-1 agreement  {} %", with_error(100.0 * agreement, error, 2))?;
        }
        let (tokens, time) = (units::count(self.tokens), units::seconds(self.seconds));
        writeln!(
            f,
            "scored           {tokens} tokens (windows: {} of {}), {time}",
            self.windows, self.context
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{output, tests::parse};
    use insta::assert_snapshot;

    #[test]
    fn defaults_and_ranges() {
        let args = parse::<EvalArgs>("eval -m dir -d text.txt").unwrap();
        assert_eq!((args.context, args.windows, args.stream), (2048, 40, false));
        for flags in ["--context 1", "--windows 0", "--embedding moon"] {
            assert!(parse::<EvalArgs>(&format!("eval -m dir -d text.txt {flags}")).is_err(), "{flags}");
        }
    }

    fn estimate(mean: f64, error: f64) -> Estimate {
        Estimate { mean, standard_error: Some(error) }
    }

    #[test]
    fn a_report_with_reference() {
        let summary = Summary {
            tokens: 20_480,
            windows: 40,
            perplexity: estimate(17.79264, 0.31),
            kl_divergence: Some(estimate(0.229461, 0.00123)),
            top1_agreement: Some(estimate(0.7164, 0.0031)),
        };
        let report = EvalReport::new(&summary, 512, 12.34, "llvmpipe".into());
        assert_snapshot!(report.to_string(), @r"
        perplexity       17.7926 ± 0.3100
        KL divergence    0.229461 ± 0.001230 nats
        top-1 agreement  71.64 ± 0.31 %
        scored           20,480 tokens (windows: 40 of 512), 12.3 s
        ");
        assert_snapshot!(output::json(&report).unwrap(), @r#"
        {
          "tokens": 20480,
          "windows": 40,
          "context": 512,
          "perplexity": 17.79264,
          "perplexity_se": 0.31,
          "kl_divergence": 0.229461,
          "kl_divergence_se": 0.00123,
          "top1_agreement": 0.7164,
          "top1_agreement_se": 0.0031,
          "seconds": 12.34,
          "adapter": "llvmpipe"
        }
        "#);
    }

    #[test]
    fn a_report_of_one_window_without_reference() {
        let perplexity = Estimate { mean: 14.59, standard_error: None };
        let summary =
            Summary { tokens: 512, windows: 1, perplexity, kl_divergence: None, top1_agreement: None };
        let report = EvalReport::new(&summary, 512, 0.5, "llvmpipe".into());
        assert_snapshot!(report.to_string(), @r"
        perplexity       14.5900
        scored           512 tokens (windows: 1 of 512), 0.50 s
        ");
        assert_snapshot!(output::json(&report).unwrap(), @r#"
        {
          "tokens": 512,
          "windows": 1,
          "context": 512,
          "perplexity": 14.59,
          "perplexity_se": null,
          "kl_divergence": null,
          "kl_divergence_se": null,
          "top1_agreement": null,
          "top1_agreement_se": null,
          "seconds": 0.5,
          "adapter": "llvmpipe"
        }
        "#);
    }
}
