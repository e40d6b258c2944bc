//! Every kernel, verified against its oracle and then timed: `cargo bench --bench kernels -- [options]`.
//!
//! A kernel whose cases of the selftest do not pass on this adapter is not timed, and the exit code is 1. Sizes are those
//! of a layer of a Llama of 7 billion parameters; a software adapter gets smaller ones unless `--full` is given. Times
//! are the host's, around many submissions of many dispatches: what a dispatch costs the card is part of them, and of
//! a short kernel's time it is most. This is a plain program rather than one of criterion's, since a table of one
//! adapter with bandwidths, and not a comparison with the last run, is what it is for.
//!
//! Without `--bench` among the arguments (as in `cargo test --all-targets`) nothing happens.

#[path = "kernels/entry.rs"]
mod entry;
#[path = "kernels/forward.rs"]
mod forward;
#[path = "kernels/quantizer.rs"]
mod quantizer;
#[path = "kernels/report.rs"]
mod report;
#[path = "kernels/timing.rs"]
mod timing;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use exlay::gpu::{Device, DeviceOptions, Tier};
use exlay::selftest::{self, Case, Fault, Shapes, Verdict};

use entry::Layer;
use report::{Record, Report};

/// Time every kernel on an adapter, after checking it.
#[derive(Debug, Parser)]
#[command(name = "kernels")]
struct Args {
    /// The adapter: its number or part of its name, as `exlay devices` shows them.
    #[arg(long, value_name = "ADAPTER")]
    adapter: Option<String>,
    /// Use no more than this tier: plain, subgroup or coop.
    #[arg(long)]
    tier: Option<Tier>,
    /// Only kernels whose name contains this.
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Samples of each kernel.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(7..))]
    samples: u16,
    /// The sizes of a 7B layer on a software adapter too; takes minutes.
    #[arg(long)]
    full: bool,
    /// Print JSON with all samples instead of the table.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let given = |name: &str| std::env::args().any(|argument| argument == name);
    if !given("--bench") || given("--test") {
        eprintln!("kernels are timed by `cargo bench --bench kernels` only");
        return ExitCode::SUCCESS;
    }
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the report; false when a kernel failed.
fn run(args: &Args) -> anyhow::Result<bool> {
    let adapter = exlay::gpu::select(args.adapter.as_deref())?;
    let device = Device::open(&adapter, DeviceOptions { tier: args.tier, ..DeviceOptions::default() })?;
    let layer = if device.software() && !args.full { Layer::REDUCED } else { Layer::SEVEN_BILLION };
    let mut entries = forward::entries(&device, layer);
    entries.extend(quantizer::entries(&device, layer));
    if let Some(filter) = &args.filter {
        let all: BTreeSet<_> = entries.iter().flat_map(|entry| entry.kernels.clone()).collect();
        entries.retain(|entry| entry.kernels.iter().any(|kernel| kernel.contains(filter.as_str())));
        if entries.is_empty() {
            let names: Vec<_> = all.into_iter().collect();
            bail!(
                "--filter {filter}: no kernel in use on this adapter is called so; try {}",
                names.join(", ")
            );
        }
    }
    let cases = selftest::cases(Shapes::Small);
    let wanted: BTreeSet<_> = entries.iter().flat_map(|entry| entry.kernels.clone()).collect();
    let verified: BTreeMap<_, _> =
        wanted.into_iter().map(|kernel| (kernel, verify(&device, kernel, &cases))).collect();
    let samples = usize::from(args.samples);
    let copy = timing::copy(&device, layer.rotated, samples).context("copying device memory")?;
    let records: Vec<Record> = entries
        .iter()
        .map(|entry| {
            note(&format!("timing {} {}", entry.name(), entry.shape));
            let passed = entry.kernels.iter().try_for_each(|kernel| verified[kernel].clone());
            let timing = passed.and_then(|()| {
                entry.time(&device, layer.rotated, samples).map_err(|error| error.to_string())
            });
            Record::new(entry, timing)
        })
        .collect();
    let report = Report::new(&adapter, &device, layer, copy, records);
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.to_string() };
    std::io::stdout().lock().write_all(text.as_bytes()).context("stdout")?;
    for record in report.failed() {
        let why = record.failure.as_deref().unwrap_or_default();
        eprintln!("error: {} {} was not timed: {why}", record.kernels, record.shape);
    }
    Ok(report.failed().next().is_none())
}

/// Runs the small cases of a kernel.
///
/// # Errors
/// Why it may not be timed.
fn verify(device: &Device, kernel: &str, cases: &[Box<dyn Case>]) -> Result<(), String> {
    let mut checked = 0;
    for (seed, case) in cases.iter().enumerate().filter(|(_, case)| case.kernel(device) == kernel) {
        note(&format!("checking {kernel} {}", case.shape()));
        let outcome = selftest::outcome(device, &**case, seed as u64, Fault::None);
        let outcome = outcome.map_err(|error| error.to_string())?;
        if outcome.verdict != Verdict::Passed {
            let (shape, error, bound) = (outcome.shape, outcome.worst_error, outcome.bound);
            return Err(format!(
                "{kernel} {shape} {}: error {error:.2e}, bound {bound:.2e}",
                outcome.verdict
            ));
        }
        checked += 1;
    }
    if checked == 0 { Err(format!("{kernel} has no case in the selftest")) } else { Ok(()) }
}

/// One line about the run on stderr; if nobody listens, that is all right.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
