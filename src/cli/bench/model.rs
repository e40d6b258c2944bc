//! `exlay bench model`: tokens per second of a model, made up or from a directory.

use std::time::Instant;

use clap::Args;
use exlay::bench::{Bandwidth, ModelFigures, ModelPlan, bandwidth, time_model};
use exlay::model::{CachePrecision, CacheSize, Llama, LoadOptions};
use serde::Serialize;

use super::source::SourceArgs;
use super::{percent, significant};
use crate::cli::generate::report::Memory;
use crate::cli::generate::{PROMPT_ROWS, default_context};

use crate::cli::output::{self, Align, Table};
use crate::cli::progress::Steps;
use crate::cli::tuning::{self, TuningReport};
use crate::cli::{Embedding, GlobalArgs, units};

/// Measure tokens per second of a model at several lengths of context.
///
/// Sampling (the most likely token) and reading tokens back are part of what is timed. The share is that of the memory
/// bandwidth that a kernel reaches in the same run that does nothing but read.
#[derive(Clone, Debug, Args)]
pub(crate) struct ModelArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Tokens in the cache when generation begins; 0 and 2048 if not given, as far as the model goes.
    #[arg(long, value_name = "TOKENS,…", value_delimiter = ',')]
    context_lengths: Option<Vec<usize>>,
    /// Tokens to generate in each run.
    #[arg(short = 't', long, value_name = "COUNT", default_value_t = 128)]
    tokens: usize,
    /// Tokens of the prompt to read; 0 leaves prompts out.
    #[arg(long, value_name = "COUNT", default_value_t = 512)]
    prompt: usize,
    /// Runs of each measurement, whose median is told.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    runs: usize,
    /// Size of the cache in tokens; as many as are needed if not given.
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// Where rows of the embedding table are looked up.
    #[arg(long, default_value = "device")]
    embedding: Embedding,
    /// Print where the time of a token goes, kernel by kernel, at the last context.
    #[arg(long)]
    profile: bool,
}

impl ModelArgs {
    /// Lengths of context, those asked for or those of the default that the model reaches.
    fn contexts(&self, limit: usize) -> Vec<usize> {
        let fits = |context: &usize| context.saturating_add(self.tokens) <= limit;
        self.context_lengths.clone().unwrap_or_else(|| [0, 2048].into_iter().filter(fits).collect())
    }
}

/// # Errors
/// As the model's files and the device report, and for lengths beyond the model's.
pub(super) fn run(args: &ModelArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let source = args.source.open()?;
    let limit = source.config.max_position_embeddings;
    let contexts = args.contexts(limit);
    let prompt = args.prompt.min(limit);
    let longest = contexts.iter().max().copied().unwrap_or(0);
    let context = args.context.unwrap_or_else(|| default_context(longest.max(prompt), args.tokens, limit));

    // On a device of its own, so that its buffers are no part of the model's memory.
    let memory = bandwidth(&GlobalArgs { vram: None, ..global.clone() }.open_device()?, args.runs.max(1))?;
    let (adapter, device) = global.open()?;
    let started = Instant::now();
    let load = LoadOptions {
        rows: longest.max(prompt).min(PROMPT_ROWS),
        cache: CacheSize { slots: 1, context },
        embedding: args.embedding.into(),
        precision: CachePrecision::Half,
    };
    let mut steps = Steps::new();
    let mut model = Llama::from_source(&device, source.config, source.weights, load, &mut |done, all| {
        steps.report("loading", done, all);
    })?;
    steps.end();
    let load_seconds = started.elapsed().as_secs_f64();
    let tuning = tuning::complete(global, &adapter, &device, &mut model)?;
    let parts = model.memory();
    let plan = ModelPlan {
        contexts,
        tokens: args.tokens,
        prompt,
        runs: args.runs,
        read_gb_per_s: memory.read_gb_per_s.median,
    };
    let figures = time_model(&mut model, &plan, &mut |what| output::note(&format!("timing {what}")))?;
    let report = ModelReport {
        model: source.name,
        bits_per_weight: source.bits.map(|(blocks, _)| blocks),
        head_bits_per_weight: source.bits.map(|(_, head)| head),
        load_seconds,
        context,
        embedding: args.embedding,
        figures,
        memory: Memory {
            weights: parts.weights,
            cache: parts.cache,
            scratch: parts.scratch,
            peak: device.memory().peak,
        },
        bandwidth: memory,
        tuning,
        adapter: adapter.name().to_owned(),
        driver: format!("{} {}", adapter.backend(), adapter.driver()),
        tier: device.tier().to_string(),
        arithmetic: model.arithmetic().map(|one| one.to_string()),
        version: env!("CARGO_PKG_VERSION"),
    };
    let text = if global.json { output::json(&report)? } else { report.text(args.profile) };
    Ok(output::print(&text)?)
}

/// What was found, and what it depends on.
#[derive(Clone, Debug, Serialize)]
struct ModelReport {
    /// Directory or shape.
    model: String,
    /// Stored bits of a weight of the blocks; of a model that was made up.
    bits_per_weight: Option<f64>,
    /// The same of the head.
    head_bits_per_weight: Option<f64>,
    /// Making or reading the weights and sending them to the device.
    load_seconds: f64,
    /// Tokens that the cache holds.
    context: usize,
    /// Where the embedding table is.
    embedding: Embedding,
    #[serde(flatten)]
    figures: ModelFigures,
    /// Device memory.
    memory: Memory,
    /// What the device's memory can do.
    bandwidth: Bandwidth,
    /// How products are shared out.
    tuning: TuningReport,
    adapter: String,
    driver: String,
    tier: String,
    /// Of products of few rows; absent where the weights are not all packed.
    arithmetic: Option<String>,
    version: &'static str,
}

impl ModelReport {
    fn text(&self, profile: bool) -> String {
        let bits = match (self.bits_per_weight, self.head_bits_per_weight) {
            (Some(blocks), Some(head)) => format!(", {blocks:.4} bits per weight, head {head:.4}"),
            _ => String::new(),
        };
        let figures = &self.figures;
        let mut text = format!(
            "adapter     {} ({}), tier {}{}\nmodel       {}{bits}\nload        {}\nmemory      {}\n\
             tuning      {}\nbandwidth   {} GB/s read, {} GB/s copied\ndispatches  {:.1} a layer, {} a token\n\n{}",
            self.adapter,
            self.driver,
            self.tier,
            self.arithmetic.as_ref().map(|one| format!(", {one}")).unwrap_or_default(),
            self.model,
            units::seconds(self.load_seconds),
            self.memory.words(),
            self.tuning.words(),
            significant(self.bandwidth.read_gb_per_s.median),
            significant(self.bandwidth.copy_gb_per_s.median),
            figures.dispatches_per_layer,
            figures.dispatches_per_token,
            self.speeds(),
        );
        if profile {
            text += &format!("\n{}", self.profile());
        }
        text
    }

    fn speeds(&self) -> Table {
        use Align::{Left, Right};
        let mut table = Table::new(&[
            ("what", Left),
            ("tokens/s", Right),
            ("±", Right),
            ("MB/token", Right),
            ("GB/s", Right),
            ("of read", Right),
            ("device ms", Right),
        ]);
        if let Some(prompt) = &self.figures.prompt {
            let (speed, none) = (&prompt.tokens_per_second, || "-".to_owned());
            let what = format!("prompt of {}", prompt.tokens);
            let rate = significant(speed.median);
            table.row(vec![what, rate, percent(speed.relative()), none(), none(), none(), none()]);
        }
        for decoded in &self.figures.decode {
            let speed = &decoded.tokens_per_second;
            table.row(vec![
                format!("{} tokens after {}", decoded.tokens, decoded.context),
                significant(speed.median),
                percent(speed.relative()),
                significant(decoded.bytes_per_token as f64 / 1e6),
                significant(decoded.gb_per_s),
                percent(decoded.share_of_read),
                significant(1e3 * decoded.device_seconds_per_token),
            ]);
        }
        table
    }

    fn profile(&self) -> Table {
        use Align::{Left, Right};
        let mut table =
            Table::new(&[("kernel", Left), ("count", Right), ("µs each", Right), ("share", Right)]);
        for kernel in &self.figures.profile {
            table.row(vec![
                kernel.kernel.clone(),
                kernel.count.to_string(),
                significant(kernel.microseconds),
                format!("{:.1}%", 100.0 * kernel.share),
            ]);
        }
        table
    }
}
