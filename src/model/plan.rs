//! What a model will hold on a device, known from its files' headers before anything is loaded.
//!
//! A plan is the loading itself, on a [device that only counts](Device::counting): so it is exact by construction. Words of
//! packed weights are not read for it, nor tables of halves.

use super::cache::{Cache, CacheSize};
use super::decode::Decode;
use super::embedding::Placement;
use super::llama::{LoadOptions, MemoryByPart};
use super::room::{Room, least_rows, pass_rows};
use super::source::WeightSource;
use super::weights::Weights;
use crate::formats::config::LlamaConfig;
use crate::gpu::Device;
use crate::ops::cache::PAGE;
use crate::{Error, Result};

/// Rows below which a prompt is read too slowly to be worth more context.
const FEW_ROWS: usize = 64;

/// Bytes that a model holds on a device from before its first token to its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Rows of a pass.
    pub rows: usize,
    /// Tokens of a slot of the cache.
    pub context: usize,
    /// By part.
    pub parts: MemoryByPart,
    /// What the scratch is made of, largest first.
    pub scratch: Vec<(String, u64)>,
}

impl MemoryPlan {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.parts.weights + self.parts.cache + self.parts.scratch
    }
}

/// The weights of a model on a device that only counts, for plans of any cache and number of rows.
pub struct Planner<'a> {
    counting: Device,
    config: &'a LlamaConfig,
    source: &'a dyn WeightSource,
    weights: Weights,
    embedding: Placement,
}

impl<'a> Planner<'a> {
    /// Counts the weights of a model as they would lie on `device`.
    ///
    /// # Errors
    /// As the source reports; [`Error::Shape`] where a matrix fits into no binding.
    pub fn new(
        device: &Device,
        config: &'a LlamaConfig,
        source: &'a dyn WeightSource,
        embedding: Placement,
    ) -> Result<Self> {
        let counting = device.counting()?;
        let weights = Weights::load(&counting, config, source, embedding, &mut |_, _| {})?;
        Ok(Self { counting, config, source, weights, embedding })
    }

    /// A plan for `options`, with passes of `rows` rows, or as many as are asked for and well spent.
    ///
    /// # Errors
    /// [`Error::Shape`] where the cache or a table fits into no binding.
    pub fn plan(&self, options: &LoadOptions, rows: Option<usize>) -> Result<MemoryPlan> {
        let (device, context) = (&self.counting, options.cache.context);
        let rows = rows.unwrap_or_else(|| pass_rows(self.config, options));
        let (before, made) = (device.memory().held, device.counted().len());
        let Weights { blocks, head, bytes: [weights, head_room], .. } = &self.weights;
        let room = Room::new(device, self.config, self.source, options, rows)?;
        let _decode = Decode::new(device, self.config, blocks, head, context, rows)?;
        let [cache, _] = room.bytes;
        let scratch = device.memory().held - before - cache + head_room;
        let mut parts: Vec<(String, u64)> = vec![("logits".to_owned(), *head_room)];
        for (label, bytes) in device.counted().drain(made..) {
            match parts.iter_mut().find(|part| part.0 == label) {
                _ if Cache::LABELS.contains(&label.as_str()) => {}
                Some(part) => part.1 += bytes,
                None => parts.push((label, bytes)),
            }
        }
        parts.sort_by_key(|part| std::cmp::Reverse(part.1));
        Ok(MemoryPlan {
            rows,
            context,
            parts: MemoryByPart { weights: *weights, cache, scratch },
            scratch: parts,
        })
    }

    /// The most rows of a pass with which everything stays within `limit` bytes.
    ///
    /// # Errors
    /// [`Error::Limit`] with the numbers, and with what would fit, when even the fewest do not.
    pub fn rows(&self, options: &LoadOptions, limit: u64) -> Result<usize> {
        let wanted = self.plan(options, None)?;
        let least = least_rows(options);
        let mut rows = wanted.rows;
        loop {
            if self.plan(options, Some(rows))?.total() <= limit {
                return Ok(rows);
            }
            if rows <= least {
                return Err(self.refusal(options, limit)?);
            }
            rows = (rows / 2).max(least);
        }
    }

    /// The longest context with which a prompt is still read in passes of some rows; none when not even a page of the cache
    /// fits into `limit`.
    ///
    /// # Errors
    /// As [`Planner::plan`].
    pub fn longest(&self, options: &LoadOptions, limit: u64) -> Result<Option<usize>> {
        let most = self.config.max_position_embeddings;
        let rows = pass_rows(self.config, options).min(FEW_ROWS).max(least_rows(options));
        let fits = |context: usize| {
            let cache = CacheSize { context, ..options.cache };
            let plan = self.plan(&LoadOptions { cache, ..*options }, Some(rows));
            match plan {
                Ok(plan) => Ok(plan.total() <= limit),
                // A longer cache than a binding holds.
                Err(Error::Shape { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        let (mut low, mut high) = (0, most.div_ceil(PAGE));
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits((middle * PAGE).min(most))? { low = middle } else { high = middle - 1 }
        }
        Ok((low > 0).then_some((low * PAGE).min(most)))
    }

    /// The error for options that do not fit.
    fn refusal(&self, options: &LoadOptions, limit: u64) -> Result<Error> {
        let plan = self.plan(options, Some(least_rows(options)))?;
        let longest = self.longest(options, limit)?;
        Ok(Error::Limit { message: self.advice(&plan, options, limit, longest) })
    }

    fn advice(&self, plan: &MemoryPlan, options: &LoadOptions, limit: u64, longest: Option<usize>) -> String {
        let MemoryByPart { weights, cache, scratch } = plan.parts;
        let list = plan.scratch.iter().take(4).map(|(label, bytes)| format!("{label} {}", gigabytes(*bytes)));
        let scratch_parts = list.collect::<Vec<_>>().join(", ");
        let slots = options.cache.slots;
        let sizes = format!(
            "weights {} + cache {} ({slots} x {} tokens) + scratch {} ({} rows of a prompt at a time: {scratch_parts}) = {} GB, where {} GB are allowed",
            gigabytes(weights),
            gigabytes(cache),
            options.cache.context,
            gigabytes(scratch),
            plan.rows,
            gigabytes(plan.total()),
            gigabytes(limit),
        );
        let mut ways = Vec::new();
        match longest {
            Some(context) if context < options.cache.context => {
                ways.push(format!("the longest context that fits is {context} tokens"));
            }
            _ => ways.push("no context fits".to_owned()),
        }
        let table = 2 * (self.config.vocab_size * self.config.hidden_size) as u64;
        if self.embedding == Placement::Device {
            let fits = if plan.total().saturating_sub(table) <= limit { ", with which it fits" } else { "" };
            ways.push(format!("--embedding host saves {} GB{fits}", gigabytes(table)));
        }
        if slots > 1 {
            ways.push(format!("fewer texts together save {} GB each", gigabytes(cache / slots as u64)));
        }
        if ways.len() == 1 && longest.is_none() {
            ways.push(format!("use fewer bits or a card with more than {} GB", gigabytes(plan.total())));
        }
        format!("{sizes}; {}", ways.join("; "))
    }
}

/// Thousands of millions of bytes, rounded up, in digits that add up.
fn gigabytes(bytes: u64) -> String {
    format!("{:.3}", bytes.div_ceil(1_000_000) as f64 / 1e3)
}
