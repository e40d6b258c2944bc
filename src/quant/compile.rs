//! Stage 5: the stored blocks, the head and the float tensors become a model directory, complete or absent.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::atomic::write_atomic;
use super::output::{Claim, directory_digest};
use super::quantize::PackedBlock;
use super::source::Source;
use super::transform::Floats;
use crate::formats::config::LlamaConfig;
use crate::formats::exl2::{read_packed, write_packed};
use crate::formats::safetensors::{Checkpoint, Dtype, ShardWriter};
use crate::model::{BlockSpec, blocks, head_spec};
use crate::{Error, Result};

/// What the signature in config.json tells of the conversion.
pub struct Signature {
    /// Bits per weight that were asked for.
    pub bits: f64,
    /// Bits of the head.
    pub head_bits: u32,
    /// Calibration rows and their length.
    pub calibration: (usize, usize),
    /// Name of the calibration file.
    pub dataset: String,
    /// What config.json is to say of the head, where a transform has changed it; see
    /// [`super::transform::Transform::tied`].
    pub tied: Option<bool>,
}

/// Bits of a written model, counted from its files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recount {
    /// All stored bits of the decoder's linears, without biases, over their weights.
    pub bits_per_weight: f64,
    /// The same for the head.
    pub head_bits_per_weight: f64,
    /// Bytes of all tensors.
    pub total_bytes: u64,
}

/// Writes a model directory aside and gives it its final name when it is complete.
pub struct Output {
    claim: Claim,
    writer: ShardWriter,
}

impl Output {
    /// Starts a directory. What an earlier, killed run left aside is deleted.
    ///
    /// # Errors
    /// As the system reports.
    pub fn create(claim: Claim, shard_bytes: u64) -> Result<Self> {
        claim.clear()?;
        let partial = claim.partial();
        fs::create_dir(&partial).map_err(Error::io(&partial))?;
        let writer = ShardWriter::create(&partial, shard_bytes)?;
        Ok(Self { claim, writer })
    }

    /// Adds the embedding table and the last norm, as halves.
    ///
    /// # Errors
    /// As the files report.
    pub fn write_model_tensors(&mut self, source: &Source<'_>) -> Result<()> {
        self.write_float(&source.embedding()?)?;
        self.write_float(&source.last_norm()?)
    }

    /// Adds the norm and the packed linears of a block.
    ///
    /// # Errors
    /// As the files report; [`Error::Shape`] when a linear is missing.
    pub fn write_block(&mut self, source: &Source<'_>, spec: &BlockSpec, packed: &PackedBlock) -> Result<()> {
        self.write_float(&source.norm(spec)?)?;
        for linear in spec.linears() {
            let matrix =
                packed.get(&linear.name).ok_or_else(|| Error::shape(&linear.name, "was not quantized"))?;
            write_packed(&mut self.writer, &linear.name, matrix)?;
        }
        Ok(())
    }

    /// Adds the head.
    ///
    /// # Errors
    /// As the system reports.
    pub fn write_head(&mut self, packed: &PackedBlock) -> Result<()> {
        packed.iter().try_for_each(|(name, matrix)| write_packed(&mut self.writer, name, matrix))
    }

    /// Copies the small files of the model, signs config.json and counts the bits: all but the name is there.
    ///
    /// # Errors
    /// As the files report.
    pub fn seal(self, source: &Path, signature: &Signature) -> Result<Sealed> {
        self.writer.finish()?;
        let partial = self.claim.partial();
        copy_small_files(source, &partial)?;
        write_config(source, &partial, signature)?;
        let (recount, digest) = (recount(&partial)?, directory_digest(&partial)?);
        Ok(Sealed { claim: self.claim, recount, digest })
    }

    fn write_float(&mut self, tensor: &Floats<'_>) -> Result<()> {
        let view = tensor.view();
        let halves = view.to_f16()?;
        self.writer.write(view.name, Dtype::F16, view.shape, bytemuck::cast_slice(&halves))
    }
}

/// A complete directory that waits for its name.
pub struct Sealed {
    claim: Claim,
    recount: Recount,
    digest: String,
}

impl Sealed {
    /// Its bits.
    pub fn recount(&self) -> Recount {
        self.recount
    }

    /// See [`directory_digest`].
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// As [`Claim::publish`].
    pub fn publish(self) -> Result<()> {
        self.claim.publish()
    }
}

/// Bits of a model directory, counted from its files.
///
/// # Errors
/// As the files report.
pub fn recount(directory: &Path) -> Result<Recount> {
    let config = LlamaConfig::load(directory)?;
    let checkpoint = Checkpoint::open(directory)?;
    let (mut bits, mut weights) = (0, 0);
    for spec in blocks(&config) {
        for linear in spec.linears() {
            bits += read_packed(&checkpoint, &linear.name, linear.k, linear.n)?.stored_bits();
            weights += (linear.k * linear.n) as u64;
        }
    }
    let head = head_spec(&config);
    let head_bits = read_packed(&checkpoint, &head.name, head.k, head.n)?.stored_bits();
    let mut total_bytes = 0;
    for name in checkpoint.names() {
        total_bytes += checkpoint.get(name)?.bytes.len() as u64;
    }
    Ok(Recount {
        bits_per_weight: bits as f64 / weights.max(1) as f64,
        head_bits_per_weight: head_bits as f64 / (head.k * head.n) as f64,
        total_bytes,
    })
}

/// Copies regular files that are neither weights nor an index of weights.
fn copy_small_files(source: &Path, to: &Path) -> Result<()> {
    const WEIGHTS: [&str; 6] = [".safetensors", ".bin", ".pth", ".pt", ".gguf", ".index.json"];
    for entry in fs::read_dir(source).map_err(Error::io(source))? {
        let path = entry.map_err(Error::io(source))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let wanted = path.is_file() && name != "config.json" && !name.ends_with(".parquet");
        if wanted && !WEIGHTS.iter().any(|end| name.ends_with(end)) {
            let target = to.join(&name);
            write_atomic(&target, &fs::read(&path).map_err(Error::io(&path))?)?;
        }
    }
    Ok(())
}

/// Writes the source's config.json with the signature that ExLlamaV2 0.0.16 and later give theirs.
fn write_config(source: &Path, to: &Path, signature: &Signature) -> Result<()> {
    let path = source.join("config.json");
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    let mut config: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| Error::file(&path, format!("is not a JSON object: {error}")))?;
    let (rows, length) = signature.calibration;
    let value = json!({
        "quant_method": "exl2",
        "version": concat!("exlay ", env!("CARGO_PKG_VERSION")),
        "bits": signature.bits,
        "head_bits": signature.head_bits,
        "calibration": { "rows": rows, "length": length, "dataset": signature.dataset },
    });
    config.insert("quantization_config".to_owned(), value);
    if let Some(tied) = signature.tied {
        config.insert("tie_word_embeddings".to_owned(), tied.into());
    }
    let text =
        serde_json::to_string_pretty(&config).map_err(|error| Error::file(&path, error.to_string()))?;
    write_atomic(to.join("config.json"), text.as_bytes())
}
