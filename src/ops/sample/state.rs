//! What the sampling kernels know of each row, and the room they work in.

use super::settings::{RowSettings, SamplerSettings};
use super::{BUCKETS, GROUP, LARGEST_VOCABULARY, RING};
use crate::gpu::{Buffer, Device};
use crate::{Error, Result};

/// Most rows that choose at a time.
pub const MOST_ROWS: usize = 8;

/// What a row chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This token.
    Token(u32),
    /// None: its scores are not all finite. The row is not in use any more.
    NotFinite,
    /// None: it was not in use.
    Unused,
}

impl Choice {
    /// From a word of the log; see `shaders/common/sampling.wgsl`.
    pub fn from_word(word: u32) -> Self {
        match word {
            u32::MAX => Self::Unused,
            0xffff_fffe => Self::NotFinite,
            token => Self::Token(token),
        }
    }
}

/// How a row begins.
#[derive(Clone, Copy, Debug)]
pub struct RowStart<'a> {
    /// How it chooses.
    pub settings: SamplerSettings,
    /// Tokens that occurred, each below the vocabulary.
    pub history: &'a [u32],
    /// The row is not in use any more when it reaches this position.
    pub context: usize,
}

/// Buffers of the rows of a batch.
pub struct SampleState {
    pub(super) settings: Buffer,
    pub(super) seen: Buffer,
    pub(super) peaks: Buffer,
    pub(super) keys: Buffer,
    pub(super) staged: Buffer,
    pub(super) histogram: Buffer,
    pub(super) ordered: Buffer,
    choices: Buffer,
    rows: usize,
    vocabulary: usize,
}

impl SampleState {
    /// Room for `rows` rows (at most [`MOST_ROWS`]) of `vocabulary` tokens: about 24 bytes a row and token.
    ///
    /// # Errors
    /// [`Error::Shape`] for more rows or tokens than that; as [`Device::alloc`].
    pub fn new(device: &Device, rows: usize, vocabulary: usize) -> Result<Self> {
        if rows > MOST_ROWS || vocabulary == 0 || vocabulary > LARGEST_VOCABULARY {
            let message = format!(
                "{rows} rows of {vocabulary} tokens where {MOST_ROWS} of 1 to {LARGEST_VOCABULARY} are the most"
            );
            return Err(Error::shape("sampling", message));
        }
        let words = |label: &str, words: usize| device.alloc(label, 4 * (rows * words) as u64);
        Ok(Self {
            settings: words("sampling settings", size_of::<RowSettings>() / 4)?,
            seen: words("tokens seen", vocabulary.div_ceil(32))?,
            peaks: words("score peaks", 4 * vocabulary.div_ceil(GROUP as usize))?,
            keys: words("score keys", vocabulary)?,
            staged: words("score weights", 2 * vocabulary)?,
            histogram: words("score histogram", histogram_words())?,
            ordered: words("scores in order", 3 * vocabulary)?,
            choices: words("choices", 2 + RING as usize)?,
            rows,
            vocabulary,
        })
    }

    /// Rows that there is room for.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens to choose from.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Words with a bit for each token.
    pub(super) fn seen_words(&self) -> usize {
        self.vocabulary.div_ceil(32)
    }

    /// The log: steps of each row, then a ring of choices; see [`choice_offset`].
    pub fn choices(&self) -> &Buffer {
        &self.choices
    }

    /// Sets the first rows, before the first choice of their texts.
    ///
    /// # Errors
    /// [`Error::Shape`] for more rows than room or a token beyond the vocabulary; as [`Device::write`].
    pub fn set(&self, rows: &[RowStart<'_>]) -> Result<()> {
        if rows.len() > self.rows {
            return Err(Error::shape("sampling", format!("{} rows in {}", rows.len(), self.rows)));
        }
        let words = self.seen_words();
        let mut seen = vec![0_u32; rows.len() * words];
        for (index, row) in rows.iter().enumerate() {
            for &token in row.history {
                if token as usize >= self.vocabulary {
                    let message = format!("token id {token} where the vocabulary has {}", self.vocabulary);
                    return Err(Error::shape("sampling", message));
                }
                seen[index * words + token as usize / 32] |= 1 << (token % 32);
            }
        }
        let settings: Vec<_> = rows.iter().map(|row| RowSettings::new(&row.settings, row.context)).collect();
        let device = self.settings.device();
        device.write(&self.settings, 0, &settings)?;
        device.write(&self.seen, 0, &seen)?;
        device.write(&self.choices, 0, &vec![0_u32; 2 * self.rows])
    }
}

/// Words of the histogram of a row.
fn histogram_words() -> usize {
    4 * BUCKETS as usize + 2
}

/// Where in the log the choices of `rows` rows at step `tick` begin, in bytes; those of the last [`super::RING`] steps
/// are there.
pub fn choice_offset(rows: usize, tick: u64) -> u64 {
    4 * rows as u64 * (2 + tick % u64::from(RING))
}
