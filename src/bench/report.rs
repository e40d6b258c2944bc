//! What timing kernels found, with what it depends on: adapter, driver, tier, models and date. It is written as JSON and
//! read again to be compared with.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::timing::Timing;
use super::{Bandwidth, Spread};
use crate::gpu::{Clock, Device};

/// Everything that one run found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KernelReport {
    /// Name of the adapter.
    pub adapter: String,
    /// Driver and backend, as the caller names them.
    pub driver: String,
    /// Tier in use.
    pub tier: String,
    /// Of products of few rows, if nothing is asked for; not in reports of earlier versions.
    #[serde(default)]
    pub arithmetic: String,
    /// Of exlay.
    pub version: String,
    /// UTC, `year-month-day`.
    pub date: String,
    /// `device`, or `host`: then a submission and a wait are part of each sample.
    pub clock: String,
    /// What memory can do.
    pub bandwidth: Bandwidth,
    /// In the order in which they ran.
    pub kernels: Vec<Record>,
}

/// What came of an operation at a shape.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Models whose shape it is.
    pub models: Vec<String>,
    /// Stems of its shaders.
    pub kernels: String,
    /// The shape in words.
    pub shape: String,
    /// Bytes read and written at least.
    pub bytes: u64,
    /// Multiplications and additions.
    pub flops: Option<u64>,
    /// Absent after a failure.
    pub figures: Option<Figures>,
    /// Why it was not timed.
    pub failure: Option<String>,
}

/// How fast it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Microseconds of one operation.
    pub microseconds: Spread,
    /// Gigabytes (10⁹ bytes) per second at the median.
    pub gb_per_s: f64,
    /// The same as a share of what memory can be read at.
    pub share_of_read: f64,
    /// 10¹² multiplications and additions per second at the median.
    pub tflop_per_s: Option<f64>,
    /// Sets of inputs that a list goes through.
    pub sets: usize,
    /// Runs of the list in a sample.
    pub runs: u32,
}

impl Record {
    /// The figures of an entry, or why there are none; `read` is in gigabytes per second.
    pub(super) fn new(
        models: &[&str],
        entry: &Entry,
        timing: std::result::Result<Timing, String>,
        read: f64,
    ) -> Self {
        let (timing, failure) = match timing {
            Ok(timing) => (Some(timing), None),
            Err(failure) => (None, Some(failure)),
        };
        let figures = timing.map(|Timing { sets, runs, microseconds }| {
            let gb_per_s = entry.bytes as f64 / microseconds.median / 1e3;
            let tflop_per_s = entry.flops.map(|flops| flops as f64 / microseconds.median / 1e6);
            Figures { gb_per_s, share_of_read: gb_per_s / read, tflop_per_s, sets, runs, microseconds }
        });
        Self {
            models: models.iter().map(|&model| model.to_owned()).collect(),
            kernels: entry.name(),
            shape: entry.shape.clone(),
            bytes: entry.bytes,
            flops: entry.flops,
            figures,
            failure,
        }
    }

    /// Microseconds at the median, where it was timed.
    pub fn median(&self) -> Option<f64> {
        self.figures.as_ref().map(|figures| figures.microseconds.median)
    }
}

impl KernelReport {
    /// A report of `device` on this day.
    pub(super) fn new(
        device: &Device,
        driver: &str,
        clock: Clock,
        bandwidth: Bandwidth,
        kernels: Vec<Record>,
    ) -> Self {
        Self {
            adapter: device.name().to_owned(),
            driver: driver.to_owned(),
            tier: device.tier().to_string(),
            arithmetic: device.arithmetic().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            date: date(SystemTime::now()),
            clock: clock_name(clock).to_owned(),
            bandwidth,
            kernels,
        }
    }

    /// What was not timed.
    pub fn failed(&self) -> impl Iterator<Item = &Record> {
        self.kernels.iter().filter(|record| record.failure.is_some())
    }

    /// The record of the same operation at the same shape.
    pub fn find(&self, other: &Record) -> Option<&Record> {
        self.kernels.iter().find(|record| record.kernels == other.kernels && record.shape == other.shape)
    }
}

/// `device` or `host`.
pub(super) fn clock_name(clock: Clock) -> &'static str {
    match clock {
        Clock::Device => "device",
        Clock::Host { .. } => "host",
    }
}

/// The day in UTC (Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn date(time: SystemTime) -> String {
    let days = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = 400 * era + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (days, expected) in [(0, "1970-01-01"), (19_782, "2024-02-29"), (20_781, "2026-11-24")] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(86_400 * days + 5)), expected);
        }
    }
}
