//! The stages in order, each resumed where an earlier run left it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::allocate::{Allocation, Target, allocate};
use super::block_file::{read_block, write_block};
use super::calibrate::token_rows;
use super::compile::{Output, Recount, Signature, check_free, recount};
use super::fingerprint::{ModelIdentity, file_digest};
use super::job::{Inputs, Job, Opening, Stage, block_name};
use super::measure::measure_block;
use super::measurement::{BlockMeasurement, CalibrationIdentity, Measurement};
use super::quantize::{PackedBlock, chosen_recipes, install, quantize_block, quantize_head};
use super::report::Reporter;
use super::stream::Stream;
use crate::formats::config::LlamaConfig;
use crate::formats::tokenizer::Tokenizer;
use crate::gpu::Device;
use crate::model::{Block, Streamed, blocks};
use crate::{Error, Result};

/// Hidden states are stored when so much time has passed since they last were.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(150);

/// Most rows of a pass.
const PASS_ROWS: usize = 2048;

/// What to convert, into what, and with how much calibration.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// Model directory.
    pub model: PathBuf,
    /// Working directory.
    pub work: PathBuf,
    /// Final directory; none with `output_measurement`.
    pub output: Option<PathBuf>,
    /// Calibration text.
    pub calibration: PathBuf,
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
    /// Rows and tokens to quantize with.
    pub rows: (usize, usize),
    /// Rows and tokens to measure with.
    pub measurement_rows: (usize, usize),
    /// Largest file of the output.
    pub shard_bytes: u64,
    /// Go on with an earlier job.
    pub resume: bool,
}

/// What a conversion left.
#[derive(Clone, Debug)]
pub enum Converted {
    /// A model, with its bits.
    Model(Recount),
    /// A measurement.
    Measurement(PathBuf),
}

impl Conversion {
    fn inputs(&self, identity: &ModelIdentity, digest: &str) -> Inputs {
        let measurement =
            self.measurement.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        Inputs::new()
            .with("--model", self.model.display())
            .with("model fingerprint", &identity.fingerprint)
            .with("--calibration", self.calibration.display())
            .with("calibration digest", digest)
            .with("--column", self.column.as_deref().unwrap_or_default())
            .with("--bits", self.bits)
            .with("--head-bits", self.head_bits)
            .with("--measurement", measurement)
            .with("--rows", self.rows.0)
            .with("--length", self.rows.1)
            .with("--measurement-rows", self.measurement_rows.0)
            .with("--measurement-length", self.measurement_rows.1)
            .with("only measuring", self.output_measurement.is_some())
    }
}

impl Conversion {
    /// Tokens of the longest row that this conversion runs; the model knows `most`.
    fn longest_row(&self, most: usize) -> Result<usize> {
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

/// Converts a model.
///
/// # Errors
/// As the files, the device and the stages report.
pub fn convert(device: &Device, conversion: &Conversion, reporter: &mut dyn Reporter) -> Result<Converted> {
    let identity = ModelIdentity::of(&conversion.model)?;
    let digest = file_digest(&conversion.calibration)?;
    let (job, opening) =
        Job::open(&conversion.work, conversion.inputs(&identity, &digest), conversion.resume)?;
    match &opening {
        Opening::Fresh => {}
        Opening::Resumed => reporter.note(&format!("Resuming the job in {}", conversion.work.display())),
        Opening::Restarted(why) => reporter.note(&format!("Starting the job anew: {why}")),
    }
    if let (Some(output), Stage::Finished) = (&conversion.output, job.stage())
        && output.is_dir()
    {
        reporter.note("The job is finished already");
        return Ok(Converted::Model(recount(output)?));
    }
    if let Some(output) = &conversion.output {
        check_free(output)?;
    }
    let mut run = Run::new(device, conversion, job, identity, digest)?;
    let measurement = run.measurement(reporter)?;
    if let Some(path) = &conversion.output_measurement {
        let path = if path.is_dir() { path.join("measurement.json") } else { path.clone() };
        measurement.save(&path)?;
        run.job.advance(Stage::Finished, 0)?;
        return Ok(Converted::Measurement(path));
    }
    let allocation = run.allocate(&measurement, reporter)?;
    run.quantize(&measurement, &allocation, reporter)?;
    run.compile(reporter).map(Converted::Model)
}

/// Puts what earlier runs made of a block, given by its number, into it.
type Change<'a> = &'a mut dyn FnMut(&Streamed, usize, &mut Block) -> Result<()>;

/// One run of a job.
struct Run<'a> {
    conversion: &'a Conversion,
    job: Job,
    identity: ModelIdentity,
    digest: String,
    tokenizer: Tokenizer,
    model: Streamed,
    saved: Instant,
}

impl<'a> Run<'a> {
    fn new(
        device: &Device,
        conversion: &'a Conversion,
        job: Job,
        identity: ModelIdentity,
        digest: String,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::load(&conversion.model)?;
        let most = LlamaConfig::load(&conversion.model)?.max_position_embeddings;
        let context = conversion.longest_row(most)?;
        let model = Streamed::open(device, &conversion.model, PASS_ROWS, context)?;
        Ok(Self { conversion, job, identity, digest, tokenizer, model, saved: Instant::now() })
    }

    fn stream(&self, rows: (usize, usize)) -> Result<Stream> {
        let Conversion { calibration, column, .. } = self.conversion;
        let tokens = token_rows(
            &self.tokenizer,
            calibration,
            column.as_deref(),
            rows,
            self.model.config().vocab_size,
        )?;
        Stream::embed(&self.model, &tokens)
    }

    /// Stages calibrate and measure, or a measurement from a file.
    fn measurement(&mut self, reporter: &mut dyn Reporter) -> Result<Measurement> {
        if let Some(path) = &self.conversion.measurement {
            return Measurement::load(path, &self.identity);
        }
        let specs = blocks(self.model.config());
        let (rows, length) = self.conversion.measurement_rows;
        let dataset = file_name(&self.conversion.calibration);
        let calibration = CalibrationIdentity { dataset, sha256: self.digest.clone(), rows, length };
        let mut measurement = Measurement::new(self.identity.clone(), calibration);
        if self.conversion.output_measurement.is_none() {
            // Both row counts are checked before hours of work.
            self.stream(self.conversion.rows)?;
        }
        if self.job.stage() == Stage::Calibrate {
            self.job.advance(Stage::Measure, 0)?;
        }
        let done = if self.job.stage() == Stage::Measure { self.job.next_block() } else { specs.len() };
        let mut finished = Vec::new();
        for index in 0..done {
            match BlockMeasurement::load(self.job.path(&block_name("measure", index)))? {
                Some(block) => finished.push(block),
                None => break,
            }
        }
        if finished.len() < specs.len() {
            let mut stream = self.stream(self.conversion.measurement_rows)?;
            self.catch_up(&mut stream, "measure-rows.state", finished.len(), &mut |_, _, _| Ok(()))?;
            for (index, spec) in specs.iter().enumerate().skip(finished.len()) {
                let started = Instant::now();
                let mut block = self.model.block(index)?;
                let (result, after) = measure_block(&self.model, &mut block, &stream, reporter)?;
                stream = after;
                result.save(self.job.claim(&block_name("measure", index))?)?;
                finished.push(result);
                self.job.advance(Stage::Measure, index + 1)?;
                self.snapshot(&stream, "measure-rows.state", index + 1)?;
                reporter.note(&format!(
                    "-- {}: measured in {:.1} s",
                    spec.name,
                    started.elapsed().as_secs_f64()
                ));
                reporter.progress("Measuring", index + 1, specs.len());
            }
            self.job.advance(Stage::Allocate, 0)?;
        }
        finished.into_iter().for_each(|block| measurement.push(block));
        Ok(measurement)
    }

    fn allocate(&mut self, measurement: &Measurement, reporter: &mut dyn Reporter) -> Result<Allocation> {
        let target = Target { bits_per_weight: self.conversion.bits, weights: measurement.weights() };
        let allocation = allocate(&measurement.slots(), target)?;
        let upgrade = match allocation.cheapest_upgrade {
            Some(bits) => format!("the cheapest upgrade takes {bits}"),
            None => "nothing better is left".to_owned(),
        };
        reporter.note(&format!(
            "-- Allocated {:.4} bpw of {}; {} bits unused, {upgrade}; sum of squared errors {:.6}, at most {:.2e} above the \
             least possible",
            allocation.bits_per_weight(),
            self.conversion.bits,
            allocation.unused(),
            allocation.objective,
            allocation.gap()
        ));
        for (block, &choice) in measurement.blocks().iter().zip(&allocation.choice) {
            let error = block.combinations[choice].rfn_error;
            let weights: usize = block.linears.iter().map(|linear| linear.shape.0 * linear.shape.1).sum();
            let bpw = block.combinations[choice].bits as f64 / weights as f64;
            reporter.note(&format!("-- {:<40} {bpw:.4} bpw  expected rfn_error: {error:.6}", block.name));
        }
        if self.job.stage() < Stage::Quantize {
            self.job.advance(Stage::Quantize, 0)?;
        }
        Ok(allocation)
    }

    /// Stage quantize; the head is the block after the last.
    fn quantize(
        &mut self,
        measurement: &Measurement,
        allocation: &Allocation,
        reporter: &mut dyn Reporter,
    ) -> Result<()> {
        let specs = blocks(self.model.config());
        let mut done =
            if self.job.stage() == Stage::Quantize { self.job.next_block() } else { specs.len() + 1 };
        for index in 0..done {
            if self.stored(index)?.is_none() {
                done = index;
                break;
            }
        }
        if done > specs.len() {
            return Ok(());
        }
        let mut stream = self.stream(self.conversion.rows)?;
        let stored: Vec<PathBuf> =
            (0..done).map(|index| self.job.path(&block_name("block", index))).collect();
        self.catch_up(&mut stream, "quantize-rows.state", done, &mut |model, index, block| {
            let packed = read_block(&stored[index])?.ok_or_else(|| {
                Error::file(&stored[index], "has gone; start the job anew with --no-resume")
            })?;
            install(model, block, &packed)
        })?;
        for (index, spec) in specs.iter().enumerate().skip(done) {
            let started = Instant::now();
            let mut block = self.model.block(index)?;
            let recipes = chosen_recipes(&measurement.blocks()[index], allocation.choice[index]);
            let packed = quantize_block(&self.model, &mut block, &mut stream, &recipes, reporter)?;
            self.store(index, &packed)?;
            self.snapshot(&stream, "quantize-rows.state", index + 1)?;
            reporter.note(&format!(
                "-- {}: quantized in {:.1} s",
                spec.name,
                started.elapsed().as_secs_f64()
            ));
            reporter.progress("Quantizing", index + 1, specs.len() + 1);
        }
        let packed = quantize_head(&self.model, &stream, self.conversion.head_bits, reporter)?;
        self.store(specs.len(), &packed)?;
        reporter.progress("Quantizing", specs.len() + 1, specs.len() + 1);
        self.job.advance(Stage::Compile, 0)
    }

    fn compile(&mut self, reporter: &mut dyn Reporter) -> Result<Recount> {
        let Some(directory) = &self.conversion.output else {
            return Err(Error::argument("--output", "is needed: the directory of the finished model"));
        };
        let specs = blocks(self.model.config());
        let mut output = Output::create(directory, self.conversion.shard_bytes)?;
        output.write_model_tensors(self.model.checkpoint())?;
        for (index, spec) in specs.iter().enumerate() {
            output.write_block(self.model.checkpoint(), spec, &self.expect_stored(index)?)?;
            reporter.progress("Writing", index + 1, specs.len());
        }
        output.write_head(&self.expect_stored(specs.len())?)?;
        let signature = Signature {
            bits: self.conversion.bits,
            head_bits: self.conversion.head_bits,
            calibration: self.conversion.rows,
            dataset: file_name(&self.conversion.calibration),
        };
        let recount = output.finish(&self.conversion.model, &signature)?;
        self.job.advance(Stage::Finished, 0)?;
        Ok(recount)
    }

    /// Brings the rows from the last snapshot (or the embedding) to before block `to`; `change` puts what earlier runs
    /// made of a block into it.
    fn catch_up(&self, stream: &mut Stream, snapshot: &str, to: usize, change: Change<'_>) -> Result<()> {
        let fresh = stream.clone();
        let mut from = stream.restore(&self.job, snapshot)?;
        if from > to {
            *stream = fresh;
            from = 0;
        }
        for index in from..to {
            let mut block = self.model.block(index)?;
            change(&self.model, index, &mut block)?;
            stream.advance(&self.model, &block)?;
        }
        Ok(())
    }

    fn snapshot(&mut self, stream: &Stream, name: &str, block: usize) -> Result<()> {
        if self.saved.elapsed() >= SNAPSHOT_INTERVAL {
            stream.save(&mut self.job, name, block)?;
            self.saved = Instant::now();
        }
        Ok(())
    }

    fn stored(&self, index: usize) -> Result<Option<PackedBlock>> {
        read_block(self.job.path(&block_name("block", index)))
    }

    fn expect_stored(&self, index: usize) -> Result<PackedBlock> {
        let path = self.job.path(&block_name("block", index));
        self.stored(index)?
            .ok_or_else(|| Error::file(path, "is missing or damaged; start the job anew with --no-resume"))
    }

    fn store(&mut self, index: usize, packed: &PackedBlock) -> Result<()> {
        write_block(self.job.claim(&block_name("block", index))?, packed)?;
        self.job.advance(Stage::Quantize, index + 1)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
