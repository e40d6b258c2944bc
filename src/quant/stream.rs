//! Hidden states of the calibration rows, on the host, on their way through the blocks.

use std::ops::Range;

use crate::gpu::CommandList;
use crate::model::{Block, RunnerTap};
use crate::ops::Tensor;
use crate::{Error, Result};

use super::job::Job;
use super::snapshot::{Snapshot, SnapshotShape, SnapshotWriter};
use super::source::Source;

/// Rows of hidden states [length, hidden]: those that the model makes as far as it is quantized, and if asked for those of
/// the unquantized model beside them. What sums the inputs on the way is in [`super::accumulate`].
#[derive(Clone)]
pub struct Stream {
    rows: Vec<Vec<f32>>,
    reference: Option<Vec<Vec<f32>>>,
    weights: Option<Vec<Vec<f32>>>,
    hidden: usize,
}

impl Stream {
    /// Embeds rows of tokens.
    ///
    /// # Errors
    /// As [`Source::embed`].
    pub fn embed(source: &Source<'_>, tokens: &[Vec<u32>]) -> Result<Self> {
        let rows = tokens.iter().map(|row| source.embed(row)).collect::<Result<_>>()?;
        Ok(Self { rows, reference: None, weights: None, hidden: source.config().hidden_size })
    }

    /// The same with a reference, which begins as a copy: from here on each block takes both on.
    ///
    /// # Errors
    /// As [`Source::make_room_for_reference`].
    pub fn with_reference(mut self, source: &mut Source<'_>) -> Result<Self> {
        source.make_room_for_reference()?;
        self.reference = Some(self.rows.clone());
        Ok(self)
    }

    /// The same with a weight for each token of each row in the sums; without, all weigh 1.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are not as many as tokens, or one is negative or not finite.
    pub fn with_weights(mut self, weights: Vec<Vec<f32>>) -> Result<Self> {
        let tokens = |row: &Vec<f32>| row.len() / self.hidden;
        if !weights.iter().map(Vec::len).eq(self.rows.iter().map(tokens)) {
            return Err(Error::shape("token weights", "there must be one for each token of each row"));
        }
        if let Some(weight) = weights.iter().flatten().find(|weight| !weight.is_finite() || **weight < 0.0) {
            return Err(Error::shape("token weights", format!("{weight}; they must be finite, from 0 up")));
        }
        self.weights = Some(weights);
        Ok(self)
    }

    /// The rows.
    pub fn rows(&self) -> &[Vec<f32>] {
        &self.rows
    }

    /// The rows of the unquantized model, if they are carried.
    pub fn reference(&self) -> Option<&[Vec<f32>]> {
        self.reference.as_deref()
    }

    /// The weight of each token of each row, if they differ.
    pub fn weights(&self) -> Option<&[Vec<f32>]> {
        self.weights.as_deref()
    }

    /// Replaces the rows by what `block` makes of them, and those of the reference by what `original` makes of them: the
    /// unquantized block. Without a reference that is not looked at.
    ///
    /// # Errors
    /// As [`crate::model::Runner::run`]; [`Error::Numerical`] when a value is not finite.
    pub fn advance(&mut self, source: &Source<'_>, block: &Block, original: &Block) -> Result<()> {
        let streams = [(Some(&mut self.rows), block), (self.reference.as_mut(), original)];
        for (rows, block) in streams {
            let mut tap = untapped;
            let mut runner = source.runner(block, &mut tap);
            for row in rows.into_iter().flatten() {
                runner.run(row)?;
                check_finite(row, &block.spec().name)?;
            }
        }
        Ok(())
    }

    /// Mean over the rows of ‖x − y‖ / ‖y‖, x being what `block` makes of these rows and y the rows of `reference` (the
    /// block error of ExLlamaV2 0.3.2).
    ///
    /// # Errors
    /// As [`Stream::advance`].
    pub fn error_through(&self, source: &Source<'_>, block: &Block, reference: &Self) -> Result<f64> {
        let mut sum = 0.0;
        self.each(source, block, &mut untapped, &mut |_, _| Ok(()), &mut |row, output| {
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

    /// Rows of another content, by number, with the same weights and no reference: for collecting what [`Stream::accumulate`] yields.
    pub fn collect(&self, fill: impl FnOnce(&mut dyn FnMut(usize, &[f32])) -> Result<()>) -> Result<Self> {
        let mut rows = vec![Vec::new(); self.rows.len()];
        fill(&mut |row, values| rows[row] = values.to_vec())?;
        Ok(Self { rows, reference: None, weights: self.weights.clone(), hidden: self.hidden })
    }

    /// Runs a copy of each row through a block; one copy is held at a time. `before` is called before each pass, with the
    /// number of the row and its tokens in the pass.
    pub(super) fn each(
        &self,
        source: &Source<'_>,
        block: &Block,
        tap: RunnerTap<'_>,
        before: &mut dyn FnMut(usize, Range<usize>) -> Result<()>,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        let mut runner = source.runner(block, tap);
        let mut copy = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            copy.clear();
            copy.extend_from_slice(row);
            for (tokens, _) in self.passes(source, row) {
                before(index, tokens.clone())?;
                runner.pass(tokens.start, &mut copy[self.values(&tokens)])?;
            }
            check_finite(&copy, &block.spec().name)?;
            sink(index, &copy);
        }
        Ok(())
    }

    /// A row cut into passes: tokens and their hidden states.
    pub(super) fn passes<'r>(
        &self,
        source: &Source<'_>,
        row: &'r [f32],
    ) -> impl Iterator<Item = (Range<usize>, &'r [f32])> + use<'r> {
        let (rows, hidden) = (source.scratch().rows(), self.hidden);
        let chunks = row.chunks(rows * hidden).enumerate();
        chunks.map(move |(index, chunk)| (index * rows..index * rows + chunk.len() / hidden, chunk))
    }

    /// A copy of the reference's hidden states of some tokens of a row.
    pub(super) fn reference_tokens(&self, row: usize, tokens: Range<usize>) -> Option<Vec<f32>> {
        Some(self.reference.as_ref()?[row][self.values(&tokens)].to_vec())
    }

    fn values(&self, tokens: &Range<usize>) -> Range<usize> {
        tokens.start * self.hidden..tokens.end * self.hidden
    }

    /// Stores the rows as they stand before block `block`.
    ///
    /// # Errors
    /// As the system reports.
    pub fn save(&self, job: &mut Job, name: &str, block: usize) -> Result<()> {
        let mut writer =
            SnapshotWriter::create(job.claim(name)?, self.shape(block), &job.inputs().fingerprint())?;
        for row in self.rows.iter().chain(self.reference.iter().flatten()) {
            writer.row(row)?;
        }
        writer.finish()
    }

    /// Takes the rows from a snapshot, if there is one of this job and their shape that is not damaged; returns its block.
    ///
    /// # Errors
    /// As the system reports.
    pub fn restore(&mut self, job: &Job, name: &str) -> Result<usize> {
        let Some(mut snapshot) = Snapshot::open(job.path(name), &job.inputs().fingerprint())? else {
            return Ok(0);
        };
        let shape = snapshot.shape();
        if shape != self.shape(shape.block) {
            return Ok(0);
        }
        let mut read = |stream| (0..shape.rows).map(|row| snapshot.row(stream, row)).collect::<Result<_>>();
        self.rows = read(0)?;
        if let Some(reference) = &mut self.reference {
            *reference = read(1)?;
        }
        Ok(shape.block)
    }

    fn shape(&self, block: usize) -> SnapshotShape {
        let streams = 1 + usize::from(self.reference.is_some());
        SnapshotShape { block, streams, rows: self.rows.len(), width: self.rows.first().map_or(0, Vec::len) }
    }
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
