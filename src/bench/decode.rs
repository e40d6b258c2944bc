//! The kernels of generating a token beside its products and norms: attention from a product's sums, and the choice of a token;
//! and what scores a text.

use super::entry::{Entry, Layer};
use super::forward::{cache, frequencies, state};
use super::fused::{left, order};
use super::products::empty;
use crate::gpu::{Arithmetic, Device};
use crate::ops::activation::Activation;
use crate::ops::attention_decode::{Decode, OwnKeys, Projections, attention_decode, scratch};
use crate::ops::attention_join::attention_join;
use crate::ops::cache::CachePrecision;
use crate::ops::group_gemv::MOST_ROWS;
use crate::ops::group_geometry::most_sums;
use crate::ops::kv_write::kv_write;
use crate::ops::residual_norm::Left;
use crate::ops::rope::RopeTable;
use crate::ops::sample::{Logits, RowStart, SampleState, SamplerSettings, sample};
use crate::ops::score::RowScores;
use crate::ops::{self, Tensor};
use crate::random::Random;
use crate::selftest::{AttentionDecode, Row, Sample, Score};

/// All of them for a layer.
pub(super) fn entries(device: &Device, layer: Layer) -> Vec<Entry> {
    let form = device.arithmetic();
    let mut entries = vec![
        attend(layer, 1, OwnKeys::New, form),
        // The last rows of a prompt.
        attend(layer, MOST_ROWS - 1, OwnKeys::Stored, form),
    ];
    let cuts = SamplerSettings {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.02,
        repetition_penalty: 1.1,
        ..SamplerSettings::default()
    };
    for rows in [1, MOST_ROWS] {
        entries.extend([SamplerSettings::default(), cuts].map(|settings| choose(layer, rows, settings)));
    }
    entries.push(scored(layer));
    entries
}

/// Rows at the last positions of a context, and what joins their splits for the next product.
fn attend(layer: Layer, rows: usize, own: OwnKeys, form: Arithmetic) -> Entry {
    let Layer { hidden, heads, kv_heads, dim, context, .. } = layer;
    let (cols, keys) = (heads * dim, kv_heads * dim);
    let columns = cols + 2 * keys;
    let sums = most_sums(hidden, columns);
    let case = AttentionDecode {
        rows: (context - rows..context).map(|position| Row::at(0, position)).collect(),
        slots: 1,
        pages_per_slot: context / ops::cache::PAGE,
        heads,
        kv_heads,
        dim,
        window: None,
        precision: CachePrecision::Half,
        sums,
        own,
        form,
    };
    let all = ["kv_write", "attention_decode", "attention_join"];
    let kernels = if own == OwnKeys::Stored { &all[..] } else { &all[1..] };
    let shape = format!("{rows} x {heads}/{kv_heads} heads of {dim}, {context} positions, {form}");
    // Sums of the projections and the order; keys and values are halves.
    let bytes = 4 * rows * (sums * columns + form.row_words(cols)) + 4 * cols + 4 * context * keys;
    let flops = 4 * rows * context * cols;
    Entry::new(kernels, shape, bytes, Some(flops), move |list, sets| {
        let device = list.device().clone();
        let rope = RopeTable::new(&device, &frequencies(dim), 1.0, context)?;
        let splits = empty(list, 1, scratch(rows, heads, kv_heads, dim, context))?;
        let (group, x) =
            (order(&device, cols)?, Activation::new(&device, form, rows * form.row_words(cols))?);
        for set in 0..sets {
            let (cache, state) = (cache(list, layer, set)?, state(list, rows, context)?);
            let partial = left(&device, rows, columns, sums, set)?;
            let decode = Decode { heads, rows, window: None, cache: &cache, state: &state, splits: &splits };
            let left = Left { partial: &partial, sums, columns };
            let from = Projections { left, key: cols, value: cols + keys, rope: &rope };
            if own == OwnKeys::Stored {
                kv_write(list, &decode, &from)?;
            }
            attention_decode(list, &decode, &from, own)?;
            attention_join(list, &decode, &group, &x)?;
        }
        Ok(())
    })
    .verified_by(case)
}

/// The next token out of a head's sums.
fn choose(layer: Layer, rows: usize, settings: SamplerSettings) -> Entry {
    /// So many tokens that no run of a list comes to the end of its context.
    const ENDLESS: usize = 1 << 30;
    let Layer { hidden, vocabulary, .. } = layer;
    let (ks, greedy) = (most_sums(hidden, vocabulary), settings.temperature == 0.0);
    let case = Sample { vocabulary, rows, ks, steps: 1, settings, spread: 2.0 };
    let all = ["sample_scores", "sample_greedy", "sample_weights", "sample_order", "sample_choose"];
    let kernels: Vec<&str> = if greedy { all[..2].to_vec() } else { [&all[..1], &all[2..]].concat() };
    let how = if greedy { "the likeliest" } else { "sampled" };
    let shape = format!("{rows} x {vocabulary} in {ks} parts, {how}");
    Entry::new(&kernels, shape, 4 * rows * ks * vocabulary, None, move |list, sets| {
        let device = list.device().clone();
        let tokens = device.upload("tokens", &vec![0_u32; rows])?;
        let positions = device.upload("positions", &vec![0_u32; rows])?;
        let state = SampleState::new(&device, rows, vocabulary)?;
        let starts = (0..rows).map(|_| RowStart { settings, history: &[1, 2, 3], context: ENDLESS });
        state.set(&starts.collect::<Vec<_>>())?;
        for set in 0..sets {
            let partial = left(&device, rows, vocabulary, ks, set)?;
            let logits = Logits { partial: partial.buffer(), ks, cols: vocabulary };
            sample(list, logits, &state, &positions, &tokens, rows, greedy)?;
        }
        Ok(())
    })
    .verified_by(case)
}

/// Scores of a prompt's rows beside a reference's.
fn scored(layer: Layer) -> Entry {
    let Layer { prompt: rows, vocabulary: cols, .. } = layer;
    let case = Score { rows, cols, apart: 0.01 };
    let bytes = rows * (8 * cols + 16);
    Entry::new(&["score"], format!("{rows} x {cols}"), bytes, None, move |list, sets| {
        let device = list.device().clone();
        let scores = RowScores::new(&device, rows)?;
        let target = |row: usize| Random::new(0, "targets").below(row as u64, cols) as u32;
        scores.set_targets(&(0..rows).map(target).collect::<Vec<_>>())?;
        for set in 0..sets {
            let [model, reference] = ["model", "reference"].map(|name| {
                Tensor::upload(&device, name, &Random::new(set as u64, name).values(rows * cols), cols)
            });
            ops::score::score(list, &model?, Some(&reference?), rows, (&scores, 0))?;
        }
        Ok(())
    })
    .verified_by(case)
}
