//! What a model will take on a device, as `exlay inspect --context` prints it.

use exlay::formats::config::LlamaConfig;
use exlay::formats::safetensors::Checkpoint;
use exlay::model::{CachePrecision, CacheSize, LoadOptions, Planner};
use serde::Serialize;

use crate::cli::generate::PROMPT_ROWS;
use crate::cli::output::{Align, Table};
use crate::cli::{Embedding, GlobalArgs, units};

/// Bytes on the device from before the first token to the last.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PlanReport {
    /// Tokens of prompt and text together.
    context: usize,
    /// Tokens of a prompt that are read at a time.
    rows: usize,
    weights: u64,
    cache: u64,
    scratch: u64,
    total: u64,
    /// What `--vram` allows.
    limit: Option<u64>,
    /// The longest context within the limit; the same as null where none fits.
    longest_context: Option<usize>,
    /// What the scratch is made of, largest first.
    parts: Vec<PartReport>,
}

#[derive(Clone, Debug, Serialize)]
struct PartReport {
    name: String,
    bytes: u64,
}

/// Plans one sequence of `context` tokens on the device that the flags choose.
///
/// # Errors
/// As the files and the device report.
pub(super) fn memory(
    config: &LlamaConfig,
    checkpoint: &Checkpoint,
    context: usize,
    embedding: Embedding,
    global: &GlobalArgs,
) -> exlay::Result<PlanReport> {
    config.check_context(context)?;
    let load = LoadOptions {
        rows: PROMPT_ROWS,
        cache: CacheSize { slots: 1, context },
        embedding: embedding.into(),
        precision: CachePrecision::Half,
    };
    let planner = Planner::new(&global.open_device()?, config, checkpoint, load.embedding)?;
    let rows = global.vram.and_then(|limit| planner.rows(&load, limit).ok());
    let plan = planner.plan(&load, rows)?;
    let longest_context = global.vram.map(|limit| planner.longest(&load, limit)).transpose()?.flatten();
    let parts = plan.scratch.iter().map(|(name, bytes)| PartReport { name: name.clone(), bytes: *bytes });
    Ok(PlanReport {
        context,
        rows: plan.rows,
        weights: plan.parts.weights,
        cache: plan.parts.cache,
        scratch: plan.parts.scratch,
        total: plan.total(),
        limit: global.vram,
        longest_context,
        parts: parts.collect(),
    })
}

/// Parts of the scratch that are worth a line.
const PARTS: usize = 6;

impl std::fmt::Display for PlanReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use Align::{Left, Right};
        let mut table = Table::new(&[("on the device", Left), ("bytes", Right), ("", Right)]);
        let mut row = |name: String, bytes: u64| {
            table.row(vec![name, units::count(bytes), units::bytes(bytes)]);
        };
        row("weights".to_owned(), self.weights);
        row(format!("cache of {} tokens", self.context), self.cache);
        row(format!("scratch for {} rows", self.rows), self.scratch);
        for part in self.parts.iter().take(PARTS) {
            row(format!("  {}", part.name), part.bytes);
        }
        row("together".to_owned(), self.total);
        writeln!(f, "{table}")?;
        let Some(limit) = self.limit else { return Ok(()) };
        let verdict = if self.total <= limit { "fits" } else { "does not fit" };
        let longest = match self.longest_context {
            Some(context) => format!("the longest context that fits is {context} tokens"),
            None => "no context fits".to_owned(),
        };
        writeln!(f, "{verdict} into {} bytes; {longest}", units::count(limit))
    }
}
