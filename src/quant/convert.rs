//! The stages in order, each resumed where an earlier run left it.

mod measuring;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::allocate::{Allocation, Target, allocate};
use super::block_file::{read_block, write_block};
use super::compile::{Sealed, compile};
pub use super::conversion::Conversion;
use super::conversion::{OUTPUT_DIGEST, output_record};
use super::fingerprint::ModelIdentity;
use super::job::{Job, Opening, Stage, block_name};
use super::measurement::{Measurement, OptionMeasurement};
use super::output::{Claim, directory_digest};
use super::quantize::{PackedBlock, chosen_recipes, install, quantize_block, quantize_head};
use super::recount::{Recount, recount};
use super::report::Reporter;
use super::room::ConversionPlan;
use super::rotation::Rotation;
use super::source::Source;
use super::stages;
use super::stream::Stream;
use super::subject::Text;
use super::transform::{Identity, Transform};
use super::written::written_rows;
use crate::formats::atomic::write_atomic;
use crate::formats::config::LlamaConfig;
use crate::gpu::Device;
use crate::model::{Block, blocks};
use crate::{Error, Result};

/// Hidden states are stored when so much time has passed since they last were.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(150);

/// ... and so many times as much as that took: a twentieth of the time at most goes into it.
const SNAPSHOT_SHARE: u32 = 20;

/// Most rows of a pass.
const PASS_ROWS: usize = 2048;

/// What a conversion left.
#[derive(Clone, Debug)]
pub enum Converted {
    /// A model, with its bits.
    Model(Recount),
    /// A measurement.
    Measurement(PathBuf),
}

/// Converts a model: rotated where that is asked for, else as it is stored.
///
/// # Errors
/// As [`Rotation::new`] and [`convert_transformed`].
pub fn convert(device: &Device, conversion: &Conversion, reporter: &mut dyn Reporter) -> Result<Converted> {
    let Some(seed) = conversion.rotation else {
        return convert_transformed(device, conversion, &Identity, reporter);
    };
    let rotation = Rotation::new(&conversion.config()?, seed)?;
    reporter.note(&format!(
        "Rotation: on, seed {seed} ({}); LoRA adapters of the original will not fit the result",
        rotation.method()
    ));
    convert_transformed(device, conversion, &rotation, reporter)
}

/// Converts a model whose tensors a transform changes on their way in; the conversion's own rotation is not added to it.
///
/// # Errors
/// As the files, the device, the transform and the stages report.
pub fn convert_transformed(
    device: &Device,
    conversion: &Conversion,
    transform: &dyn Transform,
    reporter: &mut dyn Reporter,
) -> Result<Converted> {
    // Everything that can be refused is, before a job is recorded or an old one's files are deleted.
    let identity = conversion.identity()?.transformed(&transform.id());
    let [_, digest] = conversion.text_digests()?;
    let config = conversion.config()?;
    conversion.check(&config)?;
    let made = conversion.output_is_made()?;
    let text = conversion.text()?;
    let context = conversion.longest_row(config.max_position_embeddings)?;
    let plan = ConversionPlan::new(device, &config, conversion, (pass_rows(device, &config), context))?;
    let passes = (plan.pass_rows, context);
    let mut source = Source::new(device, config.clone(), conversion.tensors()?, passes, transform)?;
    if conversion.method.paired() {
        source.make_room_for_reference()?;
    }
    source.set_rows_room(plan.room.clone());
    let text = text.map(|text| Calibration::read(conversion, &text, config.vocab_size)).transpose()?;
    let measured =
        conversion.measurement.as_deref().map(|path| measured(path, &identity, &config)).transpose()?;
    let inputs = conversion.inputs(device, &identity, plan.pass_rows)?;
    let claim = |output: &PathBuf| Claim::lock(output, &conversion.work, inputs.fingerprint());
    let mut claim = conversion.output.as_ref().map(claim).transpose()?;
    let (mut job, opening) = Job::open(&conversion.work, inputs, conversion.resume)?;
    match &opening {
        Opening::Fresh => {}
        Opening::Resumed => reporter.note(&format!("Resuming the job in {}", conversion.work.display())),
        Opening::Restarted(why) => reporter.note(&format!("Starting the job anew: {why}")),
    }
    if let (Some(output), true) = (&conversion.output, made) {
        reporter.note("The job is finished already");
        job.advance(Stage::Finished, 0)?;
        return Ok(Converted::Model(recount(output)?));
    }
    claim.as_mut().map_or(Ok(()), Claim::take)?;
    reporter.note(&plan.line());
    let text = match text {
        Some(text) => text,
        None => Calibration::written(device, conversion, &mut job, reporter)?,
    };
    let (saved, saving) = (Instant::now(), Duration::ZERO);
    let mut run = Run { conversion, job, identity, digest, source: &source, text, saved, saving };
    let measurement = match measured {
        Some(measurement) => measurement,
        None => run.measurement(reporter)?,
    };
    if let Some(path) = &conversion.output_measurement {
        let path = if path.is_dir() { path.join("measurement.json") } else { path.clone() };
        measurement.save(&path)?;
        run.job.advance(Stage::Finished, 0)?;
        return Ok(Converted::Measurement(path));
    }
    let allocation = run.allocate(&measurement, reporter)?;
    run.quantize(&measurement, &allocation, reporter)?;
    run.compile(claim, reporter).map(Converted::Model)
}

/// Rows of a pass: as many as let the widest activation fit into a binding.
fn pass_rows(device: &Device, config: &LlamaConfig) -> usize {
    let widest = config.intermediate_size.max(config.hidden_size).max(config.query_size());
    let fit = device.max_slab_bytes() / (4 * widest.max(1)) as u64;
    // Passes are padded to a power of two.
    let fit = 1 << fit.max(1).ilog2();
    PASS_ROWS.min(fit)
}

/// Rows of tokens of both passes; empty for a pass that is not run.
struct Calibration {
    measuring: Vec<Vec<u32>>,
    quantizing: Vec<Vec<u32>>,
}

impl Calibration {
    fn read(conversion: &Conversion, text: &Text<'_>, vocabulary: usize) -> Result<Self> {
        let rows = |rows, wanted: bool| match wanted {
            true => text.rows(rows, vocabulary),
            false => Ok(Vec::new()),
        };
        let [measuring, quantizing] = conversion.passes();
        Ok(Self {
            measuring: rows(conversion.measurement_rows, measuring)?,
            quantizing: rows(conversion.rows, quantizing)?,
        })
    }

    /// What the model writes: both passes have the first of the same rows, as far as theirs go.
    fn written(
        device: &Device,
        conversion: &Conversion,
        job: &mut Job,
        reporter: &mut dyn Reporter,
    ) -> Result<Self> {
        let passes: Vec<(usize, usize)> = [conversion.measurement_rows, conversion.rows]
            .into_iter()
            .zip(conversion.passes())
            .map(|(rows, wanted)| if wanted { rows } else { (0, 0) })
            .collect();
        let most = (passes[0].0.max(passes[1].0), passes[0].1.max(passes[1].1));
        let all = match most.0 {
            0 => Vec::new(),
            _ => written_rows(device, conversion, job, most, reporter)?,
        };
        let first = |(rows, length): (usize, usize)| {
            all.iter().take(rows).map(|row| row[..length].to_vec()).collect()
        };
        Ok(Self { measuring: first(passes[0]), quantizing: first(passes[1]) })
    }
}

/// Puts what earlier runs made of a block, given by its number, into it.
type Change<'a> = &'a mut dyn FnMut(&Source<'_>, usize, &mut Block) -> Result<()>;

/// One run of a job.
struct Run<'a> {
    conversion: &'a Conversion,
    job: Job,
    identity: ModelIdentity,
    digest: String,
    source: &'a Source<'a>,
    text: Calibration,
    /// When hidden states were last stored, and how long that took.
    saved: Instant,
    saving: Duration,
}

impl Run<'_> {
    fn allocate(&mut self, measurement: &Measurement, reporter: &mut dyn Reporter) -> Result<Allocation> {
        let target = Target { bits_per_weight: self.conversion.bits, weights: measurement.weights() };
        let allocation = allocate(&measurement.slots(), target)?;
        let upgrade = match allocation.cheapest_upgrade {
            Some(bits) => format!("the cheapest upgrade takes {bits}"),
            None => "nothing better is left".to_owned(),
        };
        reporter.note(&format!(
            "-- Allocated {:.4} bpw of {}; {} bits unused, {upgrade}; sum of damages {:.6}, at most {:.2e} above the \
             least possible",
            allocation.bits_per_weight(),
            self.conversion.bits,
            allocation.unused(),
            allocation.objective,
            allocation.gap()
        ));
        for (linear, &choice) in measurement.linears().zip(&allocation.choice) {
            let OptionMeasurement { recipe, bits, damage, .. } = &linear.options[choice];
            let bpw = *bits as f64 / (linear.shape.0 * linear.shape.1) as f64;
            reporter.note(&format!("-- {:<40} {bpw:.4} bpw  {recipe:<36} damage: {damage:.3e}", linear.name));
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
        let specs = self.source.blocks().to_vec();
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
        let method = self.conversion.method;
        let device = self.source.device();
        let mut stream = {
            let _stage = device.stage(stages::EMBEDDING)?;
            let stream = Stream::embed(self.source, &self.text.quantizing)?;
            if method.paired() { stream.with_reference()? } else { stream }
        };
        reporter.progress("Quantizing", done, specs.len() + 1);
        let stored: Vec<PathBuf> =
            (0..done).map(|index| self.job.path(&block_name("block", index))).collect();
        self.catch_up(&mut stream, "quantize-rows.state", done, &mut |source, index, block| {
            let packed = read_block(&stored[index])?.ok_or_else(|| {
                Error::file(&stored[index], "has gone; start the job anew with --no-resume")
            })?;
            install(source, block, &packed)
        })?;
        let mut choice = allocation.choice.as_slice();
        for (index, (spec, measured)) in specs.iter().zip(measurement.blocks()).enumerate() {
            let (these, rest) = choice.split_at(measured.linears.len());
            choice = rest;
            if index < done {
                continue;
            }
            let started = Instant::now();
            let _stage = device.stage(stages::QUANTIZING.of(spec.layer))?;
            let mut block = self.source.block(index)?;
            let recipes = chosen_recipes(measured, these);
            let packed = quantize_block(self.source, &mut block, &mut stream, &recipes, method, reporter)?;
            self.store(index, &packed)?;
            self.snapshot(&stream, "quantize-rows.state", index + 1)?;
            reporter.note(&format!(
                "-- {}: quantized in {:.1} s",
                spec.name,
                started.elapsed().as_secs_f64()
            ));
            reporter.progress("Quantizing", index + 1, specs.len() + 1);
        }
        let _stage = device.stage(stages::HEAD)?;
        let packed = quantize_head(self.source, &stream, self.conversion.head_bits, method, reporter)?;
        self.store(specs.len(), &packed)?;
        reporter.progress("Quantizing", specs.len() + 1, specs.len() + 1);
        self.job.advance(Stage::Compile, 0)
    }

    fn compile(&mut self, claim: Option<Claim>, reporter: &mut dyn Reporter) -> Result<Recount> {
        let (Some(directory), Some(claim)) = (&self.conversion.output, claim) else {
            return Err(Error::argument("--output", "is needed: the directory of the finished model"));
        };
        let _stage = self.source.device().stage(stages::WRITING)?;
        let record = |digest: &str| output_record(self.job.inputs(), digest);
        let recorded = fs::read_to_string(self.job.path(OUTPUT_DIGEST)).ok();
        // An earlier run may have been killed when only the name was missing.
        let complete =
            directory_digest(&claim.partial()).is_ok_and(|digest| Some(record(&digest)) == recorded);
        let sealed = match complete {
            true => Sealed::of(claim)?,
            false => {
                let stored = |index| self.expect_stored(index);
                compile(self.conversion, self.source, claim, &stored, reporter)?
            }
        };
        let recount = sealed.recount();
        if recount.bits_per_weight > self.conversion.bits {
            let message =
                format!("the files hold {} bits per weight, more than asked for", recount.bits_per_weight);
            return Err(Error::file(directory, message));
        }
        // A run that is killed after the renaming knows by this that the directory is its own.
        let record = record(sealed.digest());
        write_atomic(self.job.claim(OUTPUT_DIGEST)?, record.as_bytes())?;
        sealed.publish()?;
        self.job.advance(Stage::Finished, 0)?;
        Ok(recount)
    }

    /// Brings the rows from the last snapshot (or the embedding) to before block `to`; `change` puts what earlier runs
    /// made of a block into it.
    fn catch_up(&mut self, stream: &mut Stream, snapshot: &str, to: usize, change: Change<'_>) -> Result<()> {
        for index in stream.restore(&self.job, snapshot, to)?..to {
            let mut block = self.source.block(index)?;
            let original = block.clone();
            change(self.source, index, &mut block)?;
            stream.advance(self.source, &block, &original)?;
            self.snapshot(stream, snapshot, index + 1)?;
        }
        Ok(())
    }

    fn snapshot(&mut self, stream: &Stream, name: &str, block: usize) -> Result<()> {
        if self.saved.elapsed() >= SNAPSHOT_INTERVAL.max(SNAPSHOT_SHARE * self.saving) {
            let _stage = self.source.device().stage(stages::SNAPSHOT)?;
            let started = Instant::now();
            stream.save(&mut self.job, name, block)?;
            (self.saving, self.saved) = (started.elapsed(), Instant::now());
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

/// A measurement from a file, which is refused when its blocks, linears or shapes are not the model's.
fn measured(path: &Path, identity: &ModelIdentity, config: &LlamaConfig) -> Result<Measurement> {
    let measurement = Measurement::load(path, identity)?;
    let specs = blocks(config);
    let fits = measurement.blocks().len() == specs.len()
        && measurement.blocks().iter().zip(&specs).all(|(block, spec)| {
            let linears = spec.linears().map(|linear| (&linear.name, (linear.k, linear.n)));
            block.name == spec.name
                && block.linears.iter().map(|linear| (&linear.name, linear.shape)).eq(linears)
        });
    if fits {
        Ok(measurement)
    } else {
        Err(Error::file(path, "its blocks are not those of this model; measure the model anew"))
    }
}
