//! What a change of one block does to the output of the whole model: the KL divergence of its distributions on some rows.
//!
//! All blocks are on the device, unquantized. A probe begins with the hidden states before the changed block, which are
//! those of the unquantized model, so it runs only from there on.

use std::cell::RefCell;

use super::source::Source;
use super::stages;
use super::stream::Stream;
use crate::gpu::{Buffer, CommandList, Submission};
use crate::model::{Block, LAST_NORM, LinearGroup, Runner};
use crate::ops::Tensor;
use crate::ops::gather_rows::gather_rows;
use crate::ops::matmul::Store;
use crate::ops::rms_norm::rms_norm;
use crate::ops::score::{RowScores, score};
use crate::{Error, Result};

/// Distributions are compared at every so many-th token.
const STRIDE: usize = 4;

/// A model that can be probed.
pub struct Probe<'a> {
    source: &'a Source<'a>,
    blocks: RefCell<Vec<Runner<'a>>>,
    head: LinearGroup,
    norm: Tensor,
    picked: Tensor,
    normed: Tensor,
    logits: Tensor,
    passes: Vec<Compared>,
    scores: RowScores,
}

/// The tokens of a pass whose distributions are compared.
struct Compared {
    /// Number of the pass in a stream.
    pass: usize,
    /// Their numbers among the pass' tokens, on the device.
    tokens: Buffer,
    count: usize,
    /// What the unquantized model says there [count, vocabulary].
    expected: Tensor,
    /// Number of the first score.
    first: usize,
}

impl<'a> Probe<'a> {
    /// `blocks` are all of the model's, unquantized; `stream` holds the embedded rows, of which the first `rows` are used.
    ///
    /// # Errors
    /// As the files and the device report.
    pub fn new(source: &'a Source<'a>, blocks: &'a [Block], stream: &Stream, rows: usize) -> Result<Self> {
        let (device, config) = (source.device(), source.config());
        let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);
        let most = (device.max_slab_bytes() / (4 * vocabulary as u64)).max(1) as usize;
        let mut passes = Vec::new();
        let mut total = 0;
        for (pass, (row, span)) in stream.rows().passes().enumerate() {
            // The keys of one block are kept at a time, so what does not fit into a pass is left out.
            if row >= rows || span.start > 0 {
                continue;
            }
            let count = span.len().div_ceil(STRIDE).min(most);
            let tokens: Vec<u32> = (0..count).map(|at| (span.len() - 1 - at * STRIDE) as u32).collect();
            passes.push(Compared {
                pass,
                tokens: device.upload("probed tokens", &tokens)?,
                count,
                expected: Tensor::zeros(device, "expected logits", count, vocabulary)?,
                first: total,
            });
            total += count;
        }
        let widest = passes.iter().map(|pass| pass.count).max().unwrap_or(0);
        let probe = Self {
            source,
            blocks: RefCell::new(blocks.iter().map(|block| source.untapped(block)).collect()),
            head: source.head()?,
            norm: source.upload(LAST_NORM, &source.last_norm()?)?,
            picked: Tensor::zeros(device, "probed states", widest, hidden)?,
            normed: Tensor::zeros(device, "probed states, normed", widest, hidden)?,
            logits: Tensor::zeros(device, "probed logits", widest, vocabulary)?,
            passes,
            scores: RowScores::new(device, total)?,
        };
        probe.run(stream, 0, None, &|list, pass| {
            let bytes = (4 * pass.count * vocabulary) as u64;
            list.copy(probe.logits.buffer(), 0, pass.expected.buffer(), 0, bytes)
        })?;
        Ok(probe)
    }

    /// Mean divergence in nats with `changed` in the place of block `index`, whose inputs `stream` holds; `what` was changed,
    /// for messages.
    ///
    /// # Errors
    /// As the device reports; [`Error::Numerical`] when a logit or the divergence is not finite.
    pub fn divergence(&self, stream: &Stream, index: usize, changed: &Block, what: &str) -> Result<f64> {
        let _stage = self.source.device().stage(stages::PROBING)?;
        self.run(stream, index + 1, Some(changed), &|list, pass| {
            score(list, &self.logits, Some(&pass.expected), pass.count, (&self.scores, pass.first))
        })?;
        let count = self.passes.iter().map(|pass| pass.count).sum();
        let all = self.scores.read(count)?;
        if all.iter().any(|one| one.not_finite().is_some() || !one.divergence.is_finite()) {
            let place = format!("logits with {what}");
            let message =
                "not all are finite; check the adapter with `exlay selftest`, or measure with --probe-rows 0"
                    .into();
            return Err(Error::Numerical { place, message });
        }
        Ok(all.iter().map(|one| f64::from(one.divergence)).sum::<f64>() / count.max(1) as f64)
    }

    /// Runs the stream's rows through `changed` and the blocks from `from` on, and then the head; `then` sees its logits.
    fn run(
        &self,
        stream: &Stream,
        from: usize,
        changed: Option<&Block>,
        then: &dyn Fn(&mut CommandList, &Compared) -> Result<()>,
    ) -> Result<()> {
        let (scratch, eps) = (self.source.scratch(), self.source.config().rms_norm_eps);
        let source: &Source<'_> = self.source;
        let mut changed = changed.map(|block| source.untapped(block));
        let mut blocks = self.blocks.borrow_mut();
        let mut work = Submission::new(source.device(), "probe");
        let spans: Vec<_> = stream.rows().passes().map(|(_, span)| span).collect();
        for pass in &self.passes {
            let span = &spans[pass.pass];
            stream.rows().load(pass.pass, scratch.hidden(), &mut work)?;
            if let Some(runner) = &mut changed {
                work.add(runner.list(span.start, span.len())?);
            }
            for runner in &mut blocks[from..] {
                work.add(runner.list(span.start, span.len())?);
            }
            let mut list = CommandList::new(self.source.device(), "probe");
            let (picked, normed) = (
                self.picked.view(pass.count, self.picked.cols())?,
                self.normed.view(pass.count, self.normed.cols())?,
            );
            gather_rows(&mut list, scratch.hidden(), &pass.tokens, &picked)?;
            rms_norm(&mut list, &picked, &self.norm, &normed, pass.count, eps)?;
            self.head.record(&mut list, scratch, &normed, &[&self.logits], pass.count, Store::Set)?;
            then(&mut list, pass)?;
            work.add(&list);
            work.run()?;
        }
        Ok(())
    }
}
