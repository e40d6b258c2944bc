//! `exlay selftest`: each kernel against its oracle on the user's adapter.

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::output::{Align, Table};

/// Check each kernel against its CPU oracle on this adapter, at real shapes too.
///
/// Exit code 1 if a kernel fails. A case for which the device has too little memory is skipped and says so.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct SelftestArgs {}

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
