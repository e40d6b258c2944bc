//! Choosing the next token of each row on the device; see `shaders/sample_*.wgsl`.
//!
//! Greedy rows take two dispatches, sampled ones four. The choice becomes the row's next input and the row's position
//! advances, so that the next step can run without the host; what was chosen is in a log, to be read when it is convenient.

mod settings;
mod state;

pub use settings::SamplerSettings;
pub use state::{Choice, MOST_ROWS, RowStart, SampleState, choice_offset};

use crate::gpu::{Buffer, CommandList, Variant};
use crate::{Error, Result};

/// Lanes of a workgroup.
const LANES: u32 = 256;

/// Tokens of a workgroup where many share a row.
const GROUP: u32 = 1024;

/// Parts of the range of scores; a multiple of [`LANES`].
const BUCKETS: u32 = 1024;

/// Steps that the log holds.
pub const RING: u32 = 64;

/// Weights are 42 bits wide and so many of them add up in 64.
pub const LARGEST_VOCABULARY: usize = 1 << 21;

/// Scores of a step, possibly in parts that are still to be added.
#[derive(Clone, Copy)]
pub struct Logits<'a> {
    /// f32 [ks, rows, cols].
    pub partial: &'a Buffer,
    /// Parts: a power of two, at most 16.
    pub ks: usize,
    /// Values in a row, the vocabulary first.
    pub cols: usize,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ScoreParams {
    vocabulary: u32,
    cols: u32,
    rows: u32,
    ks: u32,
    groups: u32,
    seen_words: u32,
    keep: u32,
}

fn grouped(stem: &'static str) -> Variant {
    Variant::new(stem).constant("WG", LANES).constant("GROUP", GROUP).constant("BUCKETS", BUCKETS)
}

fn last(stem: &'static str) -> Variant {
    Variant::new(stem).constant("WG", LANES).constant("RING", RING)
}

fn choose_variant() -> Variant {
    last("sample_choose").constant("BUCKETS", BUCKETS)
}

pub(super) fn variants() -> Vec<Variant> {
    let grouped = ["sample_scores", "sample_weights", "sample_order"].map(grouped);
    grouped.into_iter().chain([last("sample_greedy"), choose_variant()]).collect()
}

/// Chooses a token for each of the first `rows` rows that is in use and puts it in the place of the row's token; its
/// position goes up by one, or the row is not in use any more at the end of its context. With `greedy` all rows must have
/// the temperature 0.
///
/// # Errors
/// [`Error::Shape`] when a buffer is too small; as [`CommandList::dispatch`].
pub fn sample(
    list: &mut CommandList,
    logits: Logits<'_>,
    state: &SampleState,
    positions: &Buffer,
    tokens: &Buffer,
    rows: usize,
    greedy: bool,
) -> Result<()> {
    let Logits { partial, ks, cols } = logits;
    let vocabulary = state.vocabulary();
    let fits = rows <= state.rows()
        && cols >= vocabulary
        && ks.is_power_of_two()
        && ks <= 16
        && partial.bytes() >= 4 * (ks * rows * cols) as u64
        && positions.bytes().min(tokens.bytes()) >= 4 * rows as u64;
    if !fits {
        let message = format!(
            "{rows} rows of {ks} x {cols} scores in {} bytes, for {} rows of {vocabulary} tokens",
            partial.bytes(),
            state.rows()
        );
        return Err(Error::shape("sample", message));
    }
    let groups = vocabulary.div_ceil(GROUP as usize) as u32;
    let (rows, vocabulary, seen_words) = (rows as u32, vocabulary as u32, state.seen_words() as u32);
    let SampleState { settings, seen, peaks, keys, staged, histogram, ordered, .. } = state;
    let device = list.device().clone();
    let kernel = |stem| device.kernel(&grouped(stem));
    let params = ScoreParams {
        vocabulary,
        cols: cols as u32,
        rows,
        ks: ks as u32,
        groups,
        seen_words,
        keep: u32::from(!greedy),
    };
    let grid = [groups, rows, 1];
    let buffers = [partial, settings, positions, seen, peaks, keys, histogram];
    list.dispatch(&kernel("sample_scores")?, &buffers, &params, grid)?;
    let rest = [peaks, settings, positions, tokens, seen, state.choices()];
    if greedy {
        let kernel = device.kernel(&last("sample_greedy"))?;
        return list.dispatch(&kernel, &rest, &[rows, groups, seen_words], [rows, 1, 1]);
    }
    let buffers = [keys, settings, positions, peaks, staged, histogram];
    list.dispatch(&kernel("sample_weights")?, &buffers, &[vocabulary, groups], grid)?;
    let buffers = [keys, settings, positions, staged, histogram, ordered];
    list.dispatch(&kernel("sample_order")?, &buffers, &vocabulary, grid)?;
    let kernel = device.kernel(&choose_variant())?;
    let buffers: Vec<_> = rest.into_iter().chain([histogram, ordered]).collect();
    list.dispatch(&kernel, &buffers, &[rows, groups, seen_words, vocabulary], [rows, 1, 1])
}
