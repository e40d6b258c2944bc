//! Stage 5: the stored blocks, the head and the float tensors become a model directory, complete or absent.
//!
//! It is written a step at a time: the embedding and the last norm, then each block, then the head. A run that is killed is
//! taken up after the last step that is on disk.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::conversion::Conversion;
use super::output::{Claim, directory_digest};
use super::quantize::PackedBlock;
use super::recount::{Recount, recount};
use super::report::Reporter;
use super::source::Source;
use super::stages;
use super::transform::Floats;
use crate::formats::atomic::write_atomic;
use crate::formats::exl2::write_packed;
use crate::formats::safetensors::{Dtype, JOURNAL, ShardWriter};
use crate::model::BlockSpec;
use crate::{Error, Result};

/// Writes a model directory aside: all but its name is there then. `stored` gives the packed linears of a block, the
/// head's being those of the block after the last.
///
/// # Errors
/// As the files report; [`Error::Shape`] when a linear is missing.
pub fn compile(
    conversion: &Conversion,
    source: &Source<'_>,
    claim: Claim,
    stored: &dyn Fn(usize) -> Result<PackedBlock>,
    reporter: &mut dyn Reporter,
) -> Result<Sealed> {
    let (mut writer, done) = open(&claim, conversion.shard_bytes)?;
    let specs = source.blocks();
    let steps = specs.len() + 2;
    reporter.progress("Writing", done, steps);
    for step in done..steps {
        match step {
            0 => {
                write_float(&mut writer, &source.embedding()?)?;
                write_float(&mut writer, &source.last_norm()?)?;
            }
            _ => {
                let packed = stored(step - 1)?;
                match specs.get(step - 1) {
                    Some(spec) => write_block(&mut writer, source, spec, &packed)?,
                    None => {
                        packed.iter().try_for_each(|(name, head)| write_packed(&mut writer, name, head))?
                    }
                }
            }
        }
        writer.keep(step + 1)?;
        reporter.progress("Writing", step + 1, steps);
    }
    writer.finish()?;
    conversion.directory().map_or(Ok(()), |directory| copy_small_files(directory, &claim.partial()))?;
    write_config(conversion, source, &claim.partial())?;
    Sealed::of(claim)
}

/// A writer into the partial directory, and the steps that it has behind it.
fn open(claim: &Claim, shard_bytes: u64) -> Result<(ShardWriter, usize)> {
    let partial = claim.partial();
    if partial.is_dir()
        && let Some(resumed) = ShardWriter::resume(&partial, shard_bytes)?
    {
        // The small files are written again, and the source may have other ones now.
        for entry in fs::read_dir(&partial).map_err(Error::io(&partial))? {
            let path = entry.map_err(Error::io(&partial))?.path();
            if !path.extension().is_some_and(|ending| ending == "safetensors" || ending == "partial") {
                fs::remove_file(&path).map_err(Error::io(&path))?;
            }
        }
        return Ok(resumed);
    }
    claim.clear()?;
    fs::create_dir(&partial).map_err(Error::io(&partial))?;
    Ok((ShardWriter::create(&partial, shard_bytes)?, 0))
}

/// The norm and the packed linears of a block.
fn write_block(
    writer: &mut ShardWriter,
    source: &Source<'_>,
    spec: &BlockSpec,
    packed: &PackedBlock,
) -> Result<()> {
    let _stage = source.device().stage(stages::BLOCK_FILES)?;
    write_float(writer, &source.norm(spec)?)?;
    for linear in spec.linears() {
        let matrix =
            packed.get(&linear.name).ok_or_else(|| Error::shape(&linear.name, "was not quantized"))?;
        write_packed(writer, &linear.name, matrix)?;
    }
    Ok(())
}

fn write_float(writer: &mut ShardWriter, tensor: &Floats<'_>) -> Result<()> {
    let view = tensor.view();
    let halves = view.to_f16()?;
    writer.write(view.name, Dtype::F16, view.shape, bytemuck::cast_slice(&halves))
}

/// A complete directory that waits for its name.
pub struct Sealed {
    claim: Claim,
    recount: Recount,
    digest: String,
}

impl Sealed {
    /// A directory that is known to be complete.
    ///
    /// # Errors
    /// As the files report.
    pub fn of(claim: Claim) -> Result<Self> {
        let partial = claim.partial();
        let (recount, digest) = (recount(&partial)?, directory_digest(&partial)?);
        Ok(Self { claim, recount, digest })
    }

    /// What it holds.
    pub fn recount(&self) -> Recount {
        self.recount
    }

    /// See [`directory_digest`].
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Gives it its name. A run that is killed in the midst of this knows the directory by its digest.
    ///
    /// # Errors
    /// As [`Claim::publish`].
    pub fn publish(self) -> Result<()> {
        let journal = self.claim.partial().join(JOURNAL);
        if journal.exists() {
            fs::remove_file(&journal).map_err(Error::io(&journal))?;
        }
        self.claim.publish()
    }
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
fn write_config(conversion: &Conversion, source: &Source<'_>, to: &Path) -> Result<()> {
    let path = to.join("config.json");
    let mut config = conversion.config_json()?;
    let (rows, length) = conversion.rows;
    let mut value = json!({
        "quant_method": "exl2",
        "version": concat!("exlay ", env!("CARGO_PKG_VERSION")),
        "bits": conversion.bits,
        "head_bits": conversion.head_bits,
        "calibration": { "rows": rows, "length": length, "dataset": conversion.dataset() },
    });
    if let Some((key, record)) = source.record() {
        value[key] = record;
    }
    config.insert("quantization_config".to_owned(), value);
    if source.tied() != source.config().tie_word_embeddings {
        config.insert("tie_word_embeddings".to_owned(), source.tied().into());
    }
    let text =
        serde_json::to_string_pretty(&config).map_err(|error| Error::file(&path, error.to_string()))?;
    write_atomic(&path, text.as_bytes())
}
