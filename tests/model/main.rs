//! The whole model on the device against recorded logits of other engines.

#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy exempts only test functions")]

#[path = "../support/mod.rs"]
mod support;

mod cache_slabs;
mod exl2;
mod loading;
mod memory;
mod plan;
mod slabs;
mod streamed;
mod synthetic;
mod tuning;
mod variants;

use std::path::Path;

use exlay::formats::safetensors::Checkpoint;
use exlay::gpu::{Device, DeviceOptions, Tier};
use exlay::model::{CachePrecision, CacheSize, Llama, LoadOptions, Placement, Row};

/// One recorded run: token ids and logits [tokens, vocabulary].
struct Recorded {
    ids: Vec<u32>,
    logits: Vec<f32>,
}

fn recorded(directory: &Path, tokens: usize) -> Recorded {
    let file = Checkpoint::open(directory).expect("the recording lies beside the weights");
    let ids = file.get(&format!("ids.{tokens}")).expect("ids").to_u32().expect("ids are integers");
    let logits = file.get(&format!("logits.{tokens}")).expect("logits").to_f32().expect("logits are numbers");
    Recorded { ids, logits }
}

fn load(device: &Device, directory: &Path, rows: usize, context: usize, embedding: Placement) -> Llama {
    load_with(device, directory, rows, context, embedding, CachePrecision::Half)
}

fn load_with(
    device: &Device,
    directory: &Path,
    rows: usize,
    context: usize,
    embedding: Placement,
    precision: CachePrecision,
) -> Llama {
    let options = LoadOptions { rows, cache: CacheSize { slots: 1, context }, embedding, precision };
    Llama::load(device, directory, options, &mut |_, _| {}).expect("the model loads")
}

/// Logits of all positions of a fresh sequence.
fn logits(model: &mut Llama, ids: &[u32]) -> Vec<f32> {
    let rows: Vec<Row> =
        ids.iter().enumerate().map(|(at, &token)| Row { token, slot: 0, position: at as u32 }).collect();
    let wanted: Vec<usize> = (0..rows.len()).collect();
    model.forward(&rows, &wanted).expect("the pass runs")
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(b.iter().any(|x| x.abs() > 1.0), "the recorded logits are not degenerate");
    a.iter().zip(b).fold(0.0, |worst, (a, b)| if a.is_nan() { f32::NAN } else { worst.max((a - b).abs()) })
}

fn tiers() -> Vec<Device> {
    let best = support::device(DeviceOptions::default()).tier();
    let mut tiers = vec![Tier::Plain, Tier::Subgroup];
    tiers.retain(|&tier| tier <= best);
    tiers
        .into_iter()
        .map(|tier| support::device(DeviceOptions { tier: Some(tier), ..Default::default() }))
        .collect()
}
