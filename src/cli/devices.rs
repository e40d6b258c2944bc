//! `exlay devices`: the adapters that can be chosen.

use clap::Args;
use exlay::gpu::{self, Adapter};
use serde::Serialize;

use super::output::{self, Align, Table};
use super::{GlobalArgs, units};

/// List the adapters that --adapter can choose, best first.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct DevicesArgs {}

pub(crate) fn run(global: &GlobalArgs) -> anyhow::Result<()> {
    let adapters: Vec<AdapterReport> = gpu::adapters().iter().enumerate().map(AdapterReport::from).collect();
    if adapters.is_empty() {
        // Says what to install.
        gpu::select(None)?;
    }
    let report = DevicesReport { adapters };
    output::print(&if global.json { output::json(&report)? } else { report.to_string() })?;
    Ok(())
}

/// All adapters.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DevicesReport {
    /// In the order in which they are preferred.
    pub(crate) adapters: Vec<AdapterReport>,
}

/// One adapter.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AdapterReport {
    /// What `--adapter` takes.
    pub(crate) index: usize,
    pub(crate) name: String,
    /// Name and version of the driver.
    pub(crate) driver: String,
    /// `vulkan`, `metal` or `dx12`.
    pub(crate) backend: String,
    /// `discrete`, `integrated`, `software`…
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The best tier it offers.
    pub(crate) tier: String,
    /// How few rows are multiplied with packed weights, if --arithmetic does not say.
    pub(crate) arithmetic: String,
    /// Largest buffer in bytes.
    pub(crate) max_buffer_bytes: u64,
    /// Largest part of a buffer that a kernel can see, in bytes.
    pub(crate) max_binding_bytes: u64,
}

impl From<(usize, &Adapter)> for AdapterReport {
    fn from((index, adapter): (usize, &Adapter)) -> Self {
        Self {
            index,
            name: adapter.name().to_string(),
            driver: adapter.driver(),
            backend: adapter.backend(),
            kind: adapter.kind().to_string(),
            tier: adapter.capabilities().tier().to_string(),
            arithmetic: adapter.capabilities().arithmetic().to_string(),
            max_buffer_bytes: adapter.max_buffer_bytes(),
            max_binding_bytes: adapter.max_binding_bytes(),
        }
    }
}

impl std::fmt::Display for DevicesReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use Align::{Left, Right};
        let mut table = Table::new(&[
            ("#", Right),
            ("name", Left),
            ("type", Left),
            ("backend", Left),
            ("tier", Left),
            ("arithmetic", Left),
            ("buffer", Right),
            ("binding", Right),
            ("driver", Left),
        ]);
        for adapter in &self.adapters {
            table.row(vec![
                adapter.index.to_string(),
                adapter.name.clone(),
                adapter.kind.clone(),
                adapter.backend.clone(),
                adapter.tier.clone(),
                adapter.arithmetic.clone(),
                units::bytes(adapter.max_buffer_bytes),
                units::bytes(adapter.max_binding_bytes),
                adapter.driver.clone(),
            ]);
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    fn adapter(index: usize, name: &str, kind: &str, tier: &str) -> AdapterReport {
        AdapterReport {
            index,
            name: name.into(),
            driver: "NVIDIA 580.159".into(),
            backend: "vulkan".into(),
            kind: kind.into(),
            tier: tier.into(),
            arithmetic: if kind == "discrete" { "fx16" } else { "f32" }.into(),
            max_buffer_bytes: 1 << 40,
            max_binding_bytes: 128 << 20,
        }
    }

    #[test]
    fn adapters_as_a_table_and_as_json() {
        let mut report = DevicesReport {
            adapters: vec![
                adapter(0, "NVIDIA H100 80GB HBM3", "discrete", "coop"),
                adapter(1, "llvmpipe", "software", "subgroup"),
            ],
        };
        assert_snapshot!(report.to_string(), @r"
        #  name                   type      backend  tier      arithmetic   buffer    binding  driver
        0  NVIDIA H100 80GB HBM3  discrete  vulkan   coop      fx16        1.0 TiB  128.0 MiB  NVIDIA 580.159
        1  llvmpipe               software  vulkan   subgroup  f32         1.0 TiB  128.0 MiB  NVIDIA 580.159
        ");
        report.adapters.truncate(1);
        assert_snapshot!(output::json(&report).unwrap(), @r#"
        {
          "adapters": [
            {
              "index": 0,
              "name": "NVIDIA H100 80GB HBM3",
              "driver": "NVIDIA 580.159",
              "backend": "vulkan",
              "type": "discrete",
              "tier": "coop",
              "arithmetic": "fx16",
              "max_buffer_bytes": 1099511627776,
              "max_binding_bytes": 134217728
            }
          ]
        }
        "#);
    }
}
