//! Each feature of the architecture, against transformers in float32.

use exlay::model::Placement;

use super::{load, logits, recorded, support, tiers, worst};

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

/// Halves in the cache and single-precision sums; the recorded features are worth 5 and more where they are missed.
const BOUND: f32 = 2e-3;

#[test]
fn every_variant_agrees_with_transformers_whole_and_in_chunks() {
    for device in tiers() {
        for name in VARIANTS {
            let directory = support::path("tests/data/variants").join(name);
            for (rows, embedding) in [(256, Placement::Device), (16, Placement::Host), (1, Placement::Device)]
            {
                let mut model = load(&device, &directory, rows, 256, embedding);
                for tokens in [1, 33, 150] {
                    if rows == 1 && tokens == 150 {
                        continue; // a minute of single dispatches that show nothing new
                    }
                    let recorded = recorded(&directory, tokens);
                    let error = worst(&logits(&mut model, &recorded.ids), &recorded.logits);
                    assert!(
                        error < BOUND,
                        "{name}, {tokens} tokens in chunks of {rows}, {}: {error}",
                        device.tier()
                    );
                }
            }
        }
    }
}
