//! A text scored by a model, and against a reference: whole models on the device, or a block at a time.
//!
//! Both ways run the same passes over the same chunks of rows, so that their results agree to the last bit. Logits are
//! scored where they are, slice by slice; only the rows' scores come back, once a chunk. What is added up is the business
//! of [`super::score`].

mod source;

use std::path::Path;

use super::score::{Scores, Summary, targets, windows};
use crate::formats::config::LlamaConfig;
use crate::formats::dataset;
use crate::formats::tokenizer::Tokenizer;
use crate::gpu::{CommandList, Device};
use crate::model::Placement;
use crate::ops::score::{RowScores, score};
use crate::{Error, Result};
use source::{Source, Streaming, Whole};

/// How to score a text.
#[derive(Clone, Copy, Debug)]
pub struct EvalOptions {
    /// Tokens in a window, if no model's limit is lower.
    pub context: usize,
    /// Most windows.
    pub windows: usize,
    /// Most rows of a pass; a power of two.
    pub rows: usize,
    /// Where the embedding table is kept; when streaming it stays on the host.
    pub embedding: Placement,
    /// Hold one block at a time on the device.
    pub stream: bool,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self { context: 2048, windows: 40, rows: 512, embedding: Placement::Device, stream: false }
    }
}

/// The result.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The statistics.
    pub summary: Summary,
    /// Tokens in a window.
    pub context: usize,
}

/// Told what is being done, how much of it is done, and how much there is.
pub type Progress<'a> = dyn FnMut(&'static str, usize, usize) + 'a;

/// The tokens of the texts in a `.parquet` or `.txt` file, joined by one newline, without special tokens, by the
/// tokenizer of `model`.
///
/// # Errors
/// As [`dataset::texts`] and [`Tokenizer::load`]; [`Error::File`] with the number if there are fewer than two tokens.
pub fn text_tokens(model: &Path, data: &Path, column: Option<&str>) -> Result<Vec<u32>> {
    let tokenizer = Tokenizer::load(model)?;
    let mut joined = String::new();
    for (index, text) in dataset::texts(data, column)?.enumerate() {
        if index > 0 {
            joined.push('\n');
        }
        joined += &text?;
    }
    let tokens = tokenizer.encode(&joined, false)?;
    if tokens.len() < 2 {
        let message = format!("{} tokens of text where at least 2 are needed to score one", tokens.len());
        return Err(Error::file(data, message));
    }
    Ok(tokens)
}

/// Scores `tokens` by the model in directory `model`, beside the one in `reference` if there is one.
///
/// # Errors
/// [`Error::Argument`] for windows of fewer than two tokens, and for a reference with another vocabulary; as
/// [`Scores`], the files and the device report.
pub fn evaluate(
    device: &Device,
    model: &Path,
    reference: Option<&Path>,
    tokens: &[u32],
    options: EvalOptions,
    progress: &mut Progress<'_>,
) -> Result<Evaluation> {
    let config = LlamaConfig::load(model)?;
    let mut limit = config.max_position_embeddings;
    if let Some(reference) = reference {
        let other = LlamaConfig::load(reference)?;
        if other.vocab_size != config.vocab_size {
            let message = format!(
                "has {} tokens where the model has {}; only models with the same tokens can be compared",
                other.vocab_size, config.vocab_size
            );
            return Err(Error::argument("--reference", message));
        }
        limit = limit.min(other.max_position_embeddings);
    }
    let context = options.context.min(limit).min(tokens.len());
    if context < 2 {
        let message = format!(
            "windows of {context} tokens ({} asked for, {limit} at most, {} in the text); a score needs 2",
            options.context,
            tokens.len()
        );
        return Err(Error::argument("--context", message));
    }
    let options = EvalOptions { context, ..options };
    let windows: Vec<&[u32]> = windows(tokens, context, options.windows).collect();
    let mut open = |directory, labels: [&'static str; 2]| -> Result<Box<dyn Source>> {
        Ok(if options.stream {
            Box::new(Streaming::run(device, directory, &windows, options, &mut |done, all| {
                progress(labels[1], done, all);
            })?)
        } else {
            Box::new(Whole::load(device, directory, options, &mut |done, all| {
                progress(labels[0], done, all);
            })?)
        })
    };
    let labels = ["loading the reference", "running the reference"];
    let mut reference = reference.map(|directory| open(directory, labels)).transpose()?;
    let mut model = open(model, ["loading the model", "running the model"])?;

    let mut scores = Scores::new(config.vocab_size, reference.is_some());
    let room = RowScores::new(device, model.rows())?;
    for (index, window) in windows.iter().enumerate() {
        score_window(&mut scores, &room, (index, window), model.as_mut(), reference.as_mut())?;
        progress("scoring", index + 1, windows.len());
    }
    Ok(Evaluation { summary: scores.summary()?, context })
}

/// Both models side by side, slice by slice; the device is waited for after each chunk.
fn score_window(
    scores: &mut Scores,
    room: &RowScores,
    (index, window): (usize, &[u32]),
    model: &mut dyn Source,
    mut reference: Option<&mut Box<dyn Source>>,
) -> Result<()> {
    scores.begin_window(window)?;
    let rows = model.rows();
    for (chunk, tokens) in window.chunks(rows).enumerate() {
        let first = chunk * rows;
        room.set_targets(&targets(window, first, tokens.len()))?;
        model.chunk(index, first, tokens)?;
        if let Some(reference) = &mut reference {
            reference.chunk(index, first, tokens)?;
        }
        let step = model.slice_rows();
        for start in (0..tokens.len()).step_by(step) {
            let slice = start..(start + step).min(tokens.len());
            let logits = model.logits(slice.clone())?;
            let beside = reference.as_mut().map(|reference| reference.logits(slice.clone())).transpose()?;
            let mut list = CommandList::new(logits.device(), "scores");
            score(&mut list, logits, beside, slice.len(), (room, start))?;
            list.run()?;
        }
        scores.push(&room.read(tokens.len())?)?;
    }
    Ok(())
}
