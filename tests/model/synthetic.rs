//! Models of random weights: finite, each token its own, and the same numbers in every tier.

use exlay::model::{CachePrecision, CacheSize, Llama, LoadOptions, Placement, Shape, Synthetic};

use super::{logits, support, tiers};

#[test]
fn logits_are_finite_and_depend_on_the_tokens() {
    let ids = [3, 500, 3, 77, 8, 401, 12];
    let mut first: Option<Vec<f32>> = None;
    for device in tiers() {
        for embedding in [Placement::Device, Placement::Host] {
            let model = Synthetic::new(Shape::Tiny, 3.0, 1).unwrap();
            let options = LoadOptions {
                rows: 8,
                cache: CacheSize { slots: 1, context: 64 },
                embedding,
                precision: CachePrecision::Half,
            };
            let config = model.config().clone();
            let mut model =
                Llama::from_source(&device, config, Box::new(model), options, &mut |_, _| {}).unwrap();
            let found = logits(&mut model, &ids);
            let vocabulary = model.config().vocab_size;
            let mean_square = found.iter().map(|x| x * x).sum::<f32>() / found.len() as f32;
            assert!((0.25..4.0).contains(&mean_square), "{mean_square}");
            let best: Vec<usize> = found
                .chunks(vocabulary)
                .map(|row| (0..vocabulary).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap())
                .collect();
            let mut distinct = best.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert!(distinct.len() >= 4, "{best:?}");
            let expected = first.get_or_insert_with(|| found.clone());
            let kl = support::kl_divergence(expected, &found, vocabulary);
            assert!(kl < 1e-5, "{}: {kl}", device.tier());
        }
    }
}
