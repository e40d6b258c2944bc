//! What to convert, and everything about it that can be refused before work begins.

use std::fs;
use std::path::{Path, PathBuf};

use super::allocate::{Candidate, Target, allocate};
use super::fingerprint::{ModelIdentity, file_digest};
use super::job::{Inputs, Job};
use super::method::Method;
use super::options::linear_recipes;
use super::output::{directory_digest, make_free, resolved};
use super::written;
use crate::formats::config::LlamaConfig;
use crate::gpu::Device;
use crate::model::{BlockSpec, SyntheticFloats, blocks, head_spec};
use crate::packing::BLOCK_ROWS;
use crate::{Error, Result};

/// File of a job that holds the digest of the output directory, written before that gets its name; see
/// [`output_record`].
pub(super) const OUTPUT_DIGEST: &str = "output.digest";

/// What to convert, into what, and with how much calibration.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// Model directory.
    pub model: PathBuf,
    /// A model that is made up takes its place, and random tokens that of the calibration text.
    pub synthetic: Option<SyntheticFloats>,
    /// Working directory.
    pub work: PathBuf,
    /// Final directory; none with `output_measurement`.
    pub output: Option<PathBuf>,
    /// Calibration text; none lets the model write it.
    pub calibration: Option<PathBuf>,
    /// Column of the calibration text.
    pub column: Option<String>,
    /// Bits per weight.
    pub bits: f64,
    /// Bits of the head.
    pub head_bits: u32,
    /// A measurement to reuse.
    pub measurement: Option<PathBuf>,
    /// Stop after measuring and write the measurement here.
    pub output_measurement: Option<PathBuf>,
    /// Seed of a rotation; none for none.
    pub rotation: Option<u64>,
    /// Rows and tokens to quantize with.
    pub rows: (usize, usize),
    /// Rows and tokens to measure with.
    pub measurement_rows: (usize, usize),
    /// Largest file of the output.
    pub shard_bytes: u64,
    /// Of the rows to measure with, those on which the model's output is compared; 0 measures each linear by itself.
    pub probe_rows: usize,
    /// How linears are fitted and rounded.
    pub method: Method,
    /// Most bytes of host memory, if there is a limit.
    pub host_memory: Option<u64>,
    /// Go on with an earlier job.
    pub resume: bool,
}

impl Conversion {
    /// All that the result depends on: a job goes on only when nothing of it has changed.
    ///
    /// # Errors
    /// As the files report.
    pub(super) fn inputs(
        &self,
        device: &Device,
        identity: &ModelIdentity,
        pass_rows: usize,
    ) -> Result<Inputs> {
        let [tokenizer, calibration] = self.text_digests()?;
        let (measurement, measured) = match &self.measurement {
            Some(path) => (path.display().to_string(), file_digest(path)?),
            None => Default::default(),
        };
        Ok(Inputs::new()
            .with("--model", self.model.display())
            .with("model fingerprint", &identity.fingerprint)
            .with("tokenizer digest", tokenizer)
            .with("--calibration", self.calibration.as_deref().unwrap_or(Path::new("")).display())
            .with("calibration digest", calibration)
            .with("--column", self.column.as_deref().unwrap_or_default())
            .with("--bits", self.bits)
            .with("--head-bits", self.head_bits)
            .with("--measurement", measurement)
            .with("measurement digest", measured)
            .with("--rotation", if self.rotation.is_some() { "on" } else { "off" })
            .with("--rotation-seed", self.rotation.map(|seed| seed.to_string()).unwrap_or_default())
            .with("--rows", self.rows.0)
            .with("--length", self.rows.1)
            .with("--measurement-rows", self.measurement_rows.0)
            .with("--measurement-length", self.measurement_rows.1)
            .with("--probe-rows", self.probe_rows)
            .with("tokens of a pass, of which --vram leaves so many", pass_rows)
            .with("--asymmetry", self.method.asymmetry)
            .with("--residual", self.method.residual)
            .with("--damping", self.method.damping)
            .with("--scales", self.method.scales)
            .with(
                "--arithmetic",
                format!("{}, asked for f32: {}", device.arithmetic(), device.asked_for_single()),
            )
            .with("--adapter", device.name())
            .with("--tier", device.tier())
            .with("only measuring", self.output_measurement.is_some()))
    }

    /// Refuses what cannot end well, before the job is touched: shapes that EXL2 cannot hold, bits out of reach,
    /// directories in each other's way.
    ///
    /// # Errors
    /// [`Error::Argument`] or [`Error::Tensor`] with what to change.
    pub(super) fn check(&self, config: &LlamaConfig) -> Result<()> {
        for linear in blocks(config).iter().flat_map(|block| block.linears()).chain([&head_spec(config)]) {
            if linear.k % BLOCK_ROWS != 0 {
                let message =
                    format!("has {} input features, EXL2 needs a multiple of {BLOCK_ROWS}", linear.k);
                return Err(Error::tensor(&self.model, format!("{}.weight", linear.name), message));
            }
        }
        self.method.check()?;
        if let Some(path) = &self.output_measurement {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
                let message = format!("{} is not there; make it first", parent.display());
                return Err(Error::argument("--output-measurement", message));
            }
        } else {
            self.check_bits(config)?;
        }
        let (work, model) = (resolved(&self.work), self.directory().map(resolved));
        if model.as_ref() == Some(&work) {
            return Err(Error::argument(
                "--work-dir",
                "is the model's directory; name another for the job's files",
            ));
        }
        if let Some(output) = &self.output {
            let output = resolved(output);
            if work.starts_with(&output) || model.as_ref() == Some(&output) {
                let message = "is the model's directory, or the working directory lies in it; name another";
                return Err(Error::argument("--output", message));
            }
        }
        Ok(())
    }

    /// Refuses bits that the options do not reach; sizes need no measuring.
    fn check_bits(&self, config: &LlamaConfig) -> Result<()> {
        let mut weights = 0;
        let mut slots = Vec::new();
        let recipes = linear_recipes();
        for linear in blocks(config).iter().flat_map(BlockSpec::linears) {
            weights += (linear.k * linear.n) as u64;
            let sizes = recipes.iter().map(|recipe| recipe.total_bits(linear.k, linear.n));
            let sizes = sizes.collect::<Result<Vec<_>>>()?;
            let ends = [sizes.iter().min(), sizes.iter().max()].into_iter().flatten();
            // What lies between matters to the choice, not to the range.
            slots.push(ends.map(|&bits| Candidate { bits, error: 1.0 / bits.max(1) as f64 }).collect());
        }
        allocate(&slots, Target { bits_per_weight: self.bits, weights }).map(|_| ())
    }

    /// True when the output directory is what the job in the working directory has made; an error when it is in the way.
    /// What is left of a job whose `job.json` was lost makes no output its own.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is something else under its name.
    pub(super) fn output_is_made(&self) -> Result<bool> {
        let Some(output) = &self.output else { return Ok(false) };
        if self.resume
            && output.is_dir()
            && let Some(inputs) = Job::recorded(&self.work)?
            && let Ok(recorded) = fs::read_to_string(self.work.join(OUTPUT_DIGEST))
            && directory_digest(output).is_ok_and(|digest| output_record(&inputs, &digest) == recorded)
        {
            return Ok(true);
        }
        make_free(output)?;
        Ok(false)
    }

    /// Name of the calibration file.
    pub(super) fn dataset(&self) -> String {
        if self.synthetic.is_some() {
            return "random tokens".to_owned();
        }
        match &self.calibration {
            Some(file) => file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            None => written::IDENTITY.to_owned(),
        }
    }

    /// Whether it measures, and whether it quantizes.
    pub(super) fn passes(&self) -> [bool; 2] {
        [self.measurement.is_none(), self.output_measurement.is_none()]
    }

    /// Tokens of the longest row that this conversion runs; the model knows `most`.
    pub(super) fn longest_row(&self, most: usize) -> Result<usize> {
        let measuring =
            self.measurement.is_none().then_some(("--measurement-length", self.measurement_rows.1));
        let quantizing = self.output_measurement.is_none().then_some(("--length", self.rows.1));
        let mut longest = 1;
        for (flag, length) in measuring.into_iter().chain(quantizing) {
            if length > most || length == 0 {
                return Err(Error::argument(
                    flag,
                    format!("{length} tokens where the model knows 1 to {most}"),
                ));
            }
            longest = longest.max(length);
        }
        Ok(longest)
    }
}

/// What a job notes of its finished output: its own fingerprint and the directory's digest.
pub(super) fn output_record(inputs: &Inputs, digest: &str) -> String {
    format!("{}\n{digest}", inputs.fingerprint())
}
