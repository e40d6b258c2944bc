//! Hidden states of the calibration rows, on the host, on their way through the blocks.

use crate::gpu::CommandList;
use crate::model::{Block, GroupSpec, RunnerTap};
use crate::ops::Tensor;
use crate::{Error, Result};

use super::hessian::HessianAccumulator;
use super::job::Job;
use super::snapshot::{Snapshot, SnapshotShape, SnapshotWriter};
use super::source::Source;

/// Rows of hidden states [length, hidden].
#[derive(Clone)]
pub struct Stream {
    rows: Vec<Vec<f32>>,
}

impl Stream {
    /// Embeds rows of tokens.
    ///
    /// # Errors
    /// As [`Source::embed`].
    pub fn embed(source: &Source<'_>, tokens: &[Vec<u32>]) -> Result<Self> {
        Ok(Self { rows: tokens.iter().map(|row| source.embed(row)).collect::<Result<_>>()? })
    }

    /// The rows.
    pub fn rows(&self) -> &[Vec<f32>] {
        &self.rows
    }

    /// Replaces the rows by what `block` makes of them.
    ///
    /// # Errors
    /// As [`crate::model::Runner::run`]; [`Error::Numerical`] when a value is not finite.
    pub fn advance(&mut self, source: &Source<'_>, block: &Block) -> Result<()> {
        let mut tap = untapped;
        let mut runner = source.runner(block, &mut tap);
        for row in &mut self.rows {
            runner.run(row)?;
            check_finite(row, &block.spec().name)?;
        }
        Ok(())
    }

    /// Runs all rows through a block and sums XᵀX of the inputs of some groups; `sink` gets what the block makes of each
    /// row, by its number.
    ///
    /// # Errors
    /// As [`Stream::advance`].
    pub fn accumulate(
        &self,
        source: &Source<'_>,
        block: &Block,
        groups: std::ops::Range<usize>,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<Vec<HessianAccumulator>> {
        let hessians = groups
            .clone()
            .map(|group| {
                let spec = &block.spec().groups[group];
                HessianAccumulator::new(source.device(), group_name(spec), group_inputs(spec))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut tap = |list: &mut CommandList, group: usize, input: &Tensor, rows: usize| {
            if groups.contains(&group) {
                hessians[group - groups.start].add(list, input, input, rows, None)?;
            }
            Ok(())
        };
        self.each(source, block, &mut tap, sink)?;
        Ok(hessians)
    }

    /// Mean over the rows of ‖x − y‖ / ‖y‖, x being what `block` makes of these rows and y the rows of `reference` (the
    /// block error of ExLlamaV2 0.3.2).
    ///
    /// # Errors
    /// As [`Stream::advance`].
    pub fn error_through(&self, source: &Source<'_>, block: &Block, reference: &Self) -> Result<f64> {
        let mut sum = 0.0;
        self.each(source, block, &mut untapped, &mut |row, output| {
            sum += relative_error(output, &reference.rows[row]);
        })?;
        Ok(sum / self.rows.len().max(1) as f64)
    }

    /// Mean over the rows of ‖x − y‖ / ‖y‖, y being the rows of `reference`.
    pub fn error_to(&self, reference: &Self) -> f64 {
        let rows = self.rows.iter().zip(&reference.rows);
        let sum: f64 = rows.map(|(row, reference)| relative_error(row, reference)).sum();
        sum / self.rows.len().max(1) as f64
    }

    /// Rows of another content, by number: for collecting what [`Stream::accumulate`] yields.
    pub fn collect(&self, fill: impl FnOnce(&mut dyn FnMut(usize, &[f32])) -> Result<()>) -> Result<Self> {
        let mut rows = vec![Vec::new(); self.rows.len()];
        fill(&mut |row, values| rows[row] = values.to_vec())?;
        Ok(Self { rows })
    }

    /// Runs a copy of each row through a block; one copy is held at a time.
    fn each(
        &self,
        source: &Source<'_>,
        block: &Block,
        tap: RunnerTap<'_>,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        let mut runner = source.runner(block, tap);
        let mut copy = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            copy.clear();
            copy.extend_from_slice(row);
            runner.run(&mut copy)?;
            check_finite(&copy, &block.spec().name)?;
            sink(index, &copy);
        }
        Ok(())
    }

    /// Stores the rows as they stand before block `block`.
    ///
    /// # Errors
    /// As the system reports.
    pub fn save(&self, job: &mut Job, name: &str, block: usize) -> Result<()> {
        let mut writer =
            SnapshotWriter::create(job.claim(name)?, self.shape(model_width(&self.rows), block))?;
        for row in &self.rows {
            writer.row(row)?;
        }
        writer.finish()
    }

    /// Takes the rows from a snapshot, if there is one of their shape that is not damaged; returns its block.
    ///
    /// # Errors
    /// As the system reports.
    pub fn restore(&mut self, job: &Job, name: &str) -> Result<usize> {
        let Some(mut snapshot) = Snapshot::open(job.path(name))? else { return Ok(0) };
        let shape = snapshot.shape();
        if shape != self.shape(model_width(&self.rows), shape.block) {
            return Ok(0);
        }
        self.rows = (0..shape.rows).map(|row| snapshot.row(row)).collect::<Result<_>>()?;
        Ok(shape.block)
    }

    fn shape(&self, values: usize, block: usize) -> SnapshotShape {
        // A row is kept as one token of all its values: the snapshot need not know the width.
        SnapshotShape { block, rows: self.rows.len(), tokens: 1, width: values }
    }
}

fn model_width(rows: &[Vec<f32>]) -> usize {
    rows.first().map_or(0, Vec::len)
}

/// Records nothing.
fn untapped(_: &mut CommandList, _: usize, _: &Tensor, _: usize) -> Result<()> {
    Ok(())
}

/// ‖x − y‖ / ‖y‖.
pub(super) fn relative_error(x: &[f32], y: &[f32]) -> f64 {
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&x, &y) in x.iter().zip(y) {
        let (x, y) = (f64::from(x), f64::from(y));
        difference += (x - y) * (x - y);
        norm += y * y;
    }
    if norm > 0.0 { (difference / norm).sqrt() } else { 0.0 }
}

/// Refuses hidden states that are not finite.
fn check_finite(row: &[f32], place: &str) -> Result<()> {
    match row.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Numerical {
            place: place.to_owned(),
            message: format!(
                "its output number {at} is {}; the model's weights or the calibration text overflow",
                row[at]
            ),
        }),
    }
}

/// The name under which a group's Hessian is reported: its first linear's.
pub(super) fn group_name(group: &GroupSpec) -> &str {
    group.linears.first().map_or("", |linear| &linear.name)
}

fn group_inputs(group: &GroupSpec) -> usize {
    group.linears.first().map_or(0, |linear| linear.k)
}
