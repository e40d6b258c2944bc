//! A model whose keys and values are cut into slabs gives the bits of the same model in one piece, and a context of which
//! not even one head can be bound is refused with the longest that can.

use exlay::formats::config::LlamaConfig;
use exlay::formats::safetensors::Checkpoint;
use exlay::gpu::{Device, DeviceOptions};
use exlay::model::{
    Cache, CachePrecision, CacheSize, Choice, DecodeRow, Llama, LoadOptions, Placement, Planner, Row, Shape,
    Synthetic, WeightSource,
};
use exlay::ops::sample::SamplerSettings;

use super::{support, tiers};

const SIZE: CacheSize = CacheSize { slots: 4, context: 256 };
const PRECISIONS: [CachePrecision; 2] = [CachePrecision::Half, CachePrecision::Single];

type Source = (LlamaConfig, Box<dyn WeightSource>);

fn stored(directory: &str) -> Source {
    let directory = support::path(directory);
    let files = Checkpoint::open(&directory).expect("files");
    (LlamaConfig::load(&directory).expect("sizes"), Box::new(files))
}

fn made_up() -> Source {
    let model = Synthetic::new(Shape::Tiny, 6.0, 1).expect("a shape and bits that are known");
    (model.config().clone(), Box::new(model))
}

fn options(cache: CacheSize, precision: CachePrecision) -> LoadOptions {
    LoadOptions { rows: 16, cache, embedding: Placement::Device, precision }
}

/// Bits of the logits of a text that takes long and short passes, in the last slot, and how three texts go on together.
fn run(device: &Device, (config, source): Source, precision: CachePrecision) -> (Vec<u32>, Vec<Choice>) {
    let options = options(SIZE, precision);
    let mut model = Llama::from_source(device, config, source, options, &mut |_, _| {}).expect("it loads");
    let text = |seed: u32| -> Vec<u32> { (0..40).map(|at| (37 * at + seed) % 300).collect() };
    let rows: Vec<Row> =
        (0..).zip(text(11)).map(|(position, token)| Row { token, slot: 2, position }).collect();
    let wanted: Vec<usize> = (0..rows.len()).step_by(3).collect();
    let scores = model.forward(&rows, &wanted).expect("the pass runs");
    assert!(scores.iter().any(|score| score.abs() > 1.0), "the logits are not degenerate");
    let sampling = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
    let prompts = [5, 11, 17].map(text);
    let rows: Vec<_> = prompts.iter().map(|prompt| DecodeRow { prompt, cached: 0, sampling }).collect();
    model.begin(&rows).expect("the prompts run");
    let mut texts = model.choices().expect("the first tokens");
    for _ in 0..8 {
        model.step().expect("a step runs");
        texts.extend(model.choices().expect("the next tokens"));
    }
    (scores.into_iter().map(f32::to_bits).collect(), texts)
}

/// The model gives the same bits where `heads` heads of keys are bound at once, which makes slabs of `cut` heads: halves in
/// the best tier, single precision in the one below. `kernels::cache_slabs` has all of both.
fn unchanged(model: &dyn Fn() -> Source, heads: usize, cut: &[usize]) {
    for (tier, precision) in tiers().iter().rev().map(Device::tier).zip(PRECISIONS) {
        let config = model().0;
        let slabs = |device: &Device| -> Vec<usize> {
            let cache = Cache::new(device, &config, 1, SIZE, precision).expect("it fits");
            cache.layer(0).slabs().iter().map(|slab| slab.heads).collect()
        };
        let limit = (heads * SIZE.slots * SIZE.context * config.head_dim * precision.bytes()) as u64;
        let options = DeviceOptions { tier: Some(tier), ..Default::default() };
        let whole = support::device(options.clone());
        let narrow = support::device(DeviceOptions { binding_limit: Some(limit), ..options });
        assert_eq!((&*slabs(&whole), &*slabs(&narrow)), (&[config.num_key_value_heads][..], cut));
        let (expected, got) = (run(&whole, model(), precision), run(&narrow, model(), precision));
        assert!(got.0 == expected.0, "{tier}, {precision:?}: the logits");
        assert!(got.1 == expected.1, "{tier}, {precision:?}: the texts");
    }
}

#[test]
fn a_packed_model_with_its_cache_in_slabs_changes_no_bit() {
    unchanged(&|| stored("tests/data/tiny-stories-exl2/4.0"), 1, &[1, 1]);
}

#[test]
fn a_dense_model_with_its_cache_in_slabs_changes_no_bit() {
    unchanged(&|| stored("tests/data/variants/mha"), 5, &[3, 3]);
}

#[test]
fn a_context_that_cannot_be_bound_is_refused_with_the_longest_that_can() {
    let limit = 768 << 10;
    let device = support::device(DeviceOptions { binding_limit: Some(limit), ..Default::default() });
    let (half, single) = (CachePrecision::Half, CachePrecision::Single);
    // Keys of a head have 64 or 128 bytes a token, rotations 128.
    for (slots, precision, most) in [(4, half, 3072), (4, single, 1536), (3, half, 4096), (1, half, 6144)] {
        let load = |context| {
            let (config, source) = made_up();
            let options = options(CacheSize { slots, context }, precision);
            Llama::from_source(&device, config, source, options, &mut |_, _| {})
                .map(|model| model.cache_size())
        };
        assert_eq!(load(most).expect("the longest loads"), CacheSize { slots, context: most });
        let text = load(most + 1).expect_err("one more does not").to_string();
        let wanted = format!(
            "{} tokens for each of {slots} texts are more than fit where this adapter binds {limit} bytes at once",
            most + 1
        );
        assert!(text.contains("--context") && text.contains(&wanted), "{text}");
        assert!(text.ends_with(&format!("use at most {most} tokens")), "{text}");

        let (config, source) = made_up();
        let planner = Planner::new(&device, &config, &*source, Placement::Device).expect("the weights fit");
        let options = options(CacheSize { slots, context: 8192 }, precision);
        assert_eq!(planner.longest(&options, u64::MAX).expect("plans"), Some(most));
    }
}
