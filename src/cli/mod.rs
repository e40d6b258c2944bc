//! The terminal: commands and flags, texts and tables, exit codes. One file per command turns its flags
//! into calls of the library and their results into text or JSON.
//!
//! Data goes to stdout, everything about the run to stderr. No arithmetic of the model is done here.

mod exl2_flags;
pub(crate) mod failure;
mod inspect;
mod output;
mod units;

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Quantizes Llama-family models to mixed-precision EXL2 and runs them on any GPU.
#[derive(Debug, Parser)]
#[command(name = "exlay", version, max_term_width = 100, disable_help_subcommand = false)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.")]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(inspect::InspectArgs),
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
    /// Use no more of the adapter than this tier of features.
    #[arg(long, global = true, help_heading = "Device")]
    pub(crate) tier: Option<Tier>,
    /// Use at most this much device memory, for example 8G or 512M.
    #[arg(long, global = true, value_name = "SIZE", value_parser = units::parse_size, help_heading = "Device")]
    pub(crate) vram: Option<u64>,
    /// Compile shaders with bounds checks: slower, for finding faults.
    #[arg(long, global = true, help_heading = "Device")]
    pub(crate) checked: bool,
}

/// Named sets of adapter features, each containing the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Neither 16-bit arithmetic nor subgroups.
    Plain,
    /// 16-bit arithmetic and subgroups.
    Subgroup,
    /// Matrix units.
    Coop,
}

/// Where the rows of the embedding table are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Embedding {
    /// On the device.
    Device,
    /// In host memory, which saves the table's size on the device.
    Host,
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
        Command::Inspect(args) => inspect::run(&args, &cli.global),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// The whole command line, those commands included that are not in [`Command`] yet.
    fn commands() -> clap::Command {
        Cli::command()
    }

    #[test]
    fn clap_finds_no_fault() {
        commands().debug_assert();
    }

    #[test]
    fn every_command_and_flag_has_help() {
        let mut flags = 0;
        for command in commands().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for flag in command.get_arguments() {
                let name = format!("{} {}", command.get_name(), flag.get_id());
                let help = flag.get_help().unwrap_or_else(|| panic!("{name} has no help")).to_string();
                assert!(help.len() >= 10, "{name}: {help}");
                flags += 1;
            }
        }
        assert!(flags > 0);
        assert!(commands().get_arguments().all(|flag| flag.get_help().is_some()));
    }
}
