//! `exlay bench arithmetic`: how far the arithmetics of generation are apart, as KL divergence of a model's output.

use std::path::PathBuf;

use clap::Args;
use exlay::bench::{Difference, Likeness, difference, likeness, logits, random_tokens};
use exlay::generate::eval::text_tokens;
use exlay::gpu::Arithmetic;
use exlay::model::{CachePrecision, CacheSize, Llama, LoadOptions};
use exlay::ops::group_gemv::MOST_ROWS;
use serde::Serialize;

use super::source::SourceArgs;
use crate::cli::output::{self, Align, Table};
use crate::cli::progress::Steps;
use crate::cli::{Embedding, GlobalArgs};

/// Show what each arithmetic of generation changes of a model's output.
///
/// The same tokens go through the model eight rows at a time in each arithmetic that the adapter has, or in that of
/// --arithmetic, and their logits are compared with those in single precision (f32). The model is loaded once for each.
#[derive(Clone, Debug, Args)]
pub(crate) struct ArithmeticArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Take the first tokens of this text (a .parquet with a column `text`, or a .txt) instead of random ones.
    #[arg(short = 'd', long, value_name = "FILE", conflicts_with = "synthetic")]
    data: Option<PathBuf>,
    /// Tokens to compare.
    #[arg(short = 't', long, value_name = "COUNT", default_value_t = 256)]
    tokens: usize,
    /// Where rows of the embedding table are looked up.
    #[arg(long, default_value = "device")]
    embedding: Embedding,
}

/// What was found, and what it depends on.
#[derive(Clone, Debug, Serialize)]
struct ArithmeticReport {
    /// Directory or shape.
    model: String,
    /// Stored bits of a weight of the blocks; of a model that was made up.
    bits_per_weight: Option<f64>,
    /// The same of the head.
    head_bits_per_weight: Option<f64>,
    /// The text's file; absent where tokens are random.
    data: Option<PathBuf>,
    tokens: usize,
    vocabulary: usize,
    /// What logits in single precision are like.
    #[serde(flatten)]
    single: Likeness,
    /// What the others change.
    arithmetics: Vec<Difference>,
    /// What the adapter gets if nothing is asked for.
    default_arithmetic: String,
    adapter: String,
    driver: String,
    tier: String,
    version: &'static str,
}

/// # Errors
/// As the model's files and the device report; for a model that is not packed.
pub(super) fn run(args: &ArithmeticArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let (adapter, device) = global.open()?;
    let source = args.source.open()?;
    let vocabulary = source.config.vocab_size;
    let count = args.tokens.clamp(1, source.config.max_position_embeddings);
    let tokens = match (&args.data, &args.source.model) {
        (Some(data), Some(model)) => text_tokens(model, data, None)?.into_iter().take(count).collect(),
        _ => random_tokens(count, vocabulary),
    };
    let run = |arithmetic: Arithmetic| -> anyhow::Result<_> {
        output::note(&format!("{} tokens in {arithmetic}", tokens.len()));
        let (_, device) = GlobalArgs { arithmetic: Some(arithmetic), ..global.clone() }.open()?;
        let load = LoadOptions {
            rows: MOST_ROWS,
            cache: CacheSize { slots: 1, context: tokens.len() },
            embedding: args.embedding.into(),
            precision: CachePrecision::Half,
        };
        let source = args.source.open()?;
        let mut steps = Steps::new();
        let mut progress = |done, all| steps.report("loading", done, all);
        let mut model = Llama::from_source(&device, source.config, source.weights, load, &mut progress)?;
        steps.end();
        Ok(logits(&mut model, &tokens)?)
    };
    let single = run(Arithmetic::Single)?;
    let others = Arithmetic::ALL.into_iter().filter(|&one| {
        one != Arithmetic::Single
            && device.capabilities().allow(one)
            && global.arithmetic.is_none_or(|wanted| wanted == one)
    });
    let report = ArithmeticReport {
        model: source.name,
        bits_per_weight: source.bits.map(|(blocks, _)| blocks),
        head_bits_per_weight: source.bits.map(|(_, head)| head),
        data: args.data.clone(),
        tokens: tokens.len(),
        vocabulary,
        single: likeness(&single, vocabulary),
        arithmetics: others
            .map(|one| Ok(difference(one, &run(one)?, &single, vocabulary)?))
            .collect::<anyhow::Result<_>>()?,
        default_arithmetic: device.capabilities().arithmetic().to_string(),
        adapter: adapter.name().to_owned(),
        driver: format!("{} {}", adapter.backend(), adapter.driver()),
        tier: device.tier().to_string(),
        version: env!("CARGO_PKG_VERSION"),
    };
    Ok(output::print(&if global.json { output::json(&report)? } else { report.text() })?)
}

impl ArithmeticReport {
    fn text(&self) -> String {
        use Align::{Left, Right};
        let bits = match (self.bits_per_weight, self.head_bits_per_weight) {
            (Some(blocks), Some(head)) => format!(", {blocks:.4} bits per weight, head {head:.4}"),
            _ => String::new(),
        };
        let text = self.data.as_ref().map_or_else(|| "random".to_owned(), |file| file.display().to_string());
        let mut table = Table::new(&[
            ("against f32", Left),
            ("KL divergence", Right),
            ("of a token at most", Right),
            ("of a logit at most", Right),
            ("top-1", Right),
        ]);
        for one in &self.arithmetics {
            table.row(vec![
                one.arithmetic.clone(),
                format!("{:.2e}", one.kl_divergence),
                format!("{:.2e}", one.kl_divergence_most),
                format!("{:.2e}", one.logit_difference),
                format!("{:.1}%", 100.0 * one.top1_agreement),
            ]);
        }
        format!(
            "adapter  {} ({}), tier {}, {} if nothing is asked for\nmodel    {}{bits}\ntokens   {}, {text}\n\
             f32      entropy {:.2} nats of {:.2} at most, logits deviate by {:.2}\n\n{table}",
            self.adapter,
            self.driver,
            self.tier,
            self.default_arithmetic,
            self.model,
            self.tokens,
            self.single.entropy,
            (self.vocabulary as f64).ln(),
            self.single.logit_deviation,
        )
    }
}
