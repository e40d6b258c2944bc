//! Text to token ids and back, through a model's `tokenizer.json`.
//!
//! Both kinds of Llama are served: byte-level BPE, and Llama 2's with ▁ for a space and tokens for
//! single bytes. Prompts and chat templates are not known here.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer as Inner;

use super::json::{Object, load_object};
use crate::error::{Error, Result};

/// Tokens that a stream holds back at most while they end within a character.
const LONGEST_HELD: usize = 256;

/// What stands for bytes that are no UTF-8, and for a character that is not complete.
const REPLACEMENT: char = '\u{fffd}';

/// A model's tokenizer.
pub struct Tokenizer {
    inner: Inner,
    vocab_size: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    /// Whether to begin and end a text with BOS and EOS; `None` leaves it to `tokenizer.json`.
    add_bos: Option<bool>,
    add_eos: Option<bool>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and `tokenizer_config.json` if there is one, in `directory`.
    ///
    /// # Errors
    /// If `tokenizer.json` is missing (says how to make one where there is a `tokenizer.model`) or
    /// either file is damaged.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let path = directory.join("tokenizer.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(missing(directory, &path));
            }
            Err(error) => return Err(Error::io(&path)(error)),
        };
        let damaged = |error| Error::file(&path, format!("is no tokenizer: {error}; copy the file again"));
        let mut inner = Inner::from_bytes(text).map_err(damaged)?;
        inner.with_truncation(None).map_err(damaged)?;
        inner.with_padding(None);
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let mut tokenizer = Self { inner, vocab_size, bos: None, eos: None, add_bos: None, add_eos: None };
        if let Some(config) = load_object(&directory.join("tokenizer_config.json"))? {
            tokenizer.configure(&config)?;
        }
        Ok(tokenizer)
    }

    /// `add_bos_token` and `add_eos_token` count for the classes of Llama's own tokenizer only, as in
    /// transformers; every other class goes by the post-processor in `tokenizer.json`.
    fn configure(&mut self, config: &Object) -> Result<()> {
        let id = |key: &str| {
            let token = match config.get(key)? {
                Value::Object(token) => token.get("content")?.as_str()?,
                token => token.as_str()?,
            };
            self.inner.token_to_id(token)
        };
        (self.bos, self.eos) = (id("bos_token"), id("eos_token"));
        let class: Option<String> = config.value("tokenizer_class", "a name")?;
        if class.is_some_and(|class| matches!(class.as_str(), "LlamaTokenizer" | "LlamaTokenizerFast")) {
            self.add_bos = config.flag("add_bos_token")?;
            self.add_eos = config.flag("add_eos_token")?;
        }
        Ok(())
    }

    /// The ids of a text. Special tokens written out in it become their ids; with `add_special` the
    /// model's own ones (usually BOS) are added.
    ///
    /// # Errors
    /// If the tokenizer has no token for a part of the text and none for unknown parts.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let by_flags = self.add_bos.is_some() || self.add_eos.is_some();
        let encoding = self
            .inner
            .encode_fast(text, add_special && !by_flags)
            .map_err(|error| Error::argument("text", format!("cannot be tokenized: {error}")))?;
        let ids = encoding.get_ids();
        if !(add_special && by_flags) {
            return Ok(ids.to_vec());
        }
        let bos = self.bos.filter(|_| self.add_bos.unwrap_or(true));
        let eos = self.eos.filter(|_| self.add_eos.unwrap_or(false));
        Ok(bos.into_iter().chain(ids.iter().copied()).chain(eos).collect())
    }

    /// The text of these ids without special tokens. An id without a token adds nothing; bytes that
    /// are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// If the decoder in `tokenizer.json` fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner
            .decode(ids, true)
            .map_err(|error| Error::argument("tokenizer.json", format!("its decoder failed: {error}")))
    }

    /// A stream of text whose pieces, joined, are [`Tokenizer::decode`] of all its ids.
    pub fn stream(&self) -> TextStream<'_> {
        self.stream_after(&[])
    }

    /// A stream that goes on after the ids of a prompt: joined to the prompt's text, its pieces are the
    /// text of all ids. Llama 2's kind needs this to keep the space before the first word.
    pub fn stream_after(&self, prompt: &[u32]) -> TextStream<'_> {
        TextStream { tokenizer: self, window: prompt.to_vec(), given: prompt.len(), sent: None }
    }

    /// The highest id plus one: the rows that a model's embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Beginning of sequence, where `tokenizer_config.json` names one.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.bos
    }

    /// End of sequence, where `tokenizer_config.json` names one.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.eos
    }
}

fn missing(directory: &Path, path: &Path) -> Error {
    if !directory.join("tokenizer.model").exists() {
        return Error::file(path, "is missing; copy it from the model's repository");
    }
    Error::file(
        path,
        "is missing, and tokenizer.model alone cannot be read; make one with \
         `pip install transformers sentencepiece` and `python3 -c \"from transformers import AutoTokenizer as T; \
         T.from_pretrained('DIR').save_pretrained('DIR')\"`, DIR being the model's directory",
    )
}

/// Turns ids into text as they come, in whole characters.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Ids whose text decides what comes next: those sent last, for context, and those held back.
    window: Vec<u32>,
    /// How many at the front of `window` have been given out completely.
    given: usize,
    /// The text of `window` that was given out; `None` until first needed.
    sent: Option<String>,
}

impl TextStream<'_> {
    /// Takes the next id and returns the text that is now certain, if any.
    ///
    /// # Errors
    /// As for [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        let sent = self.take_sent()?;
        self.window.push(id);
        let text = self.tokenizer.decode(&self.window)?;
        let held = self.window.len() - self.given;
        if text.ends_with(REPLACEMENT) && held < LONGEST_HELD {
            let certain = text.trim_end_matches(REPLACEMENT);
            let piece = certain.strip_prefix(&sent).unwrap_or_default().to_owned();
            self.sent = Some(if piece.is_empty() { sent } else { certain.to_owned() });
            return Ok(Some(piece).filter(|piece| !piece.is_empty()));
        }
        let piece = self.rest(&text, &sent)?;
        if piece.is_empty() {
            self.sent = Some(sent);
            return Ok(None);
        }
        self.window.drain(..self.given);
        self.given = self.window.len();
        self.sent = None;
        Ok(Some(piece))
    }

    /// Returns what was held back; an incomplete character is U+FFFD.
    ///
    /// # Errors
    /// As for [`Tokenizer::decode`].
    pub fn finish(mut self) -> Result<String> {
        let sent = self.take_sent()?;
        let text = self.tokenizer.decode(&self.window)?;
        self.rest(&text, &sent)
    }

    fn take_sent(&mut self) -> Result<String> {
        match self.sent.take() {
            Some(sent) => Ok(sent),
            None => self.tokenizer.decode(&self.window[..self.given]),
        }
    }

    /// What of the window's `text` was not sent. Where new bytes have made the text before them invalid,
    /// which is sent already, the new ids are decoded by themselves.
    fn rest(&self, text: &str, sent: &str) -> Result<String> {
        match text.strip_prefix(sent) {
            Some(rest) => Ok(rest.to_owned()),
            None => self.tokenizer.decode(&self.window[self.given..]),
        }
    }
}
