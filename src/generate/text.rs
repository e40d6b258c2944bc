//! One text of a batch: its tokens, what of its text is certain, and why it ended.

use std::time::Duration;

use super::generator::Settings;
use super::stop::StopMatcher;
use crate::Result;
use crate::formats::tokenizer::{TextStream, Tokenizer};

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

/// A text as far as it has come.
pub struct Text<'a> {
    stop: StopMatcher,
    stream: Option<TextStream<'a>>,
    ids: Vec<u32>,
    /// Most tokens, and why there are no more of them.
    most: (usize, Finish),
    finish: Option<Finish>,
    decode_time: Duration,
}

impl<'a> Text<'a> {
    /// The text after `prompt`, in a cache of `context` tokens.
    ///
    /// # Errors
    /// As [`StopMatcher::new`].
    pub(super) fn new(
        tokenizer: &'a Tokenizer,
        prompt: &[u32],
        settings: &Settings,
        context: usize,
    ) -> Result<Self> {
        let room = context.saturating_sub(prompt.len());
        let tokens = (settings.tokens, Finish::Tokens);
        let most = if settings.tokens <= room { tokens } else { (room, Finish::Context) };
        let mut text = Self {
            stop: StopMatcher::new(settings.end_tokens.clone(), settings.stop.clone())?,
            stream: Some(tokenizer.stream_after(prompt)),
            ids: Vec::new(),
            most,
            finish: None,
            decode_time: Duration::ZERO,
        };
        text.check_room();
        Ok(text)
    }

    /// The tokens so far, an end token included.
    pub fn token_ids(&self) -> &[u32] {
        &self.ids
    }

    /// Why it ended; `None` while it goes on, and after an error.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// Time from its first token to its last.
    pub fn decode_time(&self) -> Duration {
        self.decode_time
    }

    /// Most tokens that it can have.
    pub(super) fn most(&self) -> usize {
        self.most.0
    }

    fn check_room(&mut self) {
        if self.ids.len() >= self.most.0 {
            self.finish = Some(self.most.1);
        }
    }

    /// Takes the next token, chosen so long after the first one; the text that is certain now.
    ///
    /// # Errors
    /// As the tokenizer reports.
    pub(super) fn push(&mut self, id: u32, since_first: Duration) -> Result<String> {
        self.ids.push(id);
        self.decode_time = since_first;
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
        Ok(text)
    }
}
