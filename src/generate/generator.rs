//! Texts continued token by token: the prompts in chunks, then one token of each text a step, several steps submitted ahead
//! of the one whose tokens are read.
//!
//! Tokens past the end of a text are never shown, and what they left in the cache is written over by the next text. Text is
//! not tokenized here, and where pieces of text go is the caller's business.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::SamplerSettings;
use super::text::Text;
use crate::formats::tokenizer::Tokenizer;
use crate::model::{Choice, DecodeRow, Llama};
use crate::{Error, Result};

/// Steps in flight unless asked otherwise: one runs, one waits, one is being recorded.
pub const IN_FLIGHT: usize = 3;

/// How to continue a prompt.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most tokens to generate.
    pub tokens: usize,
    /// How to choose them.
    pub sampling: SamplerSettings,
    /// Ids that end a text.
    pub end_tokens: Vec<u32>,
    /// Strings that end a text and are not part of it.
    pub stop: Vec<String>,
    /// Steps submitted before the tokens of the first of them are read; [`Llama::most_in_flight`] is the most. Changes
    /// no text.
    pub in_flight: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tokens: 0,
            sampling: SamplerSettings::default(),
            end_tokens: Vec::new(),
            stop: Vec::new(),
            in_flight: IN_FLIGHT,
        }
    }
}

/// Where a text of a batch begins.
#[derive(Clone, Copy, Debug)]
pub struct Start<'p> {
    /// Token ids, special tokens included.
    pub prompt: &'p [u32],
    /// Takes the place of the settings' seed.
    pub seed: u64,
}

/// One generated token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which text of the batch it belongs to, from 0.
    pub row: usize,
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

/// Continues prompts together, each in a slot of its own; an iterator over the generated tokens, those of one step in the
/// order of the texts. After an error it ends.
pub struct Generator<'a> {
    model: &'a mut Llama,
    texts: Vec<Text<'a>>,
    /// Tokens read and not yet given out.
    pieces: VecDeque<Piece>,
    in_flight: usize,
    /// Steps submitted and read so far.
    submitted: usize,
    read: usize,
    failed: bool,
    prompt_time: Duration,
    /// When the first tokens were read.
    first: Instant,
}

impl<'a> Generator<'a> {
    /// Runs the token ids of one prompt, special tokens included, through `model`, up to the first token.
    ///
    /// # Errors
    /// As [`Generator::batch`].
    pub fn new(
        model: &'a mut Llama,
        tokenizer: &'a Tokenizer,
        prompt: &[u32],
        settings: &Settings,
    ) -> Result<Self> {
        let seed = settings.sampling.seed;
        Self::batch(model, tokenizer, &[Start { prompt, seed }], settings)
    }

    /// Runs prompts through `model`, up to the first token of each.
    ///
    /// # Errors
    /// [`Error::Argument`] as [`check_prompt`] and [`Llama::begin`], and for settings out of range; [`Error::Numerical`] when
    /// the model's scores are not finite; as the device reports.
    pub fn batch(
        model: &'a mut Llama,
        tokenizer: &'a Tokenizer,
        starts: &[Start<'_>],
        settings: &Settings,
    ) -> Result<Self> {
        let context = model.cache_size().context;
        let mut texts = Vec::with_capacity(starts.len());
        let mut rows = Vec::with_capacity(starts.len());
        for &Start { prompt, seed } in starts {
            check_prompt(prompt.len(), context)?;
            texts.push(Text::new(tokenizer, prompt, settings, context)?);
            rows.push(DecodeRow {
                prompt,
                cached: 0,
                sampling: SamplerSettings { seed, ..settings.sampling },
            });
        }
        let started = Instant::now();
        model.begin(&rows)?;
        let in_flight = settings.in_flight.clamp(1, model.most_in_flight());
        let mut generator = Self {
            model,
            texts,
            pieces: VecDeque::new(),
            in_flight,
            submitted: 1,
            read: 0,
            failed: false,
            prompt_time: Duration::ZERO,
            first: started,
        };
        let choices = generator.next_choices()?;
        generator.first = Instant::now();
        generator.prompt_time = generator.first - started;
        generator.add(&choices)?;
        Ok(generator)
    }

    /// The texts, in the order of their beginnings.
    pub fn texts(&self) -> &[Text<'a>] {
        &self.texts
    }

    /// Time from the prompts to the first tokens.
    pub fn prompt_time(&self) -> Duration {
        self.prompt_time
    }

    /// Time spent on all tokens but the first of each text.
    pub fn decode_time(&self) -> Duration {
        self.texts.iter().map(Text::decode_time).max().unwrap_or_default()
    }

    /// Steps that are submitted before the tokens of the first of them are read.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// What the oldest step chose, with the steps after it submitted.
    fn next_choices(&mut self) -> Result<Vec<Choice>> {
        let going = self.texts.iter().filter(|text| text.finish().is_none());
        let most = going.map(Text::most).max().unwrap_or(0);
        while self.submitted < most && self.model.in_flight() < self.in_flight {
            self.model.step()?;
            self.submitted += 1;
        }
        self.model.choices()
    }

    /// Adds a step's tokens to their texts.
    fn add(&mut self, choices: &[Choice]) -> Result<()> {
        let since_first = self.first.elapsed();
        let step = self.read;
        self.read += 1;
        for (row, (text, choice)) in self.texts.iter_mut().zip(choices).enumerate() {
            if text.finish().is_some() {
                continue;
            }
            let Choice::Token(id) = *choice else {
                let message = format!(
                    "not all scores of text {row} at token {step} are finite; check the model with `exlay selftest`"
                );
                return Err(Error::Numerical { place: "logits".into(), message });
            };
            let shown = text.push(id, since_first)?;
            self.pieces.push_back(Piece { row, id, text: shown });
            if text.finish().is_some() {
                self.model.retire(row)?;
            }
        }
        Ok(())
    }
}

impl Iterator for Generator<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(piece) = self.pieces.pop_front() {
            return Some(Ok(piece));
        }
        if self.failed || self.texts.iter().all(|text| text.finish().is_some()) {
            return None;
        }
        let taken = self.next_choices().and_then(|choices| self.add(&choices));
        if let Err(error) = taken {
            self.failed = true;
            return Some(Err(error));
        }
        self.pieces.pop_front().map(Ok)
    }
}
