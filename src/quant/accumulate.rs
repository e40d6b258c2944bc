//! Sums of the inputs of a block's groups, and of the head, while the rows of a [`Stream`] run through.
//!
//! With a reference the same tokens run twice, a pass at a time: first those of the reference through the unquantized
//! block, whose inputs are kept, then the others. So each sum has both inputs of a token at hand, and its weight. Of the two only
//! differences are multiplied.

use std::ops::Range;

use super::method::Method;
use super::source::Source;
use super::stages;
use super::stream::Stream;
use super::sums::{ProductSum, Tokens};
use super::weights::column_slabs;
use crate::gpu::{CommandList, Submission};
use crate::model::{Block, GroupSpec, LAST_NORM, Linear, LinearSpec, Role, RunnerTap};
use crate::ops::difference::difference;
use crate::ops::matmul::{Store, matmul};
use crate::ops::rms_norm::rms_norm;
use crate::ops::{DenseMatrix, Operand, Tensor};
use crate::{Error, Result};

/// Sums over the inputs X of linears that share them, as the quantized model makes them.
pub struct GroupSums {
    /// Σ Xᵀ·diag(w)·X [k, k], what is above its diagonal.
    pub hessian: ProductSum,
    /// What the group lacks, where a stream carries the unquantized model's states and a method makes use of them.
    pub lack: Option<Lack>,
}

/// What quantization so far has taken from the linears of a group, with the unquantized model's inputs R of them.
pub enum Lack {
    /// Of their inputs: α·Σ (R − X)ᵀ·diag(w)·X [k, k].
    Inputs(ProductSum),
    /// Of the output of one that is added to the residual stream: Σ Xᵀ·diag(w)·(α·(R − X)·W + β·S) [k, hidden] in slabs of
    /// columns, W being its weights and S the unquantized model's residual stream less the quantized one's.
    Outputs(Vec<ProductSum>),
}

/// Whether what a group with this linear lacks is summed as its outputs, of which there are fewer values then, or as its inputs.
pub(super) fn sums_outputs(linear: &LinearSpec) -> bool {
    linear.output == Role::Residual
}

/// The sums of a group while they are summed.
struct Summing {
    sums: GroupSums,
    method: Method,
    /// R of one pass, then α·(R − X).
    input: Option<Tensor>,
    /// The residual stream of one pass of the unquantized model, then what the output lacks.
    stream: Option<Tensor>,
}

impl Summing {
    /// Zeros for the linears of a group, named after the first; `method` where there is a reference.
    fn new(source: &Source<'_>, linear: &LinearSpec, method: Option<Method>) -> Result<Self> {
        let LinearSpec { name, k, n, .. } = linear;
        let (device, rows) = (source.device(), source.scratch().rows());
        let hessian = ProductSum::symmetric(device, &format!("{name}.hessian"), *k)?;
        let mut summing = Self {
            sums: GroupSums { hessian, lack: None },
            method: method.unwrap_or(Method::exl2()),
            input: None,
            stream: None,
        };
        let Method { asymmetry, residual, .. } = summing.method;
        let adds = sums_outputs(linear);
        if asymmetry == 0.0 && (residual == 0.0 || !adds) {
            return Ok(summing);
        }
        if asymmetry != 0.0 {
            summing.input = Some(Tensor::zeros(device, "reference input", rows, *k)?);
        }
        summing.sums.lack = Some(if adds {
            summing.stream =
                Some(Tensor::zeros(device, "reference stream", rows, source.config().hidden_size)?);
            let slab = |width| ProductSum::zeros(device, &format!("{name}.lack"), (*k, width));
            Lack::Outputs(column_slabs(device, name, *k, *n)?.into_iter().map(slab).collect::<Result<_>>()?)
        } else {
            Lack::Inputs(ProductSum::zeros(device, &format!("{name}.lack"), (*k, *k))?)
        });
        Ok(summing)
    }

    /// Records the keeping of the reference's input and residual stream.
    fn keep(&self, list: &mut CommandList, source: &Source<'_>, input: &Tensor, rows: usize) -> Result<()> {
        let stream = self.stream.as_ref().filter(|_| self.method.residual != 0.0);
        for (from, to) in [(input, self.input.as_ref()), (source.scratch().hidden(), stream)] {
            if let Some(to) = to {
                list.copy(from.buffer(), 0, to.buffer(), 0, (4 * rows * from.cols()) as u64)?;
            }
        }
        Ok(())
    }

    /// Records the terms of a pass; `weights` are those of the group's first linear, unquantized.
    fn add(
        &self,
        list: &mut CommandList,
        source: &Source<'_>,
        weights: Option<&DenseMatrix>,
        x: &Tensor,
        tokens: Tokens<'_>,
    ) -> Result<()> {
        let inputs = tokens.columns(list, x)?;
        self.sums.hessian.add(list, &inputs, &inputs)?;
        let Method { asymmetry, residual, .. } = self.method;
        if let Some(input) = &self.input {
            difference(list, input, x, tokens.rows, asymmetry)?;
        }
        match (&self.sums.lack, &self.input, &self.stream) {
            (Some(Lack::Inputs(sum)), Some(input), _) => {
                let differences = tokens.columns(list, input)?;
                sum.add(list, &differences, &inputs)
            }
            (Some(Lack::Outputs(slabs)), input, Some(stream)) => {
                if residual != 0.0 {
                    difference(list, stream, source.scratch().hidden(), tokens.rows, residual)?;
                }
                if let Some(input) = input {
                    let weights = weights.ok_or_else(|| {
                        Error::shape("sums", "the unquantized block's linears are not in halves")
                    })?;
                    let room = source.scratch().operand_room(x);
                    let input = Operand::prepare(list, input, None, &room, tokens.rows)?;
                    let store = if residual == 0.0 { Store::Set } else { Store::Add };
                    matmul(list, &input, &weights.unbiased(), stream, tokens.rows, store)?;
                }
                let lack = tokens.columns(list, stream)?;
                let mut first = 0;
                for slab in slabs {
                    slab.add_columns(list, &inputs, &lack, first)?;
                    first += slab.matrix().cols();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Stream {
    /// Runs all rows through a block as far as the last of some groups and sums their inputs, and what they lack as far as the
    /// method makes use of it. `original` is the unquantized block, for the reference; without one it is not looked at. Where the block's last group is among them, the
    /// reference is after the block then.
    ///
    /// # Errors
    /// As [`Stream::advance`].
    pub fn accumulate(
        &mut self,
        source: &Source<'_>,
        (block, original): (&Block, &Block),
        groups: Range<usize>,
        method: Method,
    ) -> Result<Vec<GroupSums>> {
        let _stage = source.device().stage(stages::SUMS)?;
        let method = self.reference.as_ref().map(|_| method);
        let sums = |group: &GroupSpec| Summing::new(source, &group.linears[0], method);
        let sums: Vec<Summing> =
            block.spec().groups[groups.clone()].iter().map(sums).collect::<Result<_>>()?;
        let weights = self.weights_buffer(source)?;
        let of = |group: usize| groups.contains(&group).then(|| &sums[group - groups.start]);
        let keep: RunnerTap<'_> = &mut |list, group, input, rows| {
            of(group).map_or(Ok(()), |sums| sums.keep(list, source, input, rows))
        };
        let add: RunnerTap<'_> = &mut |list, group, input, rows| {
            let tokens = Tokens { rows, weights: weights.as_ref() };
            let dense = match &*original.groups()[group].linears()[0] {
                Linear::Dense(matrix) => Some(matrix),
                Linear::Packed(_) => None,
            };
            of(group).map_or(Ok(()), |sums| sums.add(list, source, dense, input, tokens))
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
        drop((reference, runner));
        Ok(sums.into_iter().map(|summing| summing.sums).collect())
    }

    /// Sums the inputs of the head over the rows after the last block, and what they lack.
    ///
    /// # Errors
    /// As the files and the device report.
    pub fn accumulate_head(
        &self,
        source: &Source<'_>,
        head: &LinearSpec,
        method: Method,
    ) -> Result<GroupSums> {
        let _stage = source.device().stage(stages::SUMS)?;
        let sums = Summing::new(source, head, self.reference.as_ref().map(|_| method))?;
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
            if let (Some(reference), Some(_)) = (&self.reference, &sums.sums.lack) {
                reference.load(pass, hidden, &mut work)?;
                run(&mut work, rows, &|list| sums.keep(list, source, normed, rows))?;
            }
            self.write_weights(weights.as_ref(), row, span)?;
            self.rows.load(pass, hidden, &mut work)?;
            let tokens = Tokens { rows, weights: weights.as_ref() };
            run(&mut work, rows, &|list| sums.add(list, source, None, normed, tokens))?;
        }
        Ok(sums.sums)
    }
}
