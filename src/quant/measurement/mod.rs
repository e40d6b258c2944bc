//! What was measured about a model, and its file `measurement.json`: for each block the error of
//! each recipe of each linear and of each combination. Measuring is done elsewhere.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::allocate::Candidate;
use super::fingerprint::ModelIdentity;
use super::recipe::{BlockKind, Recipe};
use super::state_file::{read_state, write_state};
use crate::error::{Error, Result};
use crate::formats::atomic::write_atomic;

/// The first field of the file.
const FORMAT: &str = "exlay measurement";
/// The kind of a state file with one block.
const BLOCK_KIND: &str = "measured block";
/// Rises with every change of meaning.
const VERSION: u32 = 1;

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
}

/// What was measured about one block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockMeasurement {
    /// The block's name in the model.
    pub name: String,
    /// Attention or MLP.
    pub kind: BlockKind,
    /// Its linears, in the order of the kind.
    pub linears: Vec<LinearMeasurement>,
    /// The combinations that were tried.
    pub combinations: Vec<CombinationMeasurement>,
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
}

/// One recipe per linear, used together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CombinationMeasurement {
    /// For each linear the index of its option.
    pub options: Vec<usize>,
    /// Stored bits of the block.
    pub bits: u64,
    /// Relative Frobenius error of the block's output, averaged over the calibration rows.
    pub rfn_error: f64,
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

    /// The options of each block for [`super::allocate::allocate`]; an index into one is an index into
    /// the block's combinations.
    pub fn slots(&self) -> Vec<Vec<Candidate>> {
        let candidate = |c: &CombinationMeasurement| Candidate { bits: c.bits, error: c.rfn_error };
        self.blocks.iter().map(|block| block.combinations.iter().map(candidate).collect()).collect()
    }

    /// Weights of all measured linears together; padding does not count.
    pub fn weights(&self) -> u64 {
        self.blocks.iter().flat_map(|block| &block.linears).map(|l| l.shape.0 as u64 * l.shape.1 as u64).sum()
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
        let options = self.linears.iter_mut().flat_map(|linear| &mut linear.options);
        let errors = options.map(|option| &mut option.rfn_error);
        for error in errors.chain(self.combinations.iter_mut().map(|combination| &mut combination.rfn_error))
        {
            *error = format!("{error:.12}").parse().expect("a number in the notation of Rust");
        }
    }

    fn check(&self) -> std::result::Result<(), String> {
        let fine = |error: f64| error.is_finite() && error >= 0.0;
        for linear in &self.linears {
            let (k, n) = linear.shape;
            for option in &linear.options {
                let bits = option.recipe.total_bits(k, n).map_err(|error| error.to_string())?;
                if bits != option.bits || !fine(option.rfn_error) {
                    return Err(format!("option `{}` of `{}` is damaged", option.recipe, linear.name));
                }
            }
        }
        if self.combinations.is_empty() {
            return Err("no combinations".into());
        }
        for (i, combination) in self.combinations.iter().enumerate() {
            let option =
                |(linear, &index): (&LinearMeasurement, &usize)| Some(linear.options.get(index)?.bits);
            let bits: Option<u64> = self.linears.iter().zip(&combination.options).map(option).sum();
            let complete = combination.options.len() == self.linears.len();
            if !complete || bits != Some(combination.bits) || !fine(combination.rfn_error) {
                return Err(format!("combination {i} is damaged"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
