//! Stage 1: calibration text to rows of tokens.

use std::path::Path;

use crate::formats::dataset::texts;
use crate::formats::tokenizer::Tokenizer;
use crate::random::Random;
use crate::{Error, Result};

/// Takes `rows` rows of `length` tokens from a file: each record is tokenized by itself, without special tokens, and
/// appended; nothing marks the borders between records (ExLlamaV2 0.3.2 does the same).
///
/// # Errors
/// As the file and the tokenizer report; [`Error::Argument`] when there are too few tokens, with both numbers, or one is
/// not below `vocabulary`.
pub fn token_rows(
    tokenizer: &Tokenizer,
    file: &Path,
    column: Option<&str>,
    (rows, length): (usize, usize),
    vocabulary: usize,
) -> Result<Vec<Vec<u32>>> {
    let wanted = rows.saturating_mul(length);
    let mut tokens: Vec<u32> = Vec::new();
    for text in texts(file, column)? {
        tokens.extend(tokenizer.encode(&text?, false)?);
        if tokens.len() >= wanted {
            break;
        }
    }
    if tokens.len() < wanted {
        let message = format!(
            "{} holds {} tokens, {rows} rows of {length} need {wanted}; use fewer (--rows, --length, --measurement-rows, \
             --measurement-length) or a larger file",
            file.display(),
            tokens.len()
        );
        return Err(Error::argument("--calibration", message));
    }
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
        let message = format!(
            "the tokenizer yields id {token}, the model has {vocabulary}; their files do not belong together"
        );
        return Err(Error::argument("--model", message));
    }
    tokens.truncate(wanted);
    Ok(tokens.chunks(length).map(<[u32]>::to_vec).collect())
}

/// Rows of random tokens.
pub(super) fn random_rows(seed: u64, (rows, length): (usize, usize), vocabulary: usize) -> Vec<Vec<u32>> {
    let random = Random::new(seed, "calibration");
    let token = |index: usize| random.below(index as u64, vocabulary) as u32;
    (0..rows).map(|row| (row * length..(row + 1) * length).map(token).collect()).collect()
}
