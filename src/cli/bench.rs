//! `exlay bench`: how fast a model or each kernel is on this adapter.

mod arithmetic;
mod kernels;
mod model;
mod source;

use clap::{Args, Subcommand};

use super::GlobalArgs;

/// Measure how fast a model, or each kernel, runs on this adapter.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    Model(model::ModelArgs),
    Kernels(kernels::KernelsArgs),
    Arithmetic(arithmetic::ArithmeticArgs),
}

/// # Errors
/// As the command named reports.
pub(crate) fn run(args: &BenchArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Model(args) => model::run(args, global),
        What::Kernels(args) => kernels::run(args, global),
        What::Arithmetic(args) => arithmetic::run(args, global),
    }
}

/// Three digits or so, all of those before the point.
fn significant(value: f64) -> String {
    let digits = match value {
        value if value < 0.1 => 4,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

/// A share in whole percent.
fn percent(share: f64) -> String {
    format!("{:.0}%", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_about_three_digits() {
        let cases = [(0.012_345, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (3120.4, "3120")];
        for (value, text) in cases {
            assert_eq!(significant(value), text);
        }
        assert_eq!(percent(0.876), "88%");
    }
}
