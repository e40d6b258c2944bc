//! Calibration text that the model writes itself: rows of tokens sampled from the unquantized model with nothing cut off, so that
//! they are distributed as what it will say. Every other row of a chat model begins as its chat template begins a user's
//! message; the others begin with the token that begins a text. What a row goes on with after the end of a text is the
//! model's affair too.

use std::path::Path;

use super::conversion::Conversion;
use super::job::{Job, block_name};
use super::report::Reporter;
use super::state_file::{read_state, write_state};
use crate::formats::chat_template::{ChatTemplate, Message};
use crate::formats::tokenizer::Tokenizer;
use crate::generate::{Generator, SamplerSettings, Settings, Start};
use crate::gpu::Device;
use crate::model::{CacheSize, Llama, LoadOptions, Placement};
use crate::ops::cache::CachePrecision;
use crate::{Error, Result};

/// What tells such text from other text in a job.
pub(super) const IDENTITY: &str = "written by the model, made as version 1, seed 0";

/// Rows that are written together.
const TOGETHER: usize = 8;

/// Stands in a conversation for what the model is to write.
const HERE: &str = "\u{1}here\u{1}";

/// What the first part of a text and of a conversation is made of, in tokens.
struct Beginnings {
    text: Vec<u32>,
    chat: Option<Vec<u32>>,
}

impl Beginnings {
    fn of(directory: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let first = tokenizer.bos_token_id().or(tokenizer.eos_token_id());
        let Some(first) = first else {
            let message = "is needed: tokenizer_config.json names no token that begins or ends a text, so the model cannot \
                           write some itself; give a .parquet or .txt file";
            return Err(Error::argument("--calibration", message));
        };
        let chat = match ChatTemplate::load(directory)? {
            None => None,
            Some(template) => {
                let text = template.render(&[Message { role: "user", content: HERE }], false)?;
                let before =
                    text.split_once(HERE).map(|(before, _)| tokenizer.encode(before, false)).transpose()?;
                before.filter(|tokens| !tokens.is_empty())
            }
        };
        Ok(Self { text: vec![first], chat })
    }

    fn of_row(&self, row: usize) -> &[u32] {
        match &self.chat {
            Some(chat) if row % 2 == 1 => chat,
            _ => &self.text,
        }
    }
}

/// Rows of tokens, so many of such a length: those that an earlier run of the job wrote, and the rest from the model, which
/// is loaded for it and dropped.
///
/// # Errors
/// [`Error::Argument`] when nothing says how a text begins or a row is no longer than its beginning; as the files and the device
/// report, with what to do where the model does not fit.
pub(super) fn written_rows(
    device: &Device,
    conversion: &Conversion,
    job: &mut Job,
    (rows, length): (usize, usize),
    reporter: &mut dyn Reporter,
) -> Result<Vec<Vec<u32>>> {
    let directory = &conversion.model;
    let tokenizer = Tokenizer::load(directory)?;
    let beginnings = Beginnings::of(directory, &tokenizer)?;
    let longest = (0..2).map(|row| beginnings.of_row(row).len()).max().unwrap_or(0);
    if length <= longest {
        let message = format!(
            "{length} tokens, where a conversation begins with {longest}; use longer rows, or give -c FILE"
        );
        return Err(Error::argument("--length", message));
    }
    reporter.note(&format!(
        "Calibration: no file is given (-c), so the model writes {rows} rows of {length} tokens itself{}, seed 0; they are kept in {}",
        if beginnings.chat.is_some() { ", every other one as a chat" } else { "" },
        job.path(&block_name("text", 0)).parent().unwrap_or(directory).display()
    ));
    let mut model = None;
    let mut all: Vec<Vec<u32>> = Vec::with_capacity(rows);
    while all.len() < rows {
        reporter.progress("Writing text", all.len(), rows);
        let (first, count) = (all.len(), TOGETHER.min(rows - all.len()));
        let name = block_name("text", first / TOGETHER);
        if let Some(tokens) = stored(&job.path(&name), count, length)? {
            all.extend(tokens);
            continue;
        }
        let model = match &mut model {
            Some(model) => model,
            None => model.insert(load(device, directory, length)?),
        };
        let starts: Vec<Start<'_>> = (first..first + count)
            .map(|row| Start { prompt: beginnings.of_row(row), seed: row as u64 })
            .collect();
        let sampling = SamplerSettings { temperature: 1.0, ..SamplerSettings::default() };
        let settings = Settings { tokens: length, sampling, ..Settings::default() };
        let mut generator = Generator::batch(model, &tokenizer, &starts, &settings)?;
        generator.by_ref().try_for_each(|piece| piece.map(|_| ()))?;
        let texts = generator.texts().iter().zip(&starts);
        let tokens: Vec<Vec<u32>> = texts
            .map(|(text, start)| start.prompt.iter().chain(text.token_ids()).copied().take(length).collect())
            .collect();
        if tokens.iter().any(|row| row.len() != length) {
            return Err(Error::argument(
                "--calibration",
                "the model ended a text early; give a .parquet or .txt file",
            ));
        }
        write_state(job.claim(&name)?, KIND, bytemuck::cast_slice(&tokens.concat()))?;
        all.extend(tokens);
    }
    reporter.progress("Writing text", rows, rows);
    Ok(all)
}

const KIND: &str = "tokens";

/// Rows that an earlier run wrote.
fn stored(path: &Path, rows: usize, length: usize) -> Result<Option<Vec<Vec<u32>>>> {
    let Some(bytes) = read_state(path, KIND)? else { return Ok(None) };
    if bytes.len() != 4 * rows * length {
        return Ok(None);
    }
    let token = |bytes: &[u8]| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let tokens: Vec<u32> = bytes.chunks_exact(4).map(token).collect();
    Ok(Some(tokens.chunks(length).map(<[u32]>::to_vec).collect()))
}

fn load(device: &Device, directory: &Path, context: usize) -> Result<Llama> {
    let options = LoadOptions {
        rows: TOGETHER,
        cache: CacheSize { slots: TOGETHER, context },
        embedding: Placement::Device,
        precision: CachePrecision::Half,
    };
    Llama::load(device, directory, options, &mut |_, _| {}).map_err(|error| match error {
        Error::OutOfMemory { .. } | Error::Limit { .. } => {
            let message = format!(
                "the model must fit on the device in halves to write its own text: {error}; give -c FILE"
            );
            Error::argument("--calibration", message)
        }
        other => other,
    })
}
