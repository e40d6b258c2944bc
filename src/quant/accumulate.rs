//! Sums of the inputs of a block's groups, and of the head, while the rows of a [`Stream`] run through.
//!
//! With a reference the same tokens run twice, a pass at a time: first those of the reference through the unquantized
//! block, whose inputs are kept, then the others. So each sum has both inputs of a token at hand, and its weight.

use std::ops::Range;

use super::source::Source;
use super::stages;
use super::stream::Stream;
use super::sums::{ProductSum, Tokens};
use super::weights::column_slabs;
use crate::Result;
use crate::gpu::{CommandList, Submission};
use crate::model::{Block, GroupSpec, LAST_NORM, LinearSpec, Role, RunnerTap};
use crate::ops::Tensor;
use crate::ops::rms_norm::rms_norm;
use crate::ops::subtract::subtract;

/// Sums over the inputs X of linears that share them, as the quantized model makes them.
pub struct GroupSums {
    /// Σ Xᵀ·diag(w)·X [k, k], what is above its diagonal.
    pub hessian: ProductSum,
    /// The same with the unquantized model's states, where a stream carries them.
    pub paired: Option<PairedSums>,
}

/// Sums with the states of the unquantized model: R, its inputs of the same linears, and S, its residual stream less
/// that of the quantized model.
pub struct PairedSums {
    /// Σ (R − X)ᵀ·diag(w)·X [k, k].
    pub cross: ProductSum,
    /// Σ Xᵀ·diag(w)·S [k, hidden] in slabs of columns, where the linear's output is added to the residual stream.
    pub residual: Vec<ProductSum>,
    /// R of one pass, then R − X.
    input: Tensor,
    /// The residual stream of one pass of the unquantized model, then S.
    stream: Tensor,
}

impl GroupSums {
    /// Zeros for the linears of a group, named after the first.
    fn new(source: &Source<'_>, linear: &LinearSpec, paired: bool) -> Result<Self> {
        let hessian = ProductSum::symmetric(source.device(), &format!("{}.hessian", linear.name), linear.k)?;
        Ok(Self { hessian, paired: paired.then(|| PairedSums::new(source, linear)).transpose()? })
    }

    /// Records the terms of a pass.
    fn add(&self, list: &mut CommandList, source: &Source<'_>, x: &Tensor, tokens: Tokens<'_>) -> Result<()> {
        let inputs = tokens.columns(list, x)?;
        self.hessian.add(list, &inputs, &inputs)?;
        let Some(paired) = &self.paired else { return Ok(()) };
        // What differs little is subtracted before it is summed.
        subtract(list, &paired.input, x, tokens.rows)?;
        let differences = tokens.columns(list, &paired.input)?;
        paired.cross.add(list, &differences, &inputs)?;
        if paired.residual.is_empty() {
            return Ok(());
        }
        subtract(list, &paired.stream, source.scratch().hidden(), tokens.rows)?;
        let stream = tokens.columns(list, &paired.stream)?;
        let mut first = 0;
        for slab in &paired.residual {
            slab.add_columns(list, &inputs, &stream, first)?;
            first += slab.matrix().cols();
        }
        Ok(())
    }
}

impl PairedSums {
    fn new(source: &Source<'_>, linear: &LinearSpec) -> Result<Self> {
        let LinearSpec { name, k, n, output, .. } = linear;
        let (device, rows) = (source.device(), source.scratch().rows());
        let slabs = match output {
            Role::Residual => column_slabs(device, name, *k, *n)?,
            _ => Vec::new(),
        };
        let slab = |width: &usize| ProductSum::zeros(device, &format!("{name}.residual"), (*k, *width));
        Ok(Self {
            cross: ProductSum::zeros(device, &format!("{name}.cross"), (*k, *k))?,
            residual: slabs.iter().map(slab).collect::<Result<_>>()?,
            input: Tensor::zeros(device, "reference input", rows, *k)?,
            stream: Tensor::zeros(device, "reference stream", rows, source.config().hidden_size)?,
        })
    }

    /// Records the keeping of the reference's input and residual stream.
    fn keep(&self, list: &mut CommandList, source: &Source<'_>, input: &Tensor, rows: usize) -> Result<()> {
        for (from, to) in [(input, &self.input), (source.scratch().hidden(), &self.stream)] {
            list.copy(from.buffer(), 0, to.buffer(), 0, (4 * rows * from.cols()) as u64)?;
        }
        Ok(())
    }
}

impl Stream {
    /// Runs all rows through a block as far as the last of some groups and sums their inputs. `original` is the
    /// unquantized block, for the reference; without one it is not looked at. Where the block's last group is among them, the
    /// reference is after the block then.
    ///
    /// # Errors
    /// As [`Stream::advance`].
    pub fn accumulate(
        &mut self,
        source: &Source<'_>,
        (block, original): (&Block, &Block),
        groups: Range<usize>,
    ) -> Result<Vec<GroupSums>> {
        let _stage = source.device().stage(stages::SUMS)?;
        let paired = self.reference.is_some();
        let sums = |group: &GroupSpec| GroupSums::new(source, &group.linears[0], paired);
        let sums: Vec<GroupSums> =
            block.spec().groups[groups.clone()].iter().map(sums).collect::<Result<_>>()?;
        let weights = self.weights_buffer(source)?;
        let of = |group: usize| groups.contains(&group).then(|| &sums[group - groups.start]);
        let keep: RunnerTap<'_> =
            &mut |list, group, input, rows| match of(group).and_then(|sums| sums.paired.as_ref()) {
                Some(paired) => paired.keep(list, source, input, rows),
                None => Ok(()),
            };
        let add: RunnerTap<'_> = &mut |list, group, input, rows| {
            let tokens = Tokens { rows, weights: weights.as_ref() };
            of(group).map_or(Ok(()), |sums| sums.add(list, source, input, tokens))
        };
        let last = groups.end - 1;
        let ends = groups.end == block.spec().groups.len();
        let mut reference =
            source.runner(original, keep).in_slot(1).until(if ends { groups.end } else { last });
        let mut runner = source.runner(block, add).until(last);
        let hidden = source.scratch().hidden();
        let mut work = Submission::new(source.device(), "calibration");
        for (pass, (row, span)) in self.rows.passes().enumerate() {
            self.write_weights(weights.as_ref(), row, span.clone())?;
            if let Some(rows) = &mut self.reference {
                rows.load(pass, hidden, &mut work)?;
                work.add(reference.list(span.start, span.len())?);
                if ends {
                    rows.store(pass, hidden, &mut work)?;
                }
            }
            self.rows.load(pass, hidden, &mut work)?;
            work.add(runner.list(span.start, span.len())?);
            work.run()?;
        }
        Ok(sums)
    }

    /// Sums the inputs of the head over the rows after the last block.
    ///
    /// # Errors
    /// As the files and the device report.
    pub fn accumulate_head(&self, source: &Source<'_>, head: &LinearSpec) -> Result<GroupSums> {
        let _stage = source.device().stage(stages::SUMS)?;
        let sums = GroupSums::new(source, head, self.reference.is_some())?;
        let weights = self.weights_buffer(source)?;
        let norm = source.upload(LAST_NORM, &source.last_norm()?)?;
        let (hidden, normed) = (source.scratch().hidden(), source.scratch().tensor(Role::Normed));
        let eps = source.config().rms_norm_eps;
        let mut work = Submission::new(source.device(), "head calibration");
        let run = |work: &mut Submission, rows: usize, then: &dyn Fn(&mut CommandList) -> Result<()>| {
            let mut list = CommandList::new(source.device(), "head calibration");
            rms_norm(&mut list, hidden, &norm, normed, rows, eps)?;
            then(&mut list)?;
            work.add(&list);
            work.run()
        };
        for (pass, (row, span)) in self.rows.passes().enumerate() {
            let rows = span.len();
            if let (Some(reference), Some(paired)) = (&self.reference, &sums.paired) {
                reference.load(pass, hidden, &mut work)?;
                run(&mut work, rows, &|list| paired.keep(list, source, normed, rows))?;
            }
            self.write_weights(weights.as_ref(), row, span)?;
            self.rows.load(pass, hidden, &mut work)?;
            let tokens = Tokens { rows, weights: weights.as_ref() };
            run(&mut work, rows, &|list| sums.add(list, source, normed, tokens))?;
        }
        Ok(sums)
    }
}
