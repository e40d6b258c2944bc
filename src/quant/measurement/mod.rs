//! What was measured about a model, and its file `measurement.json`: for each linear the error of each recipe and what it
//! does to the model. Measuring is done elsewhere.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::allocate::Candidate;
use super::fingerprint::ModelIdentity;
use super::recipe::Recipe;
use super::state_file::{read_state, write_state};
use crate::error::{Error, Result};
use crate::formats::atomic::write_atomic;

/// The first field of the file.
const FORMAT: &str = "exlay measurement";
/// The kind of a state file with one block.
const BLOCK_KIND: &str = "measured block";
/// Rises with every change of meaning.
const VERSION: u32 = 2;

/// Everything measured about one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    format: String,
    version: u32,
    /// The model it belongs to.
    pub model: ModelIdentity,
    /// What it was measured on.
    pub calibration: CalibrationIdentity,
    blocks: Vec<BlockMeasurement>,
}

/// The calibration text of a measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationIdentity {
    /// The file's name.
    pub dataset: String,
    /// SHA-256 of the file in hex.
    pub sha256: String,
    /// Rows used.
    pub rows: usize,
    /// Tokens per row.
    pub length: usize,
    /// Rows on which the model's output was compared; 0 when it was not.
    pub probed: usize,
}

/// What was measured about one block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockMeasurement {
    /// The block's name in the model.
    pub name: String,
    /// Its linears, in the order in which they run.
    pub linears: Vec<LinearMeasurement>,
}

/// What was measured about one linear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearMeasurement {
    /// The tensor's name without `.weight`.
    pub name: String,
    /// Input and output features.
    pub shape: (usize, usize),
    /// The recipes that were tried.
    pub options: Vec<OptionMeasurement>,
}

/// One recipe of one linear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionMeasurement {
    /// How the linear was stored.
    pub recipe: Recipe,
    /// Its stored bits.
    pub bits: u64,
    /// The linear's own relative error: √(tr ΔᵀHΔ / tr WᵀHW).
    pub rfn_error: f64,
    /// What storing this linear alone in this way does to the model: the KL divergence of its output in nats, measured or
    /// told from other recipes of the linear; without probes the square of `rfn_error`, which only ranks.
    pub damage: f64,
}

impl Measurement {
    /// A measurement without blocks yet.
    pub fn new(model: ModelIdentity, calibration: CalibrationIdentity) -> Self {
        Self { format: FORMAT.into(), version: VERSION, model, calibration, blocks: Vec::new() }
    }

    /// Adds a block, with its errors rounded to twelve decimals: such numbers survive any JSON reader
    /// (15 digits are exact), so a run that reads the file decides exactly as the one that wrote it.
    pub fn push(&mut self, mut block: BlockMeasurement) {
        block.round();
        self.blocks.push(block);
    }

    /// The blocks in the order of the model.
    pub fn blocks(&self) -> &[BlockMeasurement] {
        &self.blocks
    }

    /// The options of each linear, block by block, for [`super::allocate::allocate`]; an index into one is an index into
    /// the linear's options.
    pub fn slots(&self) -> Vec<Vec<Candidate>> {
        let candidate = |o: &OptionMeasurement| Candidate { bits: o.bits, error: o.damage.sqrt() };
        self.linears().map(|linear| linear.options.iter().map(candidate).collect()).collect()
    }

    /// All linears, block by block.
    pub fn linears(&self) -> impl Iterator<Item = &LinearMeasurement> {
        self.blocks.iter().flat_map(|block| &block.linears)
    }

    /// Weights of all measured linears together; padding does not count.
    pub fn weights(&self) -> u64 {
        self.linears().map(|l| l.shape.0 as u64 * l.shape.1 as u64).sum()
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// The system refuses to write.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("only strings, numbers and lists");
        write_atomic(path, text.as_bytes())
    }

    /// Reads a file that must belong to `model`.
    ///
    /// # Errors
    /// A file that is ExLlamaV2's, another version's, another model's, or damaged.
    pub fn load(path: impl AsRef<Path>, model: &ModelIdentity) -> Result<Self> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(Error::io(path))?;
        let refuse = |message: String| Error::file(path, message);
        let value: Value = serde_json::from_str(&text).map_err(|error| {
            refuse(format!("not a measurement of exlay ({error}); measure again without -m"))
        })?;
        check_format(&value).map_err(refuse)?;
        let measurement: Self = serde_json::from_value(value)
            .map_err(|error| refuse(format!("damaged measurement ({error}); measure again without -m")))?;
        if measurement.model.fingerprint != model.fingerprint {
            return Err(refuse(format!(
                "measured for another model, `{}`, before its files changed, or with another --rotation; this one is `{}`; \
                 measure again",
                measurement.model.name, model.name
            )));
        }
        measurement.check().map_err(|message| refuse(format!("{message}; measure again without -m")))?;
        Ok(measurement)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.blocks.is_empty() {
            return Err("the measurement has no blocks".into());
        }
        self.blocks
            .iter()
            .try_for_each(|block| block.check().map_err(|m| format!("block `{}`: {m}", block.name)))
    }
}

/// Whether the file is one of ours, in words if not.
fn check_format(value: &Value) -> std::result::Result<(), String> {
    if value.get("format").and_then(Value::as_str) == Some(FORMAT) {
        return match value.get("version").and_then(Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => Ok(()),
            Some(version) => Err(format!(
                "measurement version {version}, but this exlay reads version {VERSION}; measure again without -m"
            )),
            None => Err("the measurement has no version; measure again without -m".into()),
        };
    }
    if value.get("measurement").is_some() && value.get("last_module_idx").is_some() {
        return Err(
            "this is ExLlamaV2's measurement.json; its errors were measured with another quantizer and \
                    cannot be reused, leave -m out to measure with exlay"
                .into(),
        );
    }
    Err("not a measurement of exlay; leave -m out to measure".into())
}

impl BlockMeasurement {
    /// Writes this block alone as a state file of a job, rounded as by [`Measurement::push`].
    ///
    /// # Errors
    /// The system refuses to write.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut rounded = self.clone();
        rounded.round();
        let text = serde_json::to_vec(&rounded).expect("only strings, numbers and lists");
        write_state(path, BLOCK_KIND, &text)
    }

    /// Reads the state file of a block: none when it is absent, cut short or damaged.
    ///
    /// # Errors
    /// The system refuses to read a file that exists.
    pub fn load(path: impl AsRef<Path>) -> Result<Option<Self>> {
        let content = read_state(path, BLOCK_KIND)?;
        Ok(content
            .and_then(|text| serde_json::from_slice::<Self>(&text).ok())
            .filter(|block| block.check().is_ok()))
    }

    /// Rounds every error to twelve decimals; see [`Measurement::push`].
    fn round(&mut self) {
        for option in self.linears.iter_mut().flat_map(|linear| &mut linear.options) {
            for error in [&mut option.rfn_error, &mut option.damage] {
                *error = format!("{error:.12}").parse().expect("a number in the notation of Rust");
            }
        }
    }

    fn check(&self) -> std::result::Result<(), String> {
        let fine = |error: f64| error.is_finite() && error >= 0.0;
        for linear in &self.linears {
            let (k, n) = linear.shape;
            if linear.options.is_empty() {
                return Err(format!("`{}` has no options", linear.name));
            }
            for option in &linear.options {
                let bits = option.recipe.total_bits(k, n).map_err(|error| error.to_string())?;
                if bits != option.bits || !fine(option.rfn_error) || !fine(option.damage) {
                    return Err(format!("option `{}` of `{}` is damaged", option.recipe, linear.name));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
