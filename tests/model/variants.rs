//! Each feature of the architecture, against transformers in float32.

use exlay::gpu::{DeviceOptions, Tier};
use exlay::model::{CachePrecision, Placement};

use super::{load_with, logits, recorded, support, worst};

const VARIANTS: [&str; 12] = [
    "attention-bias",
    "gqa",
    "head-dim",
    "mha",
    "mlp-bias",
    "mqa",
    "rope-linear",
    "rope-llama3",
    "rope-yarn",
    "sliding-window",
    "theta",
    "tied",
];

/// Single-precision sums against transformers' own; a missed feature is worth 5 and more.
const BOUND: f32 = 2e-3;

/// With halves in the cache these random models, whose scores are large, differ by up to 0.028 (measured).
const HALF_BOUND: f32 = 0.06;

#[test]
fn every_variant_agrees_with_transformers_in_the_plain_tier() {
    whole_and_in_chunks(Tier::Plain);
}

#[test]
fn every_variant_agrees_with_transformers_in_the_best_tier() {
    whole_and_in_chunks(support::device(DeviceOptions::default()).tier());
}

fn whole_and_in_chunks(tier: Tier) {
    let device = support::device(DeviceOptions { tier: Some(tier), ..Default::default() });
    let runs = [
        (256, Placement::Device, CachePrecision::Single, BOUND),
        (16, Placement::Host, CachePrecision::Single, BOUND),
        (256, Placement::Device, CachePrecision::Half, HALF_BOUND),
        (1, Placement::Device, CachePrecision::Single, BOUND),
    ];
    for name in VARIANTS {
        let directory = support::path("tests/data/variants").join(name);
        for (rows, embedding, precision, bound) in runs {
            let mut model = load_with(&device, &directory, rows, 256, embedding, precision);
            for tokens in [1, 33, 150] {
                if rows == 1 && tokens == 150 {
                    continue; // a minute of single dispatches that show nothing new
                }
                let recorded = recorded(&directory, tokens);
                let error = worst(&logits(&mut model, &recorded.ids), &recorded.logits);
                let place = format!("{name}, {tokens} tokens in chunks of {rows}, {precision:?}, {tier}");
                println!("{place}: {error:.2e}");
                assert!(error < bound, "{place}: {error}");
            }
        }
    }
}
