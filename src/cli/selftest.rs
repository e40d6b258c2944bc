//! `exlay selftest`: each kernel against its oracle on the user's adapter.

use anyhow::bail;
use clap::Args;
use exlay::gpu::{Device, DeviceOptions, Tier};
use exlay::selftest::{self, Outcome, Shapes, Verdict};
use serde::Serialize;

use super::GlobalArgs;
use super::output::{self, Align, Table};
use super::progress::Progress;

/// Check each kernel against its CPU oracle on this adapter, at real shapes too.
///
/// All tiers that the adapter has are checked, or only that of --tier. Exit code 1 if a kernel fails. A case for which
/// the device has too little memory is skipped and says so.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct SelftestArgs {
    /// Leave out the shapes of large models, which take minutes without a graphics card.
    #[arg(long)]
    pub(crate) quick: bool,
}

/// # Errors
/// Without an adapter, when a kernel failed, or as the driver reports.
pub(crate) fn run(args: SelftestArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let adapter = exlay::gpu::select(global.adapter.as_deref())?;
    let best = adapter.capabilities().tier();
    let tiers = match global.tier {
        Some(tier) => vec![tier],
        None => Tier::ALL.into_iter().filter(|&tier| tier <= best).collect(),
    };
    let shapes: &[Shapes] = if args.quick { &[Shapes::Small] } else { &[Shapes::Small, Shapes::Real] };
    let mut kernels = Vec::new();
    for &tier in &tiers {
        let options = DeviceOptions {
            tier: Some(tier),
            checked: global.checked,
            memory_limit: global.vram,
            ..DeviceOptions::default()
        };
        let device = Device::open(&adapter, options)?;
        for &shapes in shapes {
            let count = selftest::cases(shapes).len() as u64;
            let mut progress = Progress::start(&format!("checking {tier}"), count);
            let outcomes = selftest::run(&device, shapes, &mut |_| progress.advance(1))?;
            kernels.extend(outcomes.iter().map(KernelReport::from));
        }
    }
    let report = SelftestReport { kernels, adapter: adapter.name().to_string() };
    output::print(&if global.json { output::json(&report)? } else { report.to_string() })?;
    report.verdict()
}

/// All checks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SelftestReport {
    /// In the order in which they ran.
    pub(crate) kernels: Vec<KernelReport>,
    /// Name of the adapter.
    pub(crate) adapter: String,
}

/// One kernel in one tier at one shape.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KernelReport {
    pub(crate) kernel: String,
    pub(crate) tier: String,
    pub(crate) shape: String,
    /// Largest error found; absent if skipped.
    pub(crate) worst_error: Option<f64>,
    /// Largest error allowed: rounding steps times magnitude; absent if skipped.
    pub(crate) bound: Option<f64>,
    /// `passed`, `failed`, or `skipped: needs N bytes`.
    pub(crate) verdict: String,
}

impl From<&Outcome> for KernelReport {
    fn from(outcome: &Outcome) -> Self {
        let skipped = matches!(outcome.verdict, Verdict::Skipped { .. });
        // JSON has no infinity: a value that is not a number, or is missing, exceeds every bound by far.
        let error = outcome.worst_error.min(f64::MAX);
        Self {
            kernel: outcome.kernel.clone(),
            tier: outcome.tier.clone(),
            shape: outcome.shape.clone(),
            worst_error: (!skipped).then_some(error),
            bound: (!skipped).then_some(outcome.bound),
            verdict: outcome.verdict.to_string(),
        }
    }
}

/// The verdict of a case within its bound.
pub(crate) const PASSED: &str = "passed";
/// The verdict of a case beyond its bound.
pub(crate) const FAILED: &str = "failed";

impl SelftestReport {
    /// # Errors
    /// If a kernel failed, or none passed: then nothing is known.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        let count = |verdict: &str| self.kernels.iter().filter(|kernel| kernel.verdict == verdict).count();
        let (passed, failed) = (count(PASSED), count(FAILED));
        if failed > 0 {
            bail!(
                "{failed} of {} checks failed on {}; please report this table",
                self.kernels.len(),
                self.adapter
            );
        }
        if passed == 0 {
            bail!("no check could run on {}", self.adapter);
        }
        Ok(())
    }
}

impl std::fmt::Display for SelftestReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use Align::{Left, Right};
        let mut table = Table::new(&[
            ("kernel", Left),
            ("tier", Left),
            ("shape", Left),
            ("worst error", Right),
            ("bound", Right),
            ("verdict", Left),
        ]);
        let number = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.2e}"));
        for kernel in &self.kernels {
            table.row(vec![
                kernel.kernel.clone(),
                kernel.tier.clone(),
                kernel.shape.clone(),
                number(kernel.worst_error),
                number(kernel.bound),
                kernel.verdict.clone(),
            ]);
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output;
    use insta::assert_snapshot;

    fn kernel(name: &str, error: Option<f64>, verdict: &str) -> KernelReport {
        KernelReport {
            kernel: name.into(),
            tier: "plain".into(),
            shape: "28672×8192".into(),
            worst_error: error,
            bound: error.map(|_| 2.5e-5),
            verdict: verdict.into(),
        }
    }

    fn report(kernels: Vec<KernelReport>) -> SelftestReport {
        SelftestReport { kernels, adapter: "llvmpipe".into() }
    }

    #[test]
    fn the_table_and_the_verdict() {
        let skipped = kernel("matmul", None, "skipped: needs 4831838208 bytes");
        let good = kernel("rms_norm", Some(0.0), PASSED);
        let bad = kernel("quant_gemv", Some(0.125), FAILED);
        let all = report(vec![good.clone(), bad, skipped.clone()]);
        assert_snapshot!(all.to_string(), @r"
        kernel      tier   shape       worst error    bound  verdict
        rms_norm    plain  28672×8192       0.00e0  2.50e-5  passed
        quant_gemv  plain  28672×8192      1.25e-1  2.50e-5  failed
        matmul      plain  28672×8192            -        -  skipped: needs 4831838208 bytes
        ");
        assert_snapshot!(all.verdict().unwrap_err().to_string(), @"1 of 3 checks failed on llvmpipe; please report this table");
        assert!(report(vec![good.clone(), skipped.clone()]).verdict().is_ok());
        assert!(report(vec![skipped.clone()]).verdict().is_err(), "skipped is not passed");
        assert_snapshot!(output::json(&report(vec![good, skipped])).unwrap(), @r#"
        {
          "kernels": [
            {
              "kernel": "rms_norm",
              "tier": "plain",
              "shape": "28672×8192",
              "worst_error": 0.0,
              "bound": 0.000025,
              "verdict": "passed"
            },
            {
              "kernel": "matmul",
              "tier": "plain",
              "shape": "28672×8192",
              "worst_error": null,
              "bound": null,
              "verdict": "skipped: needs 4831838208 bytes"
            }
          ],
          "adapter": "llvmpipe"
        }
        "#);
    }
}
