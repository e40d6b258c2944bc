//! Hidden states of calibration rows, cut into the passes in which they run: on the device where they fit beside the
//! rest, otherwise on the host. Nothing else knows where they are.

use std::ops::Range;

use super::source::Source;
use crate::Result;
use crate::gpu::Submission;
use crate::ops::Tensor;

/// Rows of hidden states [tokens, hidden].
pub struct HiddenRows {
    passes: Vec<Pass>,
    rows: usize,
}

/// The tokens of one row that run at once.
struct Pass {
    row: usize,
    first: usize,
    tokens: usize,
    held: Held,
}

enum Held {
    Device(Tensor),
    Host(Vec<f32>),
}

impl HiddenRows {
    /// Holds rows, each [tokens, hidden]; `bytes` are what all rows of all streams take together, which stay on the device
    /// where [`Source::rows_room`] is so large.
    ///
    /// # Errors
    /// As [`Tensor::upload`].
    pub fn new(
        source: &Source<'_>,
        rows: impl Iterator<Item = Result<Vec<f32>>>,
        bytes: usize,
    ) -> Result<Self> {
        let (most, hidden) = (source.scratch().rows(), source.config().hidden_size);
        let mut passes = Vec::new();
        let mut count = 0;
        for (row, values) in rows.enumerate() {
            for (index, chunk) in values?.chunks(most * hidden).enumerate() {
                let held = match bytes as u64 <= source.rows_room() {
                    true => Held::Device(Tensor::upload(source.device(), "hidden states", chunk, hidden)?),
                    false => Held::Host(chunk.to_vec()),
                };
                passes.push(Pass { row, first: index * most, tokens: chunk.len() / hidden, held });
            }
            count = row + 1;
        }
        Ok(Self { passes, rows: count })
    }

    /// A copy.
    ///
    /// # Errors
    /// As the device reports.
    pub fn copy(&self) -> Result<Self> {
        let mut copies: Option<Submission> = None;
        let mut copy = |pass: &Pass| {
            let held = match &pass.held {
                Held::Host(values) => Held::Host(values.clone()),
                Held::Device(tensor) => {
                    let (device, label) = (tensor.device(), tensor.buffer().label());
                    let copy = Tensor::zeros(device, label, tensor.rows(), tensor.cols())?;
                    let work = copies.get_or_insert_with(|| Submission::new(device, "copy of hidden states"));
                    transfer(tensor, &copy, tensor.rows(), work)?;
                    Held::Device(copy)
                }
            };
            Ok(Pass { held, ..*pass })
        };
        let passes = self.passes.iter().map(&mut copy).collect::<Result<_>>()?;
        copies.as_mut().map_or(Ok(()), Submission::run)?;
        Ok(Self { passes, rows: self.rows })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Row and tokens of each pass, in the order in which they run.
    pub fn passes(&self) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let spans = self.passes.iter().map(|pass| (pass.row, pass.first..pass.first + pass.tokens));
        spans.collect::<Vec<_>>().into_iter()
    }

    /// Puts the hidden states of a pass into the first rows of `to`, after what is in `work` already.
    ///
    /// # Errors
    /// As the device reports.
    pub fn load(&self, pass: usize, to: &Tensor, work: &mut Submission) -> Result<()> {
        match &self.passes[pass].held {
            Held::Device(from) => transfer(from, to, from.rows(), work),
            Held::Host(values) => {
                work.run()?;
                to.write(values)
            }
        }
    }

    /// Replaces the hidden states of a pass by the first rows of `from` as they are after what is in `work` already.
    ///
    /// # Errors
    /// As the device reports.
    pub fn store(&mut self, pass: usize, from: &Tensor, work: &mut Submission) -> Result<()> {
        match &mut self.passes[pass].held {
            Held::Device(to) => transfer(from, to, to.rows(), work),
            Held::Host(values) => {
                work.run()?;
                from.read_into(values)
            }
        }
    }

    /// Values of a row, tokens times hidden size; waits for the device.
    ///
    /// # Errors
    /// As the device reports.
    pub fn read_row(&self, row: usize) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        for pass in self.passes.iter().filter(|pass| pass.row == row) {
            match &pass.held {
                Held::Device(tensor) => values.extend(tensor.read(tensor.rows())?),
                Held::Host(held) => values.extend_from_slice(held),
            }
        }
        Ok(values)
    }

    /// Values of all rows; see [`HiddenRows::read_row`].
    ///
    /// # Errors
    /// As the device reports.
    pub fn read(&self) -> Result<Vec<Vec<f32>>> {
        (0..self.rows).map(|row| self.read_row(row)).collect()
    }

    /// Replaces a row.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when its length differs; as the device reports.
    pub fn write(&mut self, row: usize, values: &[f32]) -> Result<()> {
        let mut left = values;
        for pass in self.passes.iter_mut().filter(|pass| pass.row == row) {
            let count = match &pass.held {
                Held::Device(tensor) => tensor.rows() * tensor.cols(),
                Held::Host(values) => values.len(),
            };
            let Some((these, rest)) = left.split_at_checked(count) else { break };
            match &mut pass.held {
                Held::Device(tensor) => tensor.write(these)?,
                Held::Host(values) => values.copy_from_slice(these),
            }
            left = rest;
        }
        if left.is_empty() {
            return Ok(());
        }
        Err(crate::Error::shape("hidden states", format!("a row of {} values", values.len())))
    }
}

/// Copies rows from one tensor to another.
fn transfer(from: &Tensor, to: &Tensor, rows: usize, work: &mut Submission) -> Result<()> {
    work.copy(from.buffer(), to.buffer(), (4 * rows * from.cols()) as u64)
}
