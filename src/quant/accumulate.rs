//! Sums of the inputs of a block's groups, and of the head, while the rows of a [`Stream`] run through.
//!
//! With a reference the same tokens run twice, a pass at a time: first those of the reference through the unquantized
//! block, whose inputs are kept, then the others. So each sum has both inputs of a token at hand, and its weight.

use std::ops::Range;

use super::hessian::HessianAccumulator;
use super::source::Source;
use super::stream::Stream;
use crate::Result;
use crate::gpu::{Buffer, CommandList};
use crate::model::{Block, GroupSpec, LAST_NORM, LinearSpec, Role, RunnerTap};
use crate::ops::Tensor;
use crate::ops::rms_norm::rms_norm;

/// Sums over the inputs of linears that share them.
pub struct GroupSums {
    /// Xᵀ·diag(w)·X of the inputs as the quantized model makes them.
    pub hessian: HessianAccumulator,
    /// The symmetric part of Rᵀ·diag(w)·X, R being the inputs as the unquantized model makes them; with a reference.
    pub cross: Option<HessianAccumulator>,
    /// R of one pass.
    reference: Option<Tensor>,
}

impl GroupSums {
    /// Zeros, named after the first linear.
    fn new(source: &Source<'_>, linear: &LinearSpec, paired: bool) -> Result<Self> {
        let LinearSpec { name, k, .. } = linear;
        let device = source.device();
        let sum = || HessianAccumulator::new(device, name, *k);
        let room = || Tensor::zeros(device, "reference input", source.scratch().rows(), *k);
        Ok(Self {
            hessian: sum()?,
            cross: paired.then(sum).transpose()?,
            reference: paired.then(room).transpose()?,
        })
    }

    /// Records the keeping of the reference's input.
    fn keep(&self, list: &mut CommandList, input: &Tensor, rows: usize) -> Result<()> {
        match &self.reference {
            Some(kept) => list.copy(input.buffer(), 0, kept.buffer(), 0, (4 * rows * input.cols()) as u64),
            None => Ok(()),
        }
    }

    /// Records the terms of a pass.
    fn add(
        &self,
        list: &mut CommandList,
        input: &Tensor,
        rows: usize,
        weights: Option<&Buffer>,
    ) -> Result<()> {
        self.hessian.add(list, input, input, rows, weights)?;
        match (&self.cross, &self.reference) {
            (Some(cross), Some(reference)) => cross.add(list, reference, input, rows, weights),
            _ => Ok(()),
        }
    }
}

impl Stream {
    /// Runs all rows through a block and sums the inputs of some groups; `sink` gets what the block makes of each row, by
    /// its number. `original` is the unquantized block, for the reference; without one it is not looked at.
    ///
    /// # Errors
    /// As [`Stream::advance`].
    pub fn accumulate(
        &self,
        source: &Source<'_>,
        (block, original): (&Block, &Block),
        groups: Range<usize>,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<Vec<GroupSums>> {
        let paired = self.reference().is_some();
        let sums = |group: &GroupSpec| GroupSums::new(source, &group.linears[0], paired);
        let sums: Vec<GroupSums> =
            block.spec().groups[groups.clone()].iter().map(sums).collect::<Result<_>>()?;
        let weights = self.weights_buffer(source)?;
        let of = |group: usize| groups.contains(&group).then(|| &sums[group - groups.start]);
        let keep: RunnerTap<'_> =
            &mut |list, group, input, rows| of(group).map_or(Ok(()), |sums| sums.keep(list, input, rows));
        let mut add = |list: &mut CommandList, group: usize, input: &Tensor, rows: usize| {
            of(group).map_or(Ok(()), |sums| sums.add(list, input, rows, weights.as_ref()))
        };
        let mut reference = source.runner(original, keep).in_slot(1);
        let mut before = |row: usize, tokens: Range<usize>| {
            if let Some(mut values) = self.reference_tokens(row, tokens.clone()) {
                reference.pass(tokens.start, &mut values)?;
            }
            self.write_weights(weights.as_ref(), row, tokens)
        };
        self.each(source, block, &mut add, &mut before, sink)?;
        Ok(sums)
    }

    /// Sums the inputs of the head over the rows after the last block.
    ///
    /// # Errors
    /// As the files and the device report.
    pub fn accumulate_head(&self, source: &Source<'_>, head: &LinearSpec) -> Result<GroupSums> {
        let sums = GroupSums::new(source, head, self.reference().is_some())?;
        let weights = self.weights_buffer(source)?;
        let norm = source.upload(LAST_NORM, &source.last_norm()?)?;
        let (hidden, normed) = (source.scratch().hidden(), source.scratch().tensor(Role::Normed));
        let eps = source.config().rms_norm_eps;
        let pass = |values: &[f32], then: &dyn Fn(&mut CommandList, usize) -> Result<()>| {
            let rows = values.len() / head.k;
            hidden.write(values)?;
            let mut list = CommandList::new(source.device(), "head calibration");
            rms_norm(&mut list, hidden, &norm, normed, rows, eps)?;
            then(&mut list, rows)?;
            list.run()
        };
        for (index, row) in self.rows().iter().enumerate() {
            for (tokens, chunk) in self.passes(source, row) {
                if let Some(values) = self.reference_tokens(index, tokens.clone()) {
                    pass(&values, &|list, rows| sums.keep(list, normed, rows))?;
                }
                self.write_weights(weights.as_ref(), index, tokens)?;
                pass(chunk, &|list, rows| sums.add(list, normed, rows, weights.as_ref()))?;
            }
        }
        Ok(sums)
    }

    /// Room for the weights of one pass, where tokens have weights.
    fn weights_buffer(&self, source: &Source<'_>) -> Result<Option<Buffer>> {
        let bytes = 4 * source.scratch().rows() as u64;
        self.weights().map(|_| source.device().alloc("token weights", bytes)).transpose()
    }

    fn write_weights(&self, buffer: Option<&Buffer>, row: usize, tokens: Range<usize>) -> Result<()> {
        match (buffer, self.weights()) {
            (Some(buffer), Some(weights)) => buffer.device().write(buffer, 0, &weights[row][tokens]),
            _ => Ok(()),
        }
    }
}
