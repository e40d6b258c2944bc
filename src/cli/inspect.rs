//! `exlay inspect`: what a model directory holds, without a device; and on request what it will take on one.

mod plan;
mod stored;

use std::path::PathBuf;

use clap::Args;
use exlay::formats::config::LlamaConfig;
use exlay::formats::safetensors::Checkpoint;
use serde::Serialize;

use super::output::{self, Align, Table};
use super::{Embedding, GlobalArgs, units};
use plan::PlanReport;
use stored::{Amount, Stored, StoredLinear};

/// Show architecture, parameters, size and bits of a model directory.
#[derive(Clone, Debug, Args)]
pub(crate) struct InspectArgs {
    /// Directory of the model, EXL2 or F16.
    #[arg(value_name = "DIR")]
    model: PathBuf,
    /// Plan the memory of the device for a context of so many tokens, without loading the model.
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// Where rows of the embedding table are looked up, for that plan.
    #[arg(long, default_value = "device", requires = "context")]
    embedding: Embedding,
}

pub(crate) fn run(args: &InspectArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let config = LlamaConfig::load(&args.model)?;
    let checkpoint = Checkpoint::open(&args.model)?;
    let mut report = InspectReport::new(&config, &stored::count(&config, &checkpoint)?);
    if let Some(context) = args.context {
        report.memory = Some(plan::memory(&config, &checkpoint, context, args.embedding, global)?);
    }
    output::print(&if global.json { output::json(&report)? } else { report.to_string() })?;
    Ok(())
}

/// What is printed. Bits per weight count all that is stored for a linear but its bias.
#[derive(Clone, Debug, Serialize)]
struct InspectReport {
    architecture: String,
    /// Weights of the model, each once: packed ones as many as they decode to, without padding.
    parameters: u64,
    /// Over the decoder's linears.
    bits_per_weight: f64,
    head_bits_per_weight: f64,
    /// Whether the head is the embedding table.
    tied_head: bool,
    /// Of the model's tensors: the sum of `bytes`.
    total_bytes: u64,
    bytes: BytesByPart,
    /// What it will take on the device, where a context is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<PlanReport>,
    /// Bits per weight by layer, first to last.
    layers: Vec<f64>,
    /// The decoder's, in the order of the forward pass.
    linears: Vec<LinearReport>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct BytesByPart {
    decoder: u64,
    head: u64,
    embedding: u64,
    norms: u64,
    biases: u64,
}

#[derive(Clone, Debug, Serialize)]
struct LinearReport {
    name: String,
    in_features: usize,
    out_features: usize,
    bits_per_weight: f64,
    /// Element type, or shares of the widths and sizes of their groups.
    storage: String,
}

impl From<&StoredLinear> for LinearReport {
    fn from(linear: &StoredLinear) -> Self {
        Self {
            name: linear.name.clone(),
            in_features: linear.in_features,
            out_features: linear.out_features,
            bits_per_weight: linear.amount.bits_per_weight(),
            storage: linear.storage.clone(),
        }
    }
}

impl InspectReport {
    fn new(config: &LlamaConfig, stored: &Stored) -> Self {
        let linears = || stored.layers.iter().flatten();
        let decoder: Amount = linears().map(|linear| linear.amount).sum();
        let biases: Amount = linears().chain(&stored.head).map(|linear| linear.bias).sum();
        let own_head = stored.head.as_ref().map(|head| head.amount);
        let head = own_head.unwrap_or_default();
        let all: Amount = [decoder, head, stored.embedding, stored.norms, biases].into_iter().sum();
        let layer_bits = |layer: &Vec<StoredLinear>| {
            layer.iter().map(|linear| linear.amount).sum::<Amount>().bits_per_weight()
        };
        Self {
            architecture: config.architecture.clone(),
            parameters: all.weights,
            bits_per_weight: decoder.bits_per_weight(),
            head_bits_per_weight: own_head.unwrap_or(stored.embedding).bits_per_weight(),
            tied_head: own_head.is_none(),
            total_bytes: all.bytes,
            bytes: BytesByPart {
                decoder: decoder.bytes,
                head: head.bytes,
                embedding: stored.embedding.bytes,
                norms: stored.norms.bytes,
                biases: biases.bytes,
            },
            memory: None,
            layers: stored.layers.iter().map(layer_bits).collect(),
            linears: linears().map(LinearReport::from).collect(),
        }
    }
}

impl std::fmt::Display for InspectReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use Align::{Left, Right};
        writeln!(f, "architecture  {}", self.architecture)?;
        writeln!(f, "parameters    {}", units::count(self.parameters))?;
        writeln!(f, "size          {}", units::bytes(self.total_bytes))?;
        let BytesByPart { decoder, head, embedding, norms, biases } = self.bytes;
        let parts = [("decoder", decoder), ("head", head), ("embedding", embedding), ("norms", norms)];
        for (part, bytes) in parts.into_iter().chain([("biases", biases)]) {
            writeln!(f, "  {part:<11} {}", units::bytes(bytes))?;
        }
        writeln!(f, "decoder       {:.4} bits per weight", self.bits_per_weight)?;
        let tied = if self.tied_head { " (the embedding table)" } else { "" };
        writeln!(f, "head          {:.4} bits per weight{tied}", self.head_bits_per_weight)?;

        if let Some(memory) = &self.memory {
            write!(f, "\n{memory}")?;
        }
        let mut layers = Table::new(&[("layer", Right), ("bits per weight", Right)]);
        for (layer, bits) in self.layers.iter().enumerate() {
            layers.row(vec![layer.to_string(), format!("{bits:.4}")]);
        }
        let mut linears = Table::new(&[
            ("linear", Left),
            ("in", Right),
            ("out", Right),
            ("bits per weight", Right),
            ("storage", Left),
        ]);
        for linear in &self.linears {
            linears.row(vec![
                linear.name.clone(),
                linear.in_features.to_string(),
                linear.out_features.to_string(),
                format!("{:.4}", linear.bits_per_weight),
                linear.storage.clone(),
            ]);
        }
        write!(f, "\n{layers}\n{linears}")
    }
}
