//! Plans made without loading agree with what the allocator counts, and hold from the first token to the last.

use std::path::Path;

use exlay::Error;
use exlay::formats::config::LlamaConfig;
use exlay::formats::safetensors::Checkpoint;
use exlay::gpu::{Device, DeviceOptions};
use exlay::model::{
    CachePrecision, CacheSize, DecodeRow, Llama, LoadOptions, MemoryPlan, Placement, Planner, Shape,
    Synthetic, WeightSource,
};
use exlay::ops::sample::SamplerSettings;

use super::support;

fn options(rows: usize, slots: usize, context: usize, embedding: Placement) -> LoadOptions {
    LoadOptions { rows, cache: CacheSize { slots, context }, embedding, precision: CachePrecision::Half }
}

fn plan(device: &Device, config: &LlamaConfig, source: &dyn WeightSource, load: &LoadOptions) -> MemoryPlan {
    let planner = Planner::new(device, config, source, load.embedding).expect("the weights are counted");
    planner.plan(load, None).expect("the rest is counted")
}

type Source = (LlamaConfig, Box<dyn WeightSource>);

fn directory(path: &str) -> Source {
    let directory = support::path(path);
    let directory: &Path = &directory;
    let config = LlamaConfig::load(directory).expect("config.json");
    (config, Box::new(Checkpoint::open(directory).expect("the weights")))
}

fn synthetic(shape: Shape, bits: f64) -> Source {
    let model = Synthetic::new(shape, bits, 1).expect("legal bits");
    (model.config().clone(), Box::new(model))
}

#[test]
fn plans_are_what_the_allocator_counts_from_the_first_token_to_the_last() {
    let sources: [&dyn Fn() -> Source; 3] = [
        &|| directory("tests/data/tiny-stories-exl2/2.5"),
        &|| directory("tests/data/variants/attention-bias"),
        &|| synthetic(Shape::Tiny, 3.0),
    ];
    for source in sources {
        for (slots, embedding) in [(1, Placement::Device), (3, Placement::Host)] {
            let device = support::device(DeviceOptions::default());
            let (config, weights) = source();
            let load = options(32, slots, 80, embedding);
            let planned = plan(&device, &config, &*weights, &load);
            assert_eq!((device.memory().held, device.memory().peak), (0, 0), "a plan holds nothing");
            let mut model = Llama::from_source(&device, config, weights, load, &mut |_, _| {}).unwrap();
            assert_eq!((model.memory(), model.rows()), (planned.parts, planned.rows));
            assert_eq!(device.memory().held, planned.total());

            let prompts: Vec<Vec<u32>> =
                (0..slots as u32).map(|row| (0..50).map(|at| (7 * at + row) % 90).collect()).collect();
            let sampling = SamplerSettings { temperature: 0.8, ..Default::default() };
            let rows: Vec<_> =
                prompts.iter().map(|prompt| DecodeRow { prompt, cached: 0, sampling }).collect();
            model.begin(&rows).unwrap();
            for _ in 0..4 {
                model.choices().unwrap();
                model.step().unwrap();
            }
            model.choices().unwrap();
            assert_eq!((device.memory().held, device.memory().peak), (planned.total(), planned.total()));
        }
    }
}

#[test]
fn passes_have_as_many_rows_as_fit_and_what_does_not_is_refused_with_numbers() {
    let open = |limit| support::device(DeviceOptions { memory_limit: Some(limit), ..Default::default() });
    let load = |limit, context| {
        let (config, weights) = synthetic(Shape::Tiny, 3.0);
        let load = options(64, 1, context, Placement::Device);
        Llama::from_source(&open(limit), config, weights, load, &mut |_, _| {})
    };
    let device = support::device(DeviceOptions::default());
    let (config, weights) = synthetic(Shape::Tiny, 3.0);
    let wanted = plan(&device, &config, &*weights, &options(64, 1, 256, Placement::Device));
    let rows = |limit| load(limit, 256).map(|model| model.rows());
    assert_eq!(rows(wanted.total()).unwrap(), 64);
    assert_eq!(rows(wanted.total() - 1).unwrap(), 32);

    let Err(error) = load(wanted.total(), config.max_position_embeddings) else { panic!("accepted") };
    let Error::Limit { message } = &error else { panic!("{error}") };
    let longest = message.split("fits is ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let longest: usize = longest.parse().unwrap();
    assert!(longest >= 256, "{message}");
    load(wanted.total(), longest).unwrap();
    for word in ["weights 0.00", "cache 0.0", "scratch 0.0", "--embedding host saves", "rows of a prompt"] {
        assert!(message.contains(word), "{message}");
    }
    let Err(error) = load(1 << 20, 256) else { panic!("accepted") };
    assert!(error.to_string().contains("no context fits"), "{error}");
}

#[test]
fn kernels_are_built_ahead_without_memory() {
    for dense in [false, true] {
        let source = || {
            if dense { directory("tests/data/variants/attention-bias") } else { synthetic(Shape::Tiny, 3.0) }
        };
        let device = support::device(DeviceOptions::default());
        let load = options(32, 1, 80, Placement::Device);
        let (config, weights) = source();
        Llama::compile_ahead(&device, config, weights, load, true).unwrap();
        assert_eq!(device.memory().peak, 0);
        let built = device.kernels();
        let (config, weights) = source();
        let mut model = Llama::from_source(&device, config, weights, load, &mut |_, _| {}).unwrap();
        let prompt: Vec<u32> = (0..32).collect();
        let sampling = SamplerSettings::default();
        model.begin(&[DecodeRow { prompt: &prompt, cached: 0, sampling }]).unwrap();
        model.step().unwrap();
        model.choices().unwrap();
        // The order of packed words is all that loading adds.
        assert_eq!(device.kernels() - built, usize::from(!dense));
    }
}

/// Bytes of 10⁹ that a card of 24, and one of 12, is left with beside its display.
#[test]
fn large_models_fit_into_the_cards_they_are_made_for() {
    let device = support::device(DeviceOptions::default());
    for (shape, bits, embedding, most) in [
        (Shape::Llama2_70b, 2.5, Placement::Host, 23_200_000_000_u64),
        (Shape::Llama2_70b, 2.5, Placement::Device, 23_700_000_000),
        (Shape::Llama2_13b, 4.0, Placement::Device, 11_000_000_000),
    ] {
        let (config, weights) = synthetic(shape, bits);
        let planned = plan(&device, &config, &*weights, &options(512, 1, 4096, embedding));
        assert!(planned.total() <= most && planned.rows >= 256, "{shape}: {planned:?}");
    }
}
