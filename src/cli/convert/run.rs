//! The body of `exlay convert`: flags to a conversion, its lines to stderr, its result to stdout.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use exlay::gpu::DeviceOptions;
use exlay::model::SyntheticFloats;
use exlay::quant::convert::{Conversion, Converted, convert};
use exlay::quant::job::{Inputs, Job};
use exlay::quant::method::Method;
use exlay::quant::report::Reporter;

use super::report::ConvertReport;
use super::stages::Stages;
use super::{
    ConvertArgs, DEFAULT_BITS, DEFAULT_HEAD_BITS, DEFAULT_LENGTH, DEFAULT_MEASUREMENT_ROWS,
    DEFAULT_PROBE_ROWS, DEFAULT_ROWS,
};
use crate::cli::failure::Usage;
use crate::cli::progress::Progress;
use crate::cli::{GlobalArgs, output};

/// Seed of models that are made up.
const SEED: u64 = 0;

/// Converts a model.
///
/// # Errors
/// [`Usage`] when flags are missing, else what the conversion ran into.
pub(crate) fn run(args: &ConvertArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    args.check()?;
    let started = Instant::now();
    let place = Throwaway::for_job(args)?;
    let work_dir = args.work_dir.clone().or_else(|| place.as_ref().map(|place| place.0.clone()));
    let conversion = conversion(&ConvertArgs { work_dir, ..args.clone() })?;
    let metered = args.stages || args.synthetic.is_some();
    let (_, device) = global.open_with(DeviceOptions { metered, ..DeviceOptions::default() })?;
    output::note(&format!("Adapter: {} (tier {})", device.name(), device.tier()));
    let mut terminal = Terminal::default();
    let converted = convert(&device, &conversion, &mut terminal)?;
    terminal.close();
    let mut report = ConvertReport {
        seconds: started.elapsed().as_secs_f64(),
        peak_device_bytes: device.memory().peak,
        device_limit: device.memory_limit(),
        peak_host_bytes: peak_host_bytes(),
        host_limit: conversion.host_memory,
        ..ConvertReport::default()
    };
    match converted {
        Converted::Measurement(path) => report.output = Some(path),
        Converted::Model(recount) => {
            let kept = |output: &PathBuf| !place.as_ref().is_some_and(|place| output.starts_with(&place.0));
            report.output = conversion.output.clone().filter(kept);
            report.target_bits_per_weight = Some(conversion.bits);
            report.bits_per_weight = Some(recount.bits_per_weight);
            report.head_bits_per_weight = Some(recount.head_bits_per_weight);
            report.decoder_bytes = Some(recount.decoder_bytes);
            report.head_bytes = Some(recount.head_bytes);
            report.embedding_bytes = Some(recount.embedding_bytes);
            report.norm_bytes = Some(recount.norm_bytes);
            report.bias_bytes = Some(recount.bias_bytes);
            report.total_bytes = Some(recount.total_bytes);
        }
    }
    report.stages = metered.then(|| Stages::of(&device, &conversion)).transpose()?;
    output::print(&if global.json { output::json(&report)? } else { report.to_string() })?;
    Ok(())
}

/// The flags as a conversion; without `--model` they are those of the job in the working directory.
fn conversion(args: &ConvertArgs) -> anyhow::Result<Conversion> {
    let work = args.work_dir.clone().unwrap_or_default();
    let synthetic = args.synthetic.map(|shape| SyntheticFloats::new(shape, args.layers, SEED)).transpose()?;
    let mut conversion = Conversion {
        model: args.model.clone().unwrap_or_default(),
        synthetic,
        work: work.clone(),
        output: args
            .output
            .clone()
            .or_else(|| args.output_measurement.is_none().then(|| work.join("output"))),
        calibration: args.calibration.clone(),
        column: args.column.clone(),
        bits: args.bits,
        head_bits: args.head_bits,
        measurement: args.measurement.clone(),
        output_measurement: args.output_measurement.clone(),
        rotation: args.rotation(),
        rows: (args.rows, args.length),
        measurement_rows: (args.measurement_rows, args.measurement_length),
        probe_rows: args.probe_rows(),
        method: Method {
            asymmetry: args.asymmetry,
            residual: args.residual,
            damping: args.damping,
            scales: args.scales,
        },
        host_memory: args.host_memory,
        shard_bytes: args.shard_bytes(),
        resume: !args.no_resume,
    };
    if conversion.synthetic.is_some() {
        return Ok(conversion);
    }
    let recorded = if args.no_resume { None } else { Job::recorded(&work)? };
    match recorded {
        Some(recorded) if args.model.is_none() => take_recorded(&mut conversion, args, &recorded),
        Some(recorded) if args.calibration.is_none() => {
            conversion.calibration =
                recorded.get("--calibration").filter(|file| !file.is_empty()).map(PathBuf::from);
        }
        _ => {}
    }
    if conversion.model.as_os_str().is_empty() {
        return Err(Usage(
            "--model (-i) is needed: there is no job to resume in the working directory".into(),
        )
        .into());
    }
    Ok(conversion)
}

fn take_recorded(conversion: &mut Conversion, args: &ConvertArgs, recorded: &Inputs) {
    let text = |name: &str| recorded.get(name).filter(|value| !value.is_empty());
    conversion.model = text("--model").unwrap_or_default().into();
    let path = |given: &mut Option<PathBuf>, name: &str| {
        *given = given.take().or_else(|| text(name).map(PathBuf::from));
    };
    path(&mut conversion.calibration, "--calibration");
    path(&mut conversion.measurement, "--measurement");
    conversion.column = conversion.column.take().or_else(|| text("--column").map(str::to_owned));
    // Without a rotation no seed was recorded.
    if args.rotation_seed.is_none() {
        conversion.rotation =
            text("--rotation-seed").and_then(|seed| seed.parse().ok()).or(conversion.rotation);
    }
    let number = |given: &mut usize, default: usize, name: &str| resume(given, default, text(name));
    resume(&mut conversion.bits, DEFAULT_BITS, text("--bits"));
    resume(&mut conversion.head_bits, DEFAULT_HEAD_BITS, text("--head-bits"));
    number(&mut conversion.rows.0, DEFAULT_ROWS, "--rows");
    number(&mut conversion.rows.1, DEFAULT_LENGTH, "--length");
    number(&mut conversion.measurement_rows.0, DEFAULT_MEASUREMENT_ROWS, "--measurement-rows");
    number(&mut conversion.measurement_rows.1, DEFAULT_LENGTH, "--measurement-length");
    number(&mut conversion.probe_rows, DEFAULT_PROBE_ROWS, "--probe-rows");
    let (method, default) = (&mut conversion.method, Method::default());
    resume(&mut method.asymmetry, default.asymmetry, text("--asymmetry"));
    resume(&mut method.residual, default.residual, text("--residual"));
    resume(&mut method.damping, default.damping, text("--damping"));
    resume(&mut method.scales, default.scales, text("--scales"));
}

/// Takes the recorded value where the flag was left at its default; another is kept, and the job refuses it by name.
fn resume<T: PartialEq + std::str::FromStr>(given: &mut T, default: T, recorded: Option<&str>) {
    if *given == default
        && let Some(value) = recorded.and_then(|value| value.parse().ok())
    {
        *given = value;
    }
}

/// The working directory of a model that is made up, where none is given: it goes when the conversion is over.
struct Throwaway(PathBuf);

impl Throwaway {
    fn for_job(args: &ConvertArgs) -> anyhow::Result<Option<Self>> {
        if args.work_dir.is_some() {
            return Ok(None);
        }
        let path = std::env::temp_dir().join(format!("exlay-synthetic-{}", std::process::id()));
        std::fs::create_dir(&path)
            .with_context(|| format!("{} cannot be made; give a --work-dir", path.display()))?;
        output::note(&format!("No --work-dir is given: {} is deleted in the end", path.display()));
        Ok(Some(Self(path)))
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            output::note(&format!("{} is left behind: {error}", self.0.display()));
        }
    }
}

/// Lines and a bar on stderr.
#[derive(Default)]
struct Terminal {
    stage: String,
    progress: Option<Progress>,
    done: usize,
}

impl Terminal {
    fn close(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }
}

impl Reporter for Terminal {
    fn note(&mut self, line: &str) {
        match &self.progress {
            Some(progress) => progress.note(line),
            None => output::note(line),
        }
    }

    fn progress(&mut self, stage: &str, done: usize, all: usize) {
        if self.stage != stage {
            self.close();
            self.stage = stage.to_owned();
            self.done = done;
            // The first report comes after a block, whose time was not taken, and after those of earlier runs.
            self.progress = Some(Progress::start_after(stage, all as u64, done as u64));
        }
        if let Some(progress) = &mut self.progress {
            progress.advance((done - self.done) as u64);
        }
        self.done = done;
    }
}

/// Most host memory of this process at once, where the system tells (Linux).
fn peak_host_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::parse;
    use exlay::quant::scales::ScaleRule;

    /// Flags beside those of a job that was given `column` and the rotation `seed`.
    fn resumed(flags: &str, column: &str, seed: &str) -> Conversion {
        let args: ConvertArgs = parse(format!("convert -o work --output out {flags}").trim_end()).unwrap();
        let mut conversion = super::conversion(&ConvertArgs {
            model: Some("model".into()),
            calibration: Some("text.txt".into()),
            ..args.clone()
        })
        .unwrap();
        let recorded = Inputs::new().with("--model", "m").with("--calibration", "c").with("--column", column);
        let recorded = recorded.with("--rotation-seed", seed);
        take_recorded(&mut conversion, &args, &recorded);
        conversion
    }

    #[test]
    fn a_column_is_asked_for_only_when_given() {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("text.txt");
        std::fs::write(&text, "Once upon a time").unwrap();
        let line = format!("convert -i model -o work --output out -c {}", text.display());
        let conversion = conversion(&parse(&line).unwrap()).unwrap();
        let texts =
            exlay::formats::dataset::texts(&conversion.calibration.unwrap(), conversion.column.as_deref())
                .unwrap();
        assert_eq!(texts.map(Result::unwrap).collect::<Vec<_>>(), ["Once upon a time"]);
    }

    #[test]
    fn a_resumed_job_keeps_its_techniques() {
        let args: ConvertArgs =
            parse("convert -o work --output out -i model -c text.txt --asymmetry 0.75").unwrap();
        let mut conversion = super::conversion(&args).unwrap();
        let recorded = Inputs::new()
            .with("--probe-rows", 2)
            .with("--asymmetry", 0.25)
            .with("--residual", 0)
            .with("--damping", 0.12)
            .with("--scales", "exl2");
        take_recorded(&mut conversion, &args, &recorded);
        let expected = Method { asymmetry: 0.75, residual: 0.0, damping: 0.12, scales: ScaleRule::Exl2 };
        assert_eq!((conversion.method, conversion.probe_rows), (expected, 2), "what was given is kept");
    }

    #[test]
    fn a_resumed_job_keeps_its_column_or_none() {
        assert_eq!(resumed("", "", "").column, None);
        assert_eq!(resumed("", "story", "").column.as_deref(), Some("story"));
    }

    #[test]
    fn a_resumed_job_keeps_its_rotation_unless_told_otherwise() {
        let seed = |flags: &str, seed: &str| resumed(flags, "", seed).rotation;
        assert_eq!((seed("", ""), seed("", "5"), seed("--rotation on", "5")), (None, Some(5), Some(5)));
        // These the job refuses.
        assert_eq!(
            (seed("--rotation on", ""), seed("--rotation on --rotation-seed 0", "5")),
            (Some(0), Some(0))
        );
    }
}
