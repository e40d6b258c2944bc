//! The results as a table and as JSON, with what they depend on: adapter, driver, tier, sizes and date.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use exlay::gpu::{Adapter, Device};
use serde::Serialize;

use crate::entry::{Entry, Layer};
use crate::timing::Timing;

/// Everything that one run found.
#[derive(Serialize)]
pub(crate) struct Report {
    adapter: String,
    backend: String,
    driver: String,
    tier: String,
    /// Of exlay.
    version: &'static str,
    /// UTC, `year-month-day`.
    date: String,
    /// Which layer the sizes are from.
    sizes: &'static str,
    /// Gigabytes per second that a copy reads and writes.
    copy_gb_per_s: f64,
    kernels: Vec<Record>,
}

/// What came of an operation at a shape.
#[derive(Serialize)]
pub(crate) struct Record {
    /// Stems of its shaders.
    pub(crate) kernels: String,
    /// The shape in words.
    pub(crate) shape: String,
    /// Bytes read and written at least.
    bytes: u64,
    /// Multiplications and additions.
    flops: Option<u64>,
    /// Absent after a failure.
    figures: Option<Figures>,
    /// Why it was not timed.
    pub(crate) failure: Option<String>,
}

#[derive(Serialize)]
struct Figures {
    median_us: f64,
    least_us: f64,
    most_us: f64,
    gb_per_s: f64,
    gflop_per_s: Option<f64>,
    /// Sets of inputs and outputs that a list goes through.
    sets: usize,
    /// Runs of the list in a sample.
    runs: u32,
    samples_us: Vec<f64>,
}

impl Record {
    /// The figures of an entry, or why there are none.
    pub(crate) fn new(entry: &Entry, timing: Result<Timing, String>) -> Self {
        let (timing, failure) = match timing {
            Ok(timing) => (Some(timing), None),
            Err(failure) => (None, Some(failure)),
        };
        let figures = timing.map(|timing| {
            let (median, least, most) = timing.summary();
            Figures {
                median_us: median,
                least_us: least,
                most_us: most,
                gb_per_s: entry.bytes as f64 / median / 1e3,
                gflop_per_s: entry.flops.map(|flops| flops as f64 / median / 1e3),
                sets: timing.sets,
                runs: timing.runs,
                samples_us: timing.samples,
            }
        });
        let (kernels, shape) = (entry.name(), entry.shape.clone());
        Self { kernels, shape, bytes: entry.bytes, flops: entry.flops, figures, failure }
    }
}

impl Report {
    /// `copy` is in gigabytes per second.
    pub(crate) fn new(
        adapter: &Adapter,
        device: &Device,
        layer: Layer,
        copy: f64,
        kernels: Vec<Record>,
    ) -> Self {
        Self {
            adapter: adapter.name().to_owned(),
            backend: adapter.backend(),
            driver: adapter.driver(),
            tier: device.tier().to_string(),
            version: env!("CARGO_PKG_VERSION"),
            date: date(SystemTime::now()),
            sizes: layer.name,
            copy_gb_per_s: copy,
            kernels,
        }
    }

    /// What was not timed.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &Record> {
        self.kernels.iter().filter(|record| record.failure.is_some())
    }
}

const TITLES: [&str; 9] =
    ["kernel", "shape", "median µs", "min µs", "max µs", "GB/s", "of copy", "GFLOP/s", "sets x runs"];

/// Columns of words; the others are of numbers.
const WORDS: usize = 2;

impl Report {
    fn cells(&self, record: &Record) -> [String; 9] {
        let head = [record.kernels.clone(), record.shape.clone()];
        let numbers = match &record.figures {
            Some(figures) => [
                significant(figures.median_us),
                significant(figures.least_us),
                significant(figures.most_us),
                significant(figures.gb_per_s),
                format!("{:.0}%", 100.0 * figures.gb_per_s / self.copy_gb_per_s),
                figures.gflop_per_s.map_or_else(|| "-".to_owned(), significant),
                format!("{} x {}", figures.sets, figures.runs),
            ],
            None => {
                let mut cells = std::array::from_fn(|_| "-".to_owned());
                cells[0] = "not timed".to_owned();
                cells
            }
        };
        let mut cells = head.into_iter().chain(numbers);
        std::array::from_fn(|_| cells.next().unwrap_or_default())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "adapter  {} ({}, {})", self.adapter, self.backend, self.driver)?;
        writeln!(f, "tier     {}", self.tier)?;
        writeln!(f, "date     {}, exlay {}", self.date, self.version)?;
        writeln!(f, "sizes    {}", self.sizes)?;
        writeln!(f, "copy     {} GB/s read and written\n", significant(self.copy_gb_per_s))?;
        let mut rows = vec![TITLES.map(str::to_owned)];
        rows.extend(self.kernels.iter().map(|record| self.cells(record)));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 9] = std::array::from_fn(width);
        for row in &rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                line +=
                    &if column < WORDS { format!("{cell:<width$}  ") } else { format!("{cell:>width$}  ") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Three digits, more before the point.
fn significant(value: f64) -> String {
    let digits = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
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
