//! Which model `exlay bench` takes: one from a directory, or one that is made up.

use std::path::PathBuf;

use clap::Args;
use exlay::formats::config::LlamaConfig;
use exlay::formats::safetensors::Checkpoint;
use exlay::model::{Shape, Synthetic, WeightSource};

use crate::cli::failure::Usage;

/// The flags that name a model.
#[derive(Clone, Debug, Args)]
pub(super) struct SourceArgs {
    /// Directory of the model, EXL2 or F16.
    #[arg(short = 'm', long, value_name = "DIR", required_unless_present = "synthetic")]
    pub(super) model: Option<PathBuf>,
    /// Make up a model of this shape in memory instead: tiny, tinyllama, 7b, llama3-8b, 13b or 70b.
    #[arg(long, value_name = "SHAPE", conflicts_with = "model", requires = "bits")]
    synthetic: Option<Shape>,
    /// Bits per weight of a model that is made up, 2 to 8.5.
    #[arg(long, value_name = "BITS", requires = "synthetic")]
    bits: Option<f64>,
    /// Layers of a model that is made up, if not as many as the shape has.
    #[arg(long, value_name = "COUNT", requires = "synthetic")]
    layers: Option<usize>,
}

/// A model's sizes, its weights, and what there is to say of it.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) config: LlamaConfig,
    pub(super) weights: Box<dyn WeightSource>,
    /// Stored bits of a weight of the blocks, and of the head; of a model that was made up.
    pub(super) bits: Option<(f64, f64)>,
}

impl SourceArgs {
    /// Opens the files or sets out to make up the weights.
    ///
    /// # Errors
    /// As the files and the shape report; [`Usage`] when neither is named.
    pub(super) fn open(&self) -> anyhow::Result<Source> {
        match (&self.model, self.synthetic, self.bits) {
            (Some(directory), ..) => Ok(Source {
                name: directory.display().to_string(),
                config: LlamaConfig::load(directory)?,
                weights: Box::new(Checkpoint::open(directory)?),
                bits: None,
            }),
            (None, Some(shape), Some(bits)) => {
                let mut model = Synthetic::new(shape, bits, 0)?;
                let mut name = format!("synthetic {shape}");
                if let Some(layers) = self.layers {
                    model = model.cut_to(layers)?;
                    name += &format!(", {layers} layers");
                }
                Ok(Source {
                    name,
                    config: model.config().clone(),
                    bits: Some(model.bits_per_weight()?),
                    weights: Box::new(model),
                })
            }
            _ => Err(Usage("--model DIR, or --synthetic SHAPE and --bits BITS, is needed".to_owned()).into()),
        }
    }
}
