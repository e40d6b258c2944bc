//! `exlay convert`: flags and result of a conversion.

mod report;
mod run;
mod stages;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use exlay::model::Shape;
use exlay::quant::method::Method;
use exlay::quant::rotation::DEFAULT_SEED;
use exlay::quant::scales::ScaleRule;

use super::failure::Usage;
use super::units;
pub(crate) use run::run;

/// Defaults of ExLlamaV2 0.3.2.
const DEFAULT_BITS: f64 = 4.125;
const DEFAULT_HEAD_BITS: u32 = 6;
const DEFAULT_ROWS: usize = 100;
const DEFAULT_MEASUREMENT_ROWS: usize = 16;
const DEFAULT_LENGTH: usize = 2048;

/// As many as in the experiment that the converter follows; fewer or more were not tried.
const DEFAULT_PROBE_ROWS: usize = 6;

/// Quantize a Hugging Face model directory to EXL2.
///
/// ExLlamaV2's command lines work unchanged: its spellings of these flags are accepted too. As there, -o is
/// the working directory and the result goes to -cf.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConvertArgs {
    /// Directory of the model to convert; not needed to resume a job.
    #[arg(short = 'i', long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Make up a model of this shape instead, a layer at a time, with random tokens for calibration: for times and memory. tiny,
    /// tinyllama, 7b, llama3-8b, 13b or 70b. Each linear is judged by its own error (--probe-rows 0).
    #[arg(long, value_name = "SHAPE", conflicts_with_all = ["model", "calibration", "column", "measurement"])]
    pub(crate) synthetic: Option<Shape>,
    /// Only so many layers of --synthetic; what all would take is told from them.
    #[arg(long, value_name = "COUNT", requires = "synthetic")]
    pub(crate) layers: Option<usize>,
    /// Working directory: state of the job, which is resumed if it is there [also: --out_dir]. Without one --synthetic keeps
    /// nothing.
    #[arg(short = 'o', long, value_name = "DIR", required_unless_present = "synthetic")]
    pub(crate) work_dir: Option<PathBuf>,
    /// Directory for the finished model, complete or absent; `output` in the working directory if not given [also: -cf].
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Calibration text of the kind that the model will meet: a .parquet with one text a row in a column `text` (--column names
    /// another), or a .txt. Without it the model writes text itself, for which all of it must fit on the device.
    #[arg(short = 'c', long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    /// Column of the calibration .parquet that holds the texts, `text` if not given.
    #[arg(long, value_name = "NAME")]
    pub(crate) column: Option<String>,
    /// Average bits per weight of the decoder's linears, all that is stored for them included.
    #[arg(short = 'b', long, value_name = "BITS", default_value_t = DEFAULT_BITS, value_parser = parse_bits)]
    pub(crate) bits: f64,
    /// Bits of the head: 2, 3, 4, 5, 6 or 8 [also: -hb].
    #[arg(long, value_name = "BITS", default_value_t = DEFAULT_HEAD_BITS, value_parser = parse_head_bits)]
    pub(crate) head_bits: u32,
    /// Reuse this measurement of the same model, for another number of bits.
    #[arg(short = 'm', long, value_name = "FILE")]
    pub(crate) measurement: Option<PathBuf>,
    /// Stop after measuring and write the measurement here; a directory gets measurement.json [also: -om].
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    pub(crate) output_measurement: Option<PathBuf>,
    /// Rotate the model's weights before quantizing, which leaves what it computes the same; of use on some models and targets, and
    /// of little on others. LoRA adapters of the original do not fit a rotated model.
    #[arg(long, value_name = "on|off", value_enum, default_value_t = Rotate::Off)]
    pub(crate) rotation: Rotate,
    /// Seed of the rotation, 0 if not given.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) rotation_seed: Option<u64>,
    /// Delete the state of an earlier job in the working directory and start over [also: -nr].
    #[arg(long)]
    pub(crate) no_resume: bool,
    /// Rows of calibration text to quantize with.
    #[arg(short = 'r', long, value_name = "COUNT", default_value_t = DEFAULT_ROWS, value_parser = parse_count)]
    pub(crate) rows: usize,
    /// Tokens in each of these rows.
    #[arg(short = 'l', long, value_name = "TOKENS", default_value_t = DEFAULT_LENGTH, value_parser = parse_count)]
    pub(crate) length: usize,
    /// Rows of calibration text to measure with [also: -mr].
    #[arg(long, value_name = "COUNT", default_value_t = DEFAULT_MEASUREMENT_ROWS, value_parser = parse_count)]
    pub(crate) measurement_rows: usize,
    /// Tokens in each row when measuring [also: -ml].
    #[arg(long, value_name = "TOKENS", default_value_t = DEFAULT_LENGTH, value_parser = parse_count)]
    pub(crate) measurement_length: usize,
    /// Of the rows to measure with, those on which the whole model's output is compared to tell how much each linear matters;
    /// 0 goes by each linear's own error, needs one block on the device at a time and is worse. 6 if not given.
    #[arg(long, value_name = "COUNT")]
    pub(crate) probe_rows: Option<usize>,
    /// Part of the correction of each linear for what quantization has done to its inputs; 0 is off.
    #[arg(long, value_name = "PART", default_value_t = Method::default().asymmetry)]
    pub(crate) asymmetry: f32,
    /// Part of what the residual stream has lost that the linears which add to it restore; 0 is off.
    #[arg(long, value_name = "PART", default_value_t = Method::default().residual)]
    pub(crate) residual: f32,
    /// Damping of the Hessians, as a part of the mean of their diagonal; ExLlamaV2 has 0.12.
    #[arg(long, value_name = "PART", default_value_t = Method::default().damping)]
    pub(crate) damping: f64,
    /// How the scales of groups are found: searched, by what rounding with them costs, or by ExLlamaV2's rule, exl2.
    #[arg(long, value_name = "RULE", default_value_t = Method::default().scales)]
    pub(crate) scales: ScaleRule,
    /// Largest output file in MiB; 0 writes one file [also: -ss].
    #[arg(long, value_name = "MIB", default_value_t = 8192, allow_negative_numbers = true)]
    pub(crate) shard_size: i64,
    /// Use at most this much host memory: 20GB is 20 · 10⁹ bytes. Hidden states beyond it go to a file in the working directory;
    /// of the model's files, which are mapped, what the system keeps in memory is not counted, nor a factor that has to be made on the host.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, help_heading = "Device")]
    pub(crate) host_memory: Option<u64>,
    /// Tell where the time goes, stage by stage, which takes a little longer; --synthetic does.
    #[arg(long)]
    pub(crate) stages: bool,
}

/// Whether to rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rotate {
    /// Rotated.
    On,
    /// As it is stored.
    Off,
}

impl ConvertArgs {
    /// What clap cannot check: combinations that depend on the working directory.
    ///
    /// # Errors
    /// [`Usage`] if there is nothing to convert, a column without a file, or a seed without a rotation.
    pub(crate) fn check(&self) -> Result<(), Usage> {
        if self.synthetic.is_some() {
            return self.check_synthetic();
        }
        let resumes = self.work_dir.as_ref().is_some_and(|work| work.is_dir()) && !self.no_resume;
        if self.model.is_none() && !resumes {
            return Err(Usage("--model (-i) is needed: the directory of the model to convert".into()));
        }
        if self.column.is_some() && self.calibration.is_none() && !resumes {
            return Err(Usage(
                "--column is one of the calibration file; give that too (-c), or leave it out".into(),
            ));
        }
        if self.rotation_seed.is_some() && self.rotation == Rotate::Off {
            return Err(Usage(
                "--rotation-seed does nothing without --rotation on; give both or neither".into(),
            ));
        }
        Ok(())
    }

    fn check_synthetic(&self) -> Result<(), Usage> {
        match (self.probe_rows, self.layers) {
            (Some(rows), Some(_)) if rows > 0 => Err(Usage(
                "--probe-rows runs the whole model, of which --layers says nothing; leave one of them out"
                    .into(),
            )),
            _ => Ok(()),
        }
    }

    /// Rows to probe with; none of a model that is made up, unless they are asked for.
    pub(crate) fn probe_rows(&self) -> usize {
        self.probe_rows.unwrap_or(if self.synthetic.is_some() { 0 } else { DEFAULT_PROBE_ROWS })
    }

    /// The seed of the rotation, where there is one.
    pub(crate) fn rotation(&self) -> Option<u64> {
        (self.rotation == Rotate::On).then(|| self.rotation_seed.unwrap_or(DEFAULT_SEED))
    }

    /// The largest output file in bytes.
    pub(crate) fn shard_bytes(&self) -> u64 {
        match u64::try_from(self.shard_size) {
            Ok(mebibytes) if mebibytes > 0 => mebibytes.saturating_mul(1 << 20),
            _ => u64::MAX,
        }
    }
}

fn parse_bits(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(bits) if bits.is_finite() && bits > 0.0 => Ok(bits),
        _ => Err("write a number of bits such as 3.0; what a model can reach lies between 2 and 8".into()),
    }
}

fn parse_head_bits(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(bits) if [2, 3, 4, 5, 6, 8].contains(&bits) => Ok(bits),
        _ => Err("the head can have 2, 3, 4, 5, 6 or 8 bits".into()),
    }
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("write a whole number from 1 up".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::parse;

    fn convert(line: &str) -> Result<ConvertArgs, clap::Error> {
        parse::<ConvertArgs>(line)
    }

    #[test]
    fn defaults_are_those_of_exllamav2() {
        let args = convert("convert -i in -o work --output out").unwrap();
        assert_eq!((args.bits, args.head_bits), (4.125, 6));
        assert_eq!((args.rows, args.length), (100, 2048));
        assert_eq!((args.measurement_rows, args.measurement_length), (16, 2048));
        assert_eq!(args.shard_bytes(), 8192 << 20);
        assert_eq!(args.column, None);
    }

    #[test]
    fn a_shard_size_of_zero_or_less_has_no_limit() {
        for (size, bytes) in [("0", u64::MAX), ("-1", u64::MAX), ("3", 3 << 20)] {
            let args = convert(&format!("convert -o work --output out --shard-size {size}")).unwrap();
            assert_eq!(args.shard_bytes(), bytes);
        }
    }

    #[test]
    fn values_out_of_range_are_usage_errors_that_name_the_flag() {
        for (flag, value) in
            [("--bits", "0"), ("--bits", "nan"), ("--head-bits", "7"), ("--rows", "0"), ("--length", "x")]
        {
            let error = convert(&format!("convert -o work --output out {flag} {value}")).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::ValueValidation);
            assert!(error.to_string().contains(flag), "{error}");
        }
        assert!(convert("convert -i in --output out").is_err(), "no working directory");
        assert!(convert("convert -i in -o work").is_ok(), "ExLlamaV2 writes to the working directory then");
        assert!(convert("convert -o work --output out --output-measurement m").is_err(), "both");
    }

    #[test]
    fn a_rotation_has_a_seed_and_a_seed_a_rotation() {
        let seed =
            |flags: &str| convert(format!("convert -i in -o work -c text {flags}").trim_end()).unwrap();
        assert_eq!(seed("").rotation(), None);
        assert_eq!(seed("--rotation off").rotation(), None);
        assert_eq!(seed("--rotation on").rotation(), Some(DEFAULT_SEED));
        assert_eq!(seed("--rotation on --rotation-seed 7").rotation(), Some(7));
        let alone = seed("--rotation-seed 7").check().unwrap_err().to_string();
        assert!(alone.contains("--rotation on"), "{alone}");
        assert!(convert("convert -o work --rotation maybe").is_err());
    }

    #[test]
    fn a_new_job_needs_a_model_and_a_column_a_file() {
        let message = |line: &str| convert(line).unwrap().check().unwrap_err().to_string();
        assert!(message("convert -o /nonexistent --output out").contains("--model"));
        assert!(message("convert -i in -o /nonexistent --output out --column story").contains("-c"));
        assert!(convert("convert -i in -o /nonexistent --output out").unwrap().check().is_ok());
        let here = env!("CARGO_MANIFEST_DIR");
        assert!(
            convert(&format!("convert -o {here} --output out")).unwrap().check().is_ok(),
            "a job can be there"
        );
        assert!(message(&format!("convert -o {here} --output out --no-resume")).contains("--model"));
    }
}
