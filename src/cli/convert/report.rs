//! What `exlay convert` says in the end.

use std::path::PathBuf;

use serde::Serialize;

use super::stages::Stages;
use crate::cli::units;

/// What a finished conversion has to say.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ConvertReport {
    /// Where the model, or with `--output-measurement` the measurement, was written; nowhere where it is thrown away.
    pub(crate) output: Option<PathBuf>,
    /// Bits per weight that were asked for; absent when only measuring, as the next ones.
    pub(crate) target_bits_per_weight: Option<f64>,
    /// Recounted from the written files: all stored bits of the decoder's linears over their weights.
    pub(crate) bits_per_weight: Option<f64>,
    /// The same for the head.
    pub(crate) head_bits_per_weight: Option<f64>,
    /// Bytes of the decoder's linears.
    pub(crate) decoder_bytes: Option<u64>,
    /// Bytes of the head.
    pub(crate) head_bytes: Option<u64>,
    /// Bytes of the embedding table.
    pub(crate) embedding_bytes: Option<u64>,
    /// Bytes of all norms.
    pub(crate) norm_bytes: Option<u64>,
    /// Bytes of all biases.
    pub(crate) bias_bytes: Option<u64>,
    /// Bytes of all these together.
    pub(crate) total_bytes: Option<u64>,
    /// Wall-clock time of this run.
    pub(crate) seconds: f64,
    /// Most bytes held in device buffers at once.
    pub(crate) peak_device_bytes: u64,
    /// Bytes that `--vram` allows.
    pub(crate) device_limit: Option<u64>,
    /// Most bytes of host memory in use at once, where the system tells.
    pub(crate) peak_host_bytes: Option<u64>,
    /// Bytes that `--host-memory` allows.
    pub(crate) host_limit: Option<u64>,
    /// Where the time went, if that was asked for.
    pub(crate) stages: Option<Stages>,
}

impl std::fmt::Display for ConvertReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.output {
            Some(output) => writeln!(f, "written      {}", output.display())?,
            None => writeln!(f, "written      and thrown away, no --work-dir or --output being given")?,
        }
        if let (Some(bits), Some(target)) = (self.bits_per_weight, self.target_bits_per_weight) {
            writeln!(f, "bits         {bits:.4} per weight of the decoder, {target} asked for")?;
        }
        if let Some(bits) = self.head_bits_per_weight {
            writeln!(f, "head         {bits:.4} bits per weight")?;
        }
        if let Some(bytes) = self.total_bytes {
            writeln!(f, "size         {}", units::bytes(bytes))?;
        }
        let parts = [
            ("decoder", self.decoder_bytes),
            ("head", self.head_bytes),
            ("embedding", self.embedding_bytes),
            ("norms", self.norm_bytes),
            ("biases", self.bias_bytes),
        ];
        for (name, bytes) in parts {
            if let Some(bytes) = bytes {
                writeln!(f, "  {name:<10} {}", units::bytes(bytes))?;
            }
        }
        writeln!(f, "time         {}", units::seconds(self.seconds))?;
        let of = |limit: Option<u64>| {
            limit.map_or(String::new(), |limit| format!(" of {} allowed", units::bytes(limit)))
        };
        let host = self.peak_host_bytes.map_or("unknown".to_owned(), units::bytes);
        let (device, host) =
            (units::bytes(self.peak_device_bytes) + &of(self.device_limit), host + &of(self.host_limit));
        writeln!(f, "peak memory  device {device}, host {host}")?;
        self.stages.as_ref().map_or(Ok(()), |stages| write!(f, "\n{stages}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    #[test]
    fn the_report_as_text() {
        let mut report = ConvertReport {
            output: Some("out".into()),
            target_bits_per_weight: Some(3.0),
            bits_per_weight: Some(2.99871),
            head_bits_per_weight: Some(6.48),
            decoder_bytes: Some(90_000_000),
            head_bytes: Some(20_000_000),
            embedding_bytes: Some(13_000_000),
            norm_bytes: Some(100_000),
            bias_bytes: Some(0),
            total_bytes: Some(123_100_000),
            seconds: 754.2,
            peak_device_bytes: 1 << 30,
            peak_host_bytes: Some(3 << 29),
            device_limit: None,
            host_limit: Some(1 << 31),
            stages: None,
        };
        assert_snapshot!(report.to_string(), @r"
        written      out
        bits         2.9987 per weight of the decoder, 3 asked for
        head         6.4800 bits per weight
        size         117.4 MiB
          decoder    85.8 MiB
          head       19.1 MiB
          embedding  12.4 MiB
          norms      97.7 KiB
          biases     0 B
        time         12 min 34 s
        peak memory  device 1.0 GiB, host 1.5 GiB of 2.0 GiB allowed
        ");
        report = ConvertReport {
            output: Some("measurement.json".into()),
            seconds: report.seconds,
            peak_device_bytes: report.peak_device_bytes,
            ..ConvertReport::default()
        };
        assert_snapshot!(report.to_string(), @r"
        written      measurement.json
        time         12 min 34 s
        peak memory  device 1.0 GiB, host unknown
        ");
        let json: serde_json::Value =
            serde_json::from_str(&crate::cli::output::json(&report).unwrap()).unwrap();
        assert!(json["peak_host_bytes"].is_null() && json["embedding_bytes"].is_null());
    }
}
