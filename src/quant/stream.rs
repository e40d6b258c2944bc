//! Hidden states of the calibration rows on their way through the blocks.

use std::ops::Range;

use crate::gpu::{Buffer, Submission};
use crate::model::Block;
use crate::{Error, Result};

use super::job::Job;
use super::rows::HiddenRows;
use super::snapshot::{Snapshot, SnapshotShape, SnapshotWriter};
use super::source::Source;
use super::stages;

/// Rows of hidden states [length, hidden]: those that the model makes as far as it is quantized, and if asked for those of
/// the unquantized model beside them. What sums the inputs on the way is in [`super::accumulate`].
pub struct Stream {
    pub(super) rows: HiddenRows,
    pub(super) reference: Option<HiddenRows>,
    weights: Option<Vec<Vec<f32>>>,
    width: usize,
}

impl Stream {
    /// Embeds rows of tokens.
    ///
    /// # Errors
    /// As [`Source::embed`].
    pub fn embed(source: &Source<'_>, tokens: &[Vec<u32>]) -> Result<Self> {
        let hidden = source.config().hidden_size;
        let rows = HiddenRows::new(source, tokens.iter().map(|row| source.embed(row)))?;
        let width = tokens.first().map_or(0, |row| row.len() * hidden);
        Ok(Self { rows, reference: None, weights: None, width })
    }

    /// The same with a reference, which begins as a copy: from here on each block takes both on. The source must have room
    /// for it ([`Source::make_room_for_reference`]).
    ///
    /// # Errors
    /// As the device reports.
    pub fn with_reference(mut self) -> Result<Self> {
        self.reference = Some(self.rows.copy()?);
        Ok(self)
    }

    /// The same with a weight for each token of each row in the sums; without, all weigh 1.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are not as many as tokens, or one is negative or not finite.
    pub fn with_weights(mut self, weights: Vec<Vec<f32>>) -> Result<Self> {
        let mut tokens = vec![0; self.rows.rows()];
        self.rows.passes().for_each(|(row, span)| tokens[row] = span.end);
        if !weights.iter().map(Vec::len).eq(tokens) {
            return Err(Error::shape("token weights", "there must be one for each token of each row"));
        }
        if let Some(weight) = weights.iter().flatten().find(|weight| !weight.is_finite() || **weight < 0.0) {
            return Err(Error::shape("token weights", format!("{weight}; they must be finite, from 0 up")));
        }
        self.weights = Some(weights);
        Ok(self)
    }

    /// The rows.
    pub fn rows(&self) -> &HiddenRows {
        &self.rows
    }

    /// The rows of the unquantized model, if they are carried.
    pub fn reference(&self) -> Option<&HiddenRows> {
        self.reference.as_ref()
    }

    /// Replaces the rows by what `block` makes of them, and those of the reference by what `original` makes of them: the
    /// unquantized block. Without a reference that is not looked at.
    ///
    /// # Errors
    /// As [`crate::model::Runner::forward`].
    pub fn advance(&mut self, source: &Source<'_>, block: &Block, original: &Block) -> Result<()> {
        self.advance_rows(source, block)?;
        self.reference.as_mut().map_or(Ok(()), |rows| through(source, original, rows))
    }

    /// The same for the rows alone, where the reference is after the block already.
    ///
    /// # Errors
    /// As [`Stream::advance`].
    pub fn advance_rows(&mut self, source: &Source<'_>, block: &Block) -> Result<()> {
        through(source, block, &mut self.rows)
    }

    /// What `block` makes of the first `count` rows; they stay as they are.
    ///
    /// # Errors
    /// As [`Stream::advance`].
    pub fn made_by(&self, source: &Source<'_>, block: &Block, count: usize) -> Result<Vec<Vec<f32>>> {
        let _stage = source.device().stage(stages::FORWARD)?;
        let (hidden, cols) = (source.scratch().hidden(), source.config().hidden_size);
        let mut runner = source.untapped(block);
        let mut work = Submission::new(source.device(), "calibration");
        let mut made = vec![Vec::new(); count.min(self.rows.rows())];
        for (pass, (row, span)) in self.rows.passes().enumerate() {
            let Some(values) = made.get_mut(row) else { break };
            self.rows.load(pass, hidden, &mut work)?;
            work.add(runner.list(span.start, span.len())?);
            work.run()?;
            let first = values.len();
            values.resize(first + span.len() * cols, 0.0);
            hidden.read_into(&mut values[first..])?;
        }
        Ok(made)
    }

    /// Mean of ‖x − y‖ / ‖y‖ over the first rows, y being `others` (the block error of ExLlamaV2 0.3.2).
    ///
    /// # Errors
    /// As the device reports.
    pub fn error_to(&self, others: &[Vec<f32>]) -> Result<f64> {
        let mut sum = 0.0;
        for (row, other) in others.iter().enumerate() {
            sum += relative_error(&self.rows.read_row(row)?, other);
        }
        Ok(sum / others.len().max(1) as f64)
    }

    /// Room for the weights of one pass, where tokens have weights.
    pub(super) fn weights_buffer(&self, source: &Source<'_>) -> Result<Option<Buffer>> {
        let bytes = 4 * source.scratch().rows() as u64;
        self.weights.as_ref().map(|_| source.device().alloc("token weights", bytes)).transpose()
    }

    /// Writes the weights of a pass into that room.
    pub(super) fn write_weights(
        &self,
        buffer: Option<&Buffer>,
        row: usize,
        tokens: Range<usize>,
    ) -> Result<()> {
        match (buffer, &self.weights) {
            (Some(buffer), Some(weights)) => buffer.device().write(buffer, 0, &weights[row][tokens]),
            _ => Ok(()),
        }
    }

    /// Stores the rows as they stand before block `block`.
    ///
    /// # Errors
    /// As the system reports.
    pub fn save(&self, job: &mut Job, name: &str, block: usize) -> Result<()> {
        let mut writer =
            SnapshotWriter::create(job.claim(name)?, self.shape(block), &job.inputs().fingerprint())?;
        for rows in [Some(&self.rows), self.reference.as_ref()].into_iter().flatten() {
            (0..rows.rows()).try_for_each(|row| writer.row(&rows.read_row(row)?))?;
        }
        writer.finish()
    }

    /// Takes the rows from a snapshot, if there is one of this job and their shape that is not damaged and not of a block
    /// after `most`; returns its block.
    ///
    /// # Errors
    /// As the system reports.
    pub fn restore(&mut self, job: &Job, name: &str, most: usize) -> Result<usize> {
        let Some(mut snapshot) = Snapshot::open(job.path(name), &job.inputs().fingerprint())? else {
            return Ok(0);
        };
        let shape = snapshot.shape();
        if shape != self.shape(shape.block) || shape.block > most {
            return Ok(0);
        }
        let streams = [Some(&mut self.rows), self.reference.as_mut()];
        for (stream, rows) in streams.into_iter().flatten().enumerate() {
            (0..shape.rows).try_for_each(|row| rows.write(row, &snapshot.row(stream, row)?))?;
        }
        Ok(shape.block)
    }

    fn shape(&self, block: usize) -> SnapshotShape {
        let streams = 1 + usize::from(self.reference.is_some());
        SnapshotShape { block, streams, rows: self.rows.rows(), width: self.width }
    }
}

/// ‖x − y‖ / ‖y‖.
fn relative_error(x: &[f32], y: &[f32]) -> f64 {
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&x, &y) in x.iter().zip(y) {
        let (x, y) = (f64::from(x), f64::from(y));
        difference += (x - y) * (x - y);
        norm += y * y;
    }
    if norm > 0.0 { (difference / norm).sqrt() } else { 0.0 }
}

/// Replaces rows by what a block makes of them.
fn through(source: &Source<'_>, block: &Block, rows: &mut HiddenRows) -> Result<()> {
    let _stage = source.device().stage(stages::FORWARD)?;
    let hidden = source.scratch().hidden();
    let mut runner = source.untapped(block);
    let mut work = Submission::new(source.device(), "calibration");
    for (pass, (_, span)) in rows.passes().enumerate() {
        rows.load(pass, hidden, &mut work)?;
        work.add(runner.list(span.start, span.len())?);
        rows.store(pass, hidden, &mut work)?;
        work.run()?;
    }
    Ok(())
}
