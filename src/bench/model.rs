//! A whole model: how fast it reads prompts and generates tokens, and where the time of a token goes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Spread;
use super::report::clock_name;
use super::timing::WAKE_UP;
use crate::generate::{Sampler, SamplerSettings};
use crate::gpu::Profile;
use crate::model::{Llama, Row, TokenProfile};
use crate::random::Random;
use crate::{Error, Result};

/// What to time.
#[derive(Clone, Debug)]
pub struct ModelPlan {
    /// Tokens in the cache when generation begins.
    pub contexts: Vec<usize>,
    /// Tokens to generate in each run.
    pub tokens: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Runs of each.
    pub runs: usize,
    /// Gigabytes (10⁹ bytes) per second that memory can be read at.
    pub read_gb_per_s: f64,
}

/// How fast a prompt is read.
#[derive(Clone, Debug, Serialize)]
pub struct Prompted {
    /// Its tokens.
    pub tokens: usize,
    /// Tokens per second, up to the logits of the last one on the host.
    pub tokens_per_second: Spread,
}

/// How fast tokens come.
#[derive(Clone, Debug, Serialize)]
pub struct Decoded {
    /// Tokens in the cache at the beginning.
    pub context: usize,
    /// Tokens generated in a run.
    pub tokens: usize,
    /// Tokens per second, each sampled and read back.
    pub tokens_per_second: Spread,
    /// Bytes of weights and of the cache that the token in the middle of a run reads.
    pub bytes_per_token: u64,
    /// Gigabytes per second at the median.
    pub gb_per_s: f64,
    /// The same as a share of what memory can be read at.
    pub share_of_read: f64,
    /// Seconds that the dispatches of a token take on the device.
    pub device_seconds_per_token: f64,
}

/// The dispatches of one kernel in a token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelShare {
    /// Its label.
    pub kernel: String,
    /// Dispatches.
    pub count: usize,
    /// Microseconds of each on average.
    pub microseconds: f64,
    /// Share of the time of all.
    pub share: f64,
}

/// Everything about a model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelFigures {
    /// How fast a prompt is read; absent where it has no tokens.
    pub prompt: Option<Prompted>,
    /// For each context.
    pub decode: Vec<Decoded>,
    /// Dispatches and copies of a token.
    pub dispatches_per_token: usize,
    /// Of these, those of a layer.
    pub dispatches_per_layer: f64,
    /// Whose clock the profile is by: `device` or `host`.
    pub clock: String,
    /// Where the time of a token goes at the last context, most time first.
    pub profile: Vec<KernelShare>,
}

/// Times `model`, whose cache holds the longest context and the tokens, in slot 0; `progress` is told what comes next.
///
/// # Errors
/// [`Error::Argument`] when the cache is too short; as the device reports.
pub fn time_model(
    model: &mut Llama,
    plan: &ModelPlan,
    progress: &mut dyn FnMut(&str),
) -> Result<ModelFigures> {
    let longest = plan.contexts.iter().max().map_or(0, |context| context + plan.tokens);
    let (needed, context) = (longest.max(plan.prompt), model.cache_size().context);
    if needed > context || plan.tokens == 0 || plan.runs == 0 {
        let message = format!(
            "{needed} tokens in a cache of {context}; give a longer --context, and at least one token"
        );
        return Err(Error::argument("--tokens", message));
    }
    progress("waking the device");
    let started = Instant::now();
    while started.elapsed() < WAKE_UP {
        generate(model, 0, plan.tokens.min(8))?;
    }
    let prompt = (plan.prompt > 0).then(|| prompted(model, plan, progress)).transpose()?;
    let mut decode = Vec::with_capacity(plan.contexts.len());
    let mut last = None;
    for &context in &plan.contexts {
        progress(&format!("{} tokens at a context of {context}", plan.tokens));
        let (figures, profile) = decoded(model, plan, context)?;
        decode.push(figures);
        last = Some(profile);
    }
    let TokenProfile { pass, head, .. } = match last {
        Some(profile) => profile,
        None => model.profile(Row { token: 0, slot: 0, position: 0 })?,
    };
    let layers = model.config().num_hidden_layers as f64;
    let of_layers = pass.steps.iter().filter(|(label, _)| !label.starts_with("embed")).count();
    Ok(ModelFigures {
        prompt,
        decode,
        dispatches_per_token: pass.steps.len() + head.steps.len(),
        dispatches_per_layer: of_layers as f64 / layers,
        clock: clock_name(pass.clock).to_owned(),
        profile: shares(&[pass, head]),
    })
}

fn prompted(model: &mut Llama, plan: &ModelPlan, progress: &mut dyn FnMut(&str)) -> Result<Prompted> {
    progress(&format!("a prompt of {} tokens", plan.prompt));
    let rows = rows(model, plan.prompt);
    let last = [rows.len() - 1];
    // Its lists are recorded by a first one.
    model.forward(&rows, &last)?;
    let rates = (0..plan.runs)
        .map(|_| {
            let started = Instant::now();
            model.forward(&rows, &last)?;
            Ok(rows.len() as f64 / started.elapsed().as_secs_f64())
        })
        .collect::<Result<_>>()?;
    Ok(Prompted { tokens: rows.len(), tokens_per_second: Spread::of(rates) })
}

fn decoded(model: &mut Llama, plan: &ModelPlan, context: usize) -> Result<(Decoded, TokenProfile)> {
    let before = rows(model, context);
    model.forward(&before, &[])?;
    generate(model, context, plan.tokens.min(8))?;
    let rates = (0..plan.runs)
        .map(|_| Ok(plan.tokens as f64 / generate(model, context, plan.tokens)?.as_secs_f64()))
        .collect::<Result<_>>()?;
    let tokens_per_second = Spread::of(rates);
    let middle = context + plan.tokens / 2;
    let bytes_per_token = model.token_bytes(middle + 1);
    let gb_per_s = bytes_per_token as f64 * tokens_per_second.median / 1e9;
    let profile = model.profile(Row { token: 0, slot: 0, position: middle as u32 })?;
    let figures = Decoded {
        context,
        tokens: plan.tokens,
        tokens_per_second,
        bytes_per_token,
        gb_per_s,
        share_of_read: gb_per_s / plan.read_gb_per_s,
        device_seconds_per_token: profile.seconds,
    };
    Ok((figures, profile))
}

/// Tokens at the first positions, any of the vocabulary.
fn rows(model: &Llama, count: usize) -> Vec<Row> {
    let random = Random::new(0, "prompt");
    let vocabulary = model.config().vocab_size;
    (0..count)
        .map(|at| Row { token: random.below(at as u64, vocabulary) as u32, slot: 0, position: at as u32 })
        .collect()
}

/// Generates `tokens` tokens from position `context` on, greedily, as a text's are; the time of all.
fn generate(model: &mut Llama, context: usize, tokens: usize) -> Result<Duration> {
    let sampler = Sampler::new(SamplerSettings::default())?;
    let mut history: Vec<u32> = rows(model, context + 1).iter().map(|row| row.token).collect();
    let started = Instant::now();
    for step in 0..tokens {
        let position = history.len() - 1;
        let row = Row { token: history[position], slot: 0, position: position as u32 };
        let logits = model.forward(&[row], &[0])?;
        history.push(sampler.sample(&logits, &history, 0, step as u64)?);
    }
    Ok(started.elapsed())
}

/// The time of the steps by kernel, most time first.
fn shares(profiles: &[Profile]) -> Vec<KernelShare> {
    let mut sums: HashMap<&str, (usize, f64)> = HashMap::new();
    for (label, seconds) in profiles.iter().flat_map(|profile| &profile.steps) {
        let sum = sums.entry(label).or_default();
        *sum = (sum.0 + 1, sum.1 + seconds);
    }
    let total: f64 = sums.values().map(|sum| sum.1).sum();
    let mut shares: Vec<_> = sums
        .into_iter()
        .map(|(kernel, (count, seconds))| KernelShare {
            kernel: kernel.to_owned(),
            count,
            microseconds: 1e6 * seconds / count as f64,
            share: seconds / total,
        })
        .collect();
    shares.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.kernel.cmp(&b.kernel)));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Clock;

    #[test]
    fn shares_are_of_all_steps() {
        let profile = |steps: &[(&str, f64)]| Profile {
            clock: Clock::Device,
            steps: steps.iter().map(|&(label, seconds)| (label.to_owned(), seconds)).collect(),
        };
        let found = shares(&[profile(&[("a", 1e-6), ("b", 4e-6), ("a", 2e-6)]), profile(&[("a", 3e-6)])]);
        let expected = [("a", 3, 2.0, 0.6), ("b", 1, 4.0, 0.4)];
        assert_eq!(found.len(), 2);
        for (share, (kernel, count, microseconds, part)) in found.iter().zip(expected) {
            assert_eq!((share.kernel.as_str(), share.count), (kernel, count));
            assert!((share.microseconds - microseconds).abs() < 1e-9 && (share.share - part).abs() < 1e-9);
        }
    }
}
