//! A text continued token by token: the prompt in chunks, then one token a pass.
//!
//! Text is not tokenized here, and where pieces of text go is the caller's business.

use std::time::{Duration, Instant};

use super::SamplerSettings;
use super::stop::StopMatcher;
use crate::formats::tokenizer::{TextStream, Tokenizer};
use crate::model::{Llama, Row};
use crate::reference::sample::Sampler;
use crate::{Error, Result};

/// How to continue a prompt.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Most tokens to generate.
    pub tokens: usize,
    /// How to choose them.
    pub sampling: SamplerSettings,
    /// Ids that end a text.
    pub end_tokens: Vec<u32>,
    /// Strings that end a text and are not part of it.
    pub stop: Vec<String>,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model chose an end token.
    EndToken,
    /// A stop string came up.
    StopString,
    /// As many tokens as were asked for.
    Tokens,
    /// Prompt and text fill the cache.
    Context,
}

/// One generated token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its id.
    pub id: u32,
    /// Text that is certain now, in whole characters; often that of this token, empty while it could be the beginning
    /// of a stop string.
    pub text: String,
}

/// Checks that a prompt fits into a context, before a model is loaded for it.
///
/// # Errors
/// [`Error::Argument`] with both numbers if it does not, or if there is no token to begin with.
pub fn check_prompt(prompt: usize, context: usize) -> Result<()> {
    if prompt == 0 {
        let message = "is empty, and this model's tokenizer adds no token to begin with; write some text";
        return Err(Error::argument("--prompt", message));
    }
    if prompt > context {
        let message = format!(
            "has {prompt} tokens, more than the context of {context}; shorten it, or choose a longer --context if the \
             model allows it"
        );
        return Err(Error::argument("--prompt", message));
    }
    Ok(())
}

/// Continues one prompt in slot 0 of a model; an iterator over the generated tokens. After an error it ends.
pub struct Generator<'a> {
    model: &'a mut Llama,
    sampler: Sampler,
    stop: StopMatcher,
    stream: Option<TextStream<'a>>,
    /// Prompt and generated tokens.
    history: Vec<u32>,
    prompt: usize,
    most: usize,
    /// Scores of the next token.
    logits: Vec<f32>,
    finish: Option<Finish>,
    prompt_time: Duration,
    decode_time: Duration,
}

impl<'a> Generator<'a> {
    /// Runs the token ids of a prompt, special tokens included, through `model`.
    ///
    /// # Errors
    /// [`Error::Argument`] as [`check_prompt`], and for settings or token ids out of range; as the device reports.
    pub fn new(
        model: &'a mut Llama,
        tokenizer: &'a Tokenizer,
        prompt: &[u32],
        settings: &Settings,
    ) -> Result<Self> {
        check_prompt(prompt.len(), model.cache_size().context)?;
        let SamplerSettings { temperature, top_k, top_p, min_p, repetition_penalty, seed } =
            settings.sampling;
        let sampler = Sampler { temperature, top_k, top_p, min_p, repetition_penalty, seed };
        let stop = StopMatcher::new(settings.end_tokens.clone(), settings.stop.clone())?;
        let started = Instant::now();
        let rows: Vec<Row> =
            (0..).zip(prompt).map(|(position, &token)| Row { token, slot: 0, position }).collect();
        let logits = model.forward(&rows, &[rows.len() - 1])?;
        let prompt_time = started.elapsed();
        let mut generator = Self {
            model,
            sampler,
            stop,
            stream: Some(tokenizer.stream_after(prompt)),
            history: prompt.to_vec(),
            prompt: prompt.len(),
            most: settings.tokens,
            logits,
            finish: None,
            prompt_time,
            decode_time: Duration::ZERO,
        };
        generator.check_room();
        Ok(generator)
    }

    /// The tokens so far, an end token included.
    pub fn token_ids(&self) -> &[u32] {
        &self.history[self.prompt..]
    }

    /// Why the text ended; `None` while it goes on, and after an error.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// Time from the prompt to the first logits.
    pub fn prompt_time(&self) -> Duration {
        self.prompt_time
    }

    /// Time spent on all tokens but the first.
    pub fn decode_time(&self) -> Duration {
        self.decode_time
    }

    /// Ends the text if there is no room for another token.
    fn check_room(&mut self) {
        if self.token_ids().len() >= self.most {
            self.finish = Some(Finish::Tokens);
        } else if self.history.len() >= self.model.cache_size().context {
            self.finish = Some(Finish::Context);
        }
    }

    fn step(&mut self) -> Result<Piece> {
        let started = Instant::now();
        let step = self.token_ids().len();
        if step > 0 {
            let position = self.history.len() - 1;
            let row = Row { token: self.history[position], slot: 0, position: position as u32 };
            self.logits = self.model.forward(&[row], &[0])?;
        }
        let id = self.sampler.choose(&self.logits, &self.history, step as u32).token;
        self.history.push(id);
        let mut text = String::new();
        if self.stop.is_end_token(id) {
            self.finish = Some(Finish::EndToken);
        } else {
            if let Some(stream) = &mut self.stream {
                text = self.stop.push(&stream.push(id)?.unwrap_or_default());
            }
            self.check_room();
        }
        if self.finish.is_some()
            && let Some(stream) = self.stream.take()
        {
            text += &self.stop.push(&stream.finish()?);
        }
        // A stop string counts even where another reason would have ended the text with the same token.
        if self.stop.stopped() {
            self.finish = Some(Finish::StopString);
        } else if self.finish.is_some() {
            text += &self.stop.finish();
        }
        if step > 0 {
            self.decode_time += started.elapsed();
        }
        Ok(Piece { id, text })
    }
}

impl Iterator for Generator<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finish.is_some() || self.stream.is_none() {
            return None;
        }
        let piece = self.step();
        if piece.is_err() {
            self.stream = None;
        }
        Some(piece)
    }
}
