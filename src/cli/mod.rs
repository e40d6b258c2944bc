//! The terminal: commands and flags, texts and tables, exit codes. One file per command turns its flags
//! into calls of the library and their results into text or JSON.
//!
//! Data goes to stdout, everything about the run to stderr. No arithmetic of the model is done here.

mod bench;
mod convert;
mod devices;
mod eval;
mod exl2_flags;
pub(crate) mod failure;
mod generate;
mod inspect;
mod output;
mod progress;
mod selftest;
mod tuning;
mod units;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use exlay::gpu::{self, Adapter, Arithmetic, Device, DeviceOptions, Tier};
use exlay::model::Placement;
use serde::Serialize;

/// Quantizes Llama-family models to mixed-precision EXL2 and runs them on any GPU.
#[derive(Debug, Parser)]
#[command(
    name = "exlay",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Convert(convert::ConvertArgs),
    Generate(generate::GenerateArgs),
    Eval(eval::EvalArgs),
    Inspect(inspect::InspectArgs),
    Devices(devices::DevicesArgs),
    Selftest(selftest::SelftestArgs),
    Bench(bench::BenchArgs),
}

/// Flags that each command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Print one JSON object on stdout instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Use this adapter: its number in `exlay devices`, or part of its name.
    #[arg(long, global = true, value_name = "NUMBER|NAME", help_heading = "Device")]
    pub(crate) adapter: Option<String>,
    /// Use no more of the adapter than this tier of features: plain, subgroup or coop.
    #[arg(long, global = true, value_parser = str::parse::<Tier>, help_heading = "Device")]
    pub(crate) tier: Option<Tier>,
    /// Multiply the few rows of generation with packed weights in this arithmetic: f32, fx16 (16-bit fixed point) or f16 (pairs
    /// of halves). If not given, the adapter's capabilities decide.
    #[arg(long, global = true, value_parser = str::parse::<Arithmetic>, help_heading = "Device")]
    pub(crate) arithmetic: Option<Arithmetic>,
    /// Use at most this much device memory: 24GB is 24 · 10⁹ bytes, 24GiB or 24G is 24 · 2³⁰. What does not fit is refused
    /// before it is loaded.
    #[arg(long, global = true, value_name = "SIZE", value_parser = units::parse_size, help_heading = "Device")]
    pub(crate) vram: Option<u64>,
    /// Share products out among workgroups as this tuning profile says, or without any. If not given, the profile in the
    /// user's cache directory is used, and measured where it is missing. Changes no result.
    #[arg(long, global = true, value_name = "FILE|off", value_parser = str::parse::<tuning::Wanted>, help_heading = "Device")]
    pub(crate) tuning: Option<tuning::Wanted>,
    /// Compile shaders with bounds checks: slower, for finding faults.
    #[arg(long, global = true, help_heading = "Device")]
    pub(crate) checked: bool,
}

/// Where this user's programs keep what they can make again.
fn cache_directory() -> Option<PathBuf> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = directory("XDG_CACHE_HOME")
        .or_else(|| directory("LOCALAPPDATA"))
        .or_else(|| directory("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("exlay"))
}

impl GlobalArgs {
    /// Opens the device that these flags choose.
    ///
    /// # Errors
    /// Without an adapter, or one that fits `--adapter`; as the driver reports.
    pub(crate) fn open_device(&self) -> exlay::Result<Device> {
        self.open().map(|(_, device)| device)
    }

    /// The same with its adapter.
    ///
    /// # Errors
    /// As [`GlobalArgs::open_device`].
    pub(crate) fn open(&self) -> exlay::Result<(Adapter, Device)> {
        self.open_with(DeviceOptions::default())
    }

    /// The same with what these flags do not say.
    ///
    /// # Errors
    /// As [`GlobalArgs::open_device`].
    pub(crate) fn open_with(&self, others: DeviceOptions) -> exlay::Result<(Adapter, Device)> {
        let adapter = gpu::select(self.adapter.as_deref())?;
        let options = DeviceOptions {
            tier: self.tier,
            arithmetic: self.arithmetic,
            pipeline_cache: cache_directory(),
            checked: self.checked,
            memory_limit: self.vram,
            ..others
        };
        let device = Device::open(&adapter, options)?;
        tuning::apply(self, &adapter, &device)?;
        Ok((adapter, device))
    }
}

/// Where the rows of the embedding table are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Embedding {
    /// On the device.
    Device,
    /// In host memory, which saves the table's size on the device.
    Host,
}

impl From<Embedding> for Placement {
    fn from(embedding: Embedding) -> Self {
        match embedding {
            Embedding::Device => Self::Device,
            Embedding::Host => Self::Host,
        }
    }
}

/// Runs the command line `args`, the program's name first.
///
/// # Errors
/// Clap's errors, texts of help among them; [`failure::Usage`]; or what the command ran into.
pub(crate) fn run(args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let rewritten = exl2_flags::rewrite(args.collect());
    let cli = Cli::try_parse_from(rewritten.args)?;
    rewritten.notes.iter().for_each(|line| output::note(line));
    match cli.command {
        Command::Convert(args) => convert::run(&args, &cli.global),
        Command::Generate(args) => generate::run(&args, &cli.global),
        Command::Eval(args) => eval::run(&args, &cli.global),
        Command::Inspect(args) => inspect::run(&args, &cli.global),
        Command::Devices(_) => devices::run(&cli.global),
        Command::Selftest(args) => selftest::run(args, &cli.global),
        Command::Bench(args) => bench::run(&args, &cli.global),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// A command's flags, read from a command line without the program's name.
    pub(super) fn parse<A: Args>(line: &str) -> Result<A, clap::Error> {
        let command = A::augment_args(clap::Command::new("command"));
        let matches = command.try_get_matches_from(line.split(' '))?;
        A::from_arg_matches(&matches)
    }

    #[test]
    fn clap_finds_no_fault() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_has_help() {
        let mut flags = 0;
        let cli = Cli::command();
        let commands = cli.get_subcommands().flat_map(|one| one.get_subcommands().chain([one]));
        for command in commands {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for flag in command.get_arguments() {
                let name = format!("{} {}", command.get_name(), flag.get_id());
                let help = flag.get_help().unwrap_or_else(|| panic!("{name} has no help")).to_string();
                assert!(help.len() >= 10, "{name}: {help}");
                flags += 1;
            }
        }
        assert!(flags > 30, "{flags}");
        assert!(Cli::command().get_arguments().all(|flag| flag.get_help().is_some()));
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for line in ["exlay --json --vram 2G inspect dir", "exlay inspect dir --vram 2G --json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!((cli.global.json, cli.global.vram), (true, Some(2 << 30)));
        }
    }
}
