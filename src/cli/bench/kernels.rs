//! `exlay bench kernels`: each kernel at the shapes of models, verified and timed.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use exlay::bench::{KernelPlan, KernelReport, Layer, Record, time_kernels};
use exlay::model::Shape;

use super::{percent, significant};
use crate::cli::GlobalArgs;
use crate::cli::output::{self, Align, Table};

/// Time every kernel at the shapes of models, after checking it.
///
/// A kernel that fails its check on this adapter is not timed, and the exit code is 1. Times are the device's own where
/// it has a clock. A software adapter gets smaller shapes unless --shapes is given.
#[derive(Clone, Debug, Args)]
pub(crate) struct KernelsArgs {
    /// Shapes of these models: tinyllama, 7b, llama3-8b, 13b, 70b; the last four if not given.
    #[arg(long, value_name = "SHAPE,…", value_delimiter = ',')]
    shapes: Option<Vec<Shape>>,
    /// Only operations of which kernel and shape, as the table has them, contain this; may be given several times. The products
    /// of each width alone have a shape like "1 x [8192, 28672] 2b, fx16".
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Samples of each operation, whose median is told.
    #[arg(long, value_name = "COUNT", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    samples: u16,
    /// Compare with an earlier run: what --json printed then.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

/// Shapes that are timed unless others are asked for.
const SHAPES: [Shape; 4] = [Shape::Llama2_7b, Shape::Llama3_8b, Shape::Llama2_13b, Shape::Llama2_70b];

/// # Errors
/// Without an adapter, when a kernel failed its check, or as the device reports.
pub(super) fn run(args: &KernelsArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let before = args.compare.as_deref().map(read).transpose()?;
    let (adapter, device) = global.open()?;
    let layers = match &args.shapes {
        Some(shapes) => shapes.iter().map(|&shape| Layer::of(shape)).collect(),
        None if device.software() => vec![Layer::reduced()],
        None => SHAPES.map(Layer::of).to_vec(),
    };
    let plan = KernelPlan {
        layers,
        arithmetic: global.arithmetic,
        filters: args.filter.clone(),
        samples: usize::from(args.samples),
        driver: format!("{} {}", adapter.backend(), adapter.driver()),
    };
    let report = time_kernels(&device, &plan, &mut |what| output::note(&format!("timing {what}")))?;
    output::print(&if global.json { output::json(&report)? } else { text(&report, before.as_ref()) })?;
    let failed: Vec<_> = report.failed().collect();
    for record in &failed {
        let why = record.failure.as_deref().unwrap_or_default();
        output::note(&format!("{} {} was not timed: {why}", record.kernels, record.shape));
    }
    if !failed.is_empty() {
        bail!("{} of {} operations were not timed on {}", failed.len(), report.kernels.len(), report.adapter);
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<KernelReport> {
    let text = std::fs::read_to_string(path).map_err(exlay::Error::io(path))?;
    let advice = "is not what `exlay bench kernels --json` prints";
    serde_json::from_str(&text).with_context(|| format!("--compare {}: {advice}", path.display()))
}

fn text(report: &KernelReport, before: Option<&KernelReport>) -> String {
    let (read, copy) = (&report.bandwidth.read_gb_per_s, &report.bandwidth.copy_gb_per_s);
    let mut text = format!(
        "adapter    {} ({}), tier {}, {}\ndate       {}, exlay {}\nclock      {}\n\
         bandwidth  {} GB/s read (± {}), {} GB/s copied\n",
        report.adapter,
        report.driver,
        report.tier,
        report.arithmetic,
        report.date,
        report.version,
        report.clock,
        significant(read.median),
        percent(read.relative()),
        significant(copy.median),
    );
    if let Some(before) = before {
        text += &format!("before     {} ({}), {}\n", before.adapter, before.driver, before.date);
    }
    text + &format!("\n{}", table(report, before))
}

fn table(report: &KernelReport, before: Option<&KernelReport>) -> Table {
    use Align::{Left, Right};
    let mut columns = vec![
        ("kernel", Left),
        ("shape", Left),
        ("models", Left),
        ("median µs", Right),
        ("±", Right),
        ("GB/s", Right),
        ("of read", Right),
        ("TFLOP/s", Right),
    ];
    if before.is_some() {
        columns.extend([("before µs", Right), ("change", Right)]);
    }
    let mut table = Table::new(&columns);
    for record in &report.kernels {
        let mut cells = vec![record.kernels.clone(), record.shape.clone(), record.models.join(",")];
        match &record.figures {
            Some(figures) => cells.extend([
                significant(figures.microseconds.median),
                percent(figures.microseconds.relative()),
                significant(figures.gb_per_s),
                percent(figures.share_of_read),
                figures.tflop_per_s.map_or_else(|| "-".to_owned(), significant),
            ]),
            None => cells.extend(["not timed", "-", "-", "-", "-"].map(str::to_owned)),
        }
        if let Some(before) = before {
            cells.extend(change(record, before.find(record)));
        }
        table.row(cells);
    }
    table
}

/// The median of the run before, and by how much this one's is longer.
fn change(now: &Record, before: Option<&Record>) -> [String; 2] {
    let then = before.and_then(Record::median);
    let change = now.median().zip(then).map(|(now, then)| format!("{:+.1}%", 100.0 * (now / then - 1.0)));
    [then.map(significant), change].map(|cell| cell.unwrap_or_else(|| "-".to_owned()))
}
