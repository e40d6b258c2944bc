//! Where logits come from: a model that is on the device, or one that has passed through it.

use std::ops::Range;
use std::path::Path;

use super::EvalOptions;
use crate::Result;
use crate::gpu::Device;
use crate::model::{CachePrecision, CacheSize, Head, Llama, LoadOptions, Row, Streamed, blocks};
use crate::ops::Tensor;

/// Logits of windows of tokens, in chunks of rows, and those in slices. Models of the same vocabulary, opened with the
/// same options, have the same chunks and slices.
pub(super) trait Source {
    /// Rows of a chunk.
    fn rows(&self) -> usize;
    /// Most rows of a slice.
    fn slice_rows(&self) -> usize;
    /// Goes to the chunk of window `window` that holds `tokens` at positions from `first` on. Chunks come in order.
    fn chunk(&mut self, window: usize, first: usize, tokens: &[u32]) -> Result<()>;
    /// Logits of a slice of the chunk's rows, the first rows of a tensor that holds them until the next slice; they may be
    /// still in work.
    fn logits(&mut self, slice: Range<usize>) -> Result<&Tensor>;
}

/// A model on the device.
pub(super) struct Whole(Llama);

impl Whole {
    pub(super) fn load(
        device: &Device,
        directory: &Path,
        options: EvalOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let load = LoadOptions {
            rows: options.rows,
            cache: CacheSize { slots: 1, context: options.context },
            embedding: options.embedding,
            precision: CachePrecision::Half,
        };
        Ok(Self(Llama::load(device, directory, load, progress)?))
    }
}

impl Source for Whole {
    fn rows(&self) -> usize {
        self.0.rows()
    }

    fn slice_rows(&self) -> usize {
        self.0.slice_rows()
    }

    fn chunk(&mut self, _window: usize, first: usize, tokens: &[u32]) -> Result<()> {
        let rows: Vec<Row> =
            (first as u32..).zip(tokens).map(|(position, &token)| Row { token, slot: 0, position }).collect();
        self.0.pass(&rows)
    }

    fn logits(&mut self, slice: Range<usize>) -> Result<&Tensor> {
        self.0.device_logits(&slice.collect::<Vec<_>>())
    }
}

/// The hidden states, on the host, that a model's blocks have left of all windows, and its head on the device.
pub(super) struct Streaming {
    model: Streamed,
    head: Head,
    /// [tokens, hidden] of each window.
    hidden: Vec<Vec<f32>>,
}

impl Streaming {
    /// Runs all windows through all blocks, each loaded once, then loads the head.
    pub(super) fn run(
        device: &Device,
        directory: &Path,
        windows: &[&[u32]],
        options: EvalOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let model = Streamed::open(device, directory, options.rows, options.context)?;
        let mut hidden = windows.iter().map(|window| model.embed(window)).collect::<Result<Vec<_>>>()?;
        let count = blocks(model.config()).len();
        let (mut done, all) = (0, count * windows.len());
        for index in 0..count {
            let block = model.block(index)?;
            let mut runner = model.untapped(&block);
            for window in &mut hidden {
                runner.run(window)?;
                done += 1;
                progress(done, all);
            }
        }
        let head = model.head()?;
        Ok(Self { model, head, hidden })
    }
}

impl Source for Streaming {
    fn rows(&self) -> usize {
        self.model.scratch().rows()
    }

    fn slice_rows(&self) -> usize {
        self.head.slice_rows()
    }

    fn chunk(&mut self, window: usize, first: usize, tokens: &[u32]) -> Result<()> {
        let cols = self.model.config().hidden_size;
        let hidden = &self.hidden[window][first * cols..(first + tokens.len()) * cols];
        self.model.scratch().hidden().write(hidden)
    }

    fn logits(&mut self, slice: Range<usize>) -> Result<&Tensor> {
        let scratch = self.model.scratch();
        self.head.run(scratch, scratch.hidden(), &slice.collect::<Vec<_>>())
    }
}
