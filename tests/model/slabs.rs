//! A model whose matrices and groups are cut into slabs and sheets gives the bits of the same model in one piece.

use exlay::formats::config::LlamaConfig;
use exlay::formats::safetensors::Checkpoint;
use exlay::gpu::{Device, DeviceOptions};
use exlay::model::{
    CachePrecision, CacheSize, Choice, DecodeRow, Linear, LinearGroup, LinearSpec, Llama, LoadOptions,
    Placement, Row, Shape, Synthetic, WeightSource, blocks, head_spec,
};
use exlay::ops::sample::SamplerSettings;

use super::support;

/// Rows of a pass, and tokens for two of those and one of as few rows as are multiplied straight from packed words.
const ROWS: usize = 16;
const TOKENS: usize = 40;

type Source = Box<dyn WeightSource>;

fn stored(directory: &str) -> (LlamaConfig, Source) {
    let directory = support::path(directory);
    let files = Checkpoint::open(&directory).expect("files");
    (LlamaConfig::load(&directory).expect("sizes"), Box::new(files))
}

fn made_up() -> (LlamaConfig, Source) {
    let model = Synthetic::new(Shape::Tiny, 6.0, 1).expect("a shape and bits that are known");
    (model.config().clone(), Box::new(model))
}

/// Gate and up of the first layer, and the head.
fn groups(config: &LlamaConfig) -> [Vec<LinearSpec>; 2] {
    [blocks(config)[1].groups[0].linears.clone(), vec![head_spec(config)]]
}

/// Slabs of gate and of the head.
fn slabs(device: &Device, (config, source): (LlamaConfig, Source)) -> [usize; 2] {
    groups(&config).map(|specs| {
        let group = LinearGroup::load(device, &*source, &specs).expect("the group loads");
        match &*group.linears()[0] {
            Linear::Dense(matrix) => matrix.slabs().len(),
            Linear::Packed(matrix) => matrix.slabs().len(),
        }
    })
}

/// Bits of the logits of every second position, and how the text goes on. The head multiplies eight rows at a time,
/// with limits or without.
fn run(device: &Device, (config, source): (LlamaConfig, Source)) -> (Vec<u32>, Vec<Choice>) {
    let ids: Vec<u32> = (0..TOKENS as u32).map(|at| (37 * at + 11) % 500).collect();
    let cache = CacheSize { slots: 1, context: 256 };
    let (embedding, precision) = (Placement::Device, CachePrecision::Half);
    let options = LoadOptions { rows: ROWS, cache, embedding, precision };
    let mut model = Llama::from_source(device, config, source, options, &mut |_, _| {}).expect("it loads");
    let rows: Vec<Row> = (0..).zip(&ids).map(|(position, &token)| Row { token, slot: 0, position }).collect();
    let wanted: Vec<usize> = (0..TOKENS).step_by(2).collect();
    let scores = model.forward(&rows, &wanted).expect("the pass runs");
    assert!(scores.iter().any(|score| score.abs() > 1.0), "the logits are not degenerate");
    let sampling = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
    model.begin(&[DecodeRow { prompt: &ids, cached: 0, sampling }]).expect("the prompt runs");
    let mut text = model.choices().expect("the first token");
    for _ in 0..12 {
        model.step().expect("a step runs");
        text.extend(model.choices().expect("the next token"));
    }
    (scores.into_iter().map(f32::to_bits).collect(), text)
}

#[test]
fn a_dense_model_in_slabs_changes_no_bit() {
    let model = || stored("examples/tiny-stories");
    let whole = support::device(DeviceOptions::default());
    let cut = support::device(DeviceOptions { binding_limit: Some(64 << 10), ..Default::default() });
    assert_eq!((slabs(&whole, model()), slabs(&cut, model())), ([1, 1], [4, 16]));
    assert!(run(&whole, model()) == run(&cut, model()));
}

/// A packed model of which group `split` takes several sheets where bindings have `limit` bytes, and gate and head as many
/// slabs as `count` says there and where so many bytes are decoded at a time.
fn packed(model: &dyn Fn() -> (LlamaConfig, Source), limit: u64, split: usize, count: [usize; 2]) {
    let (config, source) = model();
    let groups = groups(&config);
    let words = groups[split].iter().map(|spec| match source.packed(spec) {
        Ok(Some(matrix)) => 4 * matrix.q_weight.len() as u64,
        _ => 0,
    });
    assert!(words.sum::<u64>() > limit, "several sheets");
    for arithmetic in support::arithmetics(&support::device(DeviceOptions::default())) {
        let options = DeviceOptions { arithmetic: Some(arithmetic), ..Default::default() };
        let whole = support::device(options.clone());
        assert_eq!(slabs(&whole, model()), [1, 1]);
        let expected = run(&whole, model());
        let binding = DeviceOptions { binding_limit: Some(limit), ..options.clone() };
        let decode = DeviceOptions { decode_limit: Some(limit), ..options };
        for limited in [binding, decode] {
            let cut = support::device(limited);
            assert_eq!(slabs(&cut, model()), count);
            assert!(run(&cut, model()) == expected, "{arithmetic}");
        }
    }
}

#[test]
fn a_packed_model_with_its_head_in_sheets_changes_no_bit() {
    packed(&|| stored("tests/data/tiny-stories-exl2/4.0"), 128 << 10, 1, [2, 8]);
}

#[test]
fn a_packed_model_with_groups_in_sheets_changes_no_bit() {
    packed(&made_up, 176 << 10, 0, [3, 2]);
}
