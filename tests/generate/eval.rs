//! Scores against those of the oracle's forward pass, and the two ways to get them against each other.

use std::path::Path;

use exlay::formats::config::LlamaConfig;
use exlay::formats::dataset;
use exlay::formats::safetensors::Checkpoint;
use exlay::formats::tokenizer::Tokenizer;
use exlay::generate::eval::text_tokens;
use exlay::generate::{EvalOptions, Evaluation, evaluate};
use exlay::gpu::{Device, DeviceOptions};
use exlay::reference::llama::forward;
use exlay::reference::weights::Weights;

use crate::{STORIES, support};

const PACKED: &str = "tests/data/tiny-stories-exl2/2.5";
const VOCABULARY: usize = 2048;

fn heldout() -> Vec<u32> {
    text_tokens(&support::path(STORIES), &support::path("examples/tiny-stories/heldout.parquet"), None)
        .expect("the texts lie in the project")
}

fn run(
    device: &Device,
    model: &str,
    reference: Option<&str>,
    tokens: &[u32],
    options: EvalOptions,
) -> Evaluation {
    let reference = reference.map(support::path);
    evaluate(device, &support::path(model), reference.as_deref(), tokens, options, &mut |_, _, _| {})
        .expect("the text is scored")
}

/// Log probabilities [tokens, vocabulary] by the oracle.
fn log_softmax(directory: &Path, tokens: &[u32]) -> Vec<f64> {
    let config = LlamaConfig::load(directory).expect("a model");
    let weights =
        Weights::load(&config, &Checkpoint::open(directory).expect("a model")).expect("its weights");
    let mut logits = forward(&config, &weights, tokens).expect("no weight is missing");
    for row in logits.chunks_mut(VOCABULARY) {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        row.iter_mut().for_each(|x| *x -= sum.ln());
    }
    logits
}

#[test]
fn scores_are_those_of_the_oracle() {
    let tokens = heldout();
    let length = 48;
    let (mut likelihood, mut divergence, mut agreements) = (0.0, 0.0, 0);
    for window in tokens.chunks(length).take(2) {
        let model = log_softmax(&support::path(PACKED), window);
        let reference = log_softmax(&support::path(STORIES), window);
        for (row, (q, p)) in model.chunks(VOCABULARY).zip(reference.chunks(VOCABULARY)).enumerate() {
            likelihood += window.get(row + 1).map_or(0.0, |&next| q[next as usize]);
            divergence += p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            let best = |row: &[f64]| (0..VOCABULARY).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            agreements += usize::from(best(p) == best(q));
        }
    }
    let rows = 2.0 * length as f64;
    let device = support::device(DeviceOptions::default());
    let options = EvalOptions { context: length, windows: 2, rows: 32, ..Default::default() };
    let found = run(&device, PACKED, Some(STORIES), &tokens, options);
    let summary = found.summary;
    assert_eq!((summary.tokens, summary.windows, found.context), (96, 2, length));
    let close = |found: f64, expected: f64, share: f64| {
        assert!((found - expected).abs() <= share * expected.abs(), "{found}, expected {expected}");
    };
    // Halves in the cache and f32 sums move a logit by about 1e-3, and a mean of many rows by less.
    close(summary.perplexity.mean, (-likelihood / (rows - 2.0)).exp(), 1e-3);
    close(summary.kl_divergence.unwrap().mean, divergence / rows, 1e-2);
    // One row of 96 may have two tokens closer than that.
    assert!((summary.top1_agreement.unwrap().mean * rows - agreements as f64).abs() <= 1.0);
}

#[test]
fn streaming_changes_no_bit() {
    let tokens = heldout();
    let device = support::device(DeviceOptions::default());
    // Windows of more than one chunk, the last one short.
    let whole = EvalOptions { context: 40, windows: 2, rows: 32, ..Default::default() };
    let streamed = EvalOptions { stream: true, ..whole };
    let expected = run(&device, PACKED, Some(STORIES), &tokens, whole);
    assert_eq!((expected.summary.windows, expected.summary.tokens), (2, 80));
    assert_eq!(run(&device, PACKED, Some(STORIES), &tokens, streamed), expected);
}

#[test]
fn a_model_larger_than_the_memory_is_scored_by_streaming() {
    let tokens = heldout();
    let device = support::device(DeviceOptions::default());
    let whole = EvalOptions { context: 100, windows: 2, rows: 32, ..Default::default() };
    let expected = run(&device, STORIES, None, &tokens, whole);
    let weights = std::fs::metadata(support::path(STORIES).join("model.safetensors")).unwrap().len();
    let limit = DeviceOptions { memory_limit: Some(weights - 1), ..Default::default() };
    let capped = support::device(limit);
    let streamed = EvalOptions { stream: true, ..whole };
    assert_eq!(run(&capped, STORIES, None, &tokens, streamed), expected);
    assert!(capped.memory().peak < weights);
    let error =
        evaluate(&capped, &support::path(STORIES), None, &tokens, whole, &mut |_, _, _| {}).unwrap_err();
    assert!(matches!(error, exlay::Error::Limit { .. }), "{error}");
}

#[test]
fn a_model_does_not_diverge_from_itself() {
    let tokens = heldout();
    let device = support::device(DeviceOptions::default());
    let options = EvalOptions { context: 40, windows: 2, rows: 64, ..Default::default() };
    let summary = run(&device, PACKED, Some(PACKED), &tokens, options).summary;
    // Equal logits cancel to the last bit.
    assert_eq!(summary.kl_divergence.unwrap().mean, 0.0);
    assert_eq!(summary.top1_agreement.unwrap().mean, 1.0);
    assert_eq!(summary.perplexity, run(&device, PACKED, None, &tokens, options).summary.perplexity);
}

#[test]
fn windows_end_at_the_models_limit_and_at_the_texts() {
    let tokens = heldout();
    let device = support::device(DeviceOptions::default());
    let one = EvalOptions { windows: 1, ..Default::default() };
    // 2048 are asked for, and 256 are this model's limit.
    let small = "tests/data/variants/gqa";
    let ids: Vec<u32> = (0..300).map(|i| i * 7 % 331).collect();
    let found = run(&device, small, None, &ids, one);
    assert_eq!((found.context, found.summary.tokens), (256, 256));
    let short = run(&device, small, None, &ids[..37], EvalOptions::default());
    assert_eq!((short.context, short.summary.tokens, short.summary.windows), (37, 37, 1));
    assert_eq!(short.summary.perplexity.standard_error, None);
    let error = evaluate(&device, &support::path(PACKED), None, &tokens[..1], one, &mut |_, _, _| {});
    let message = error.unwrap_err().to_string();
    assert!(message.contains("windows of 1 tokens"), "{message}");
    let other = support::path(small);
    let error = evaluate(&device, &support::path(PACKED), Some(&other), &tokens, one, &mut |_, _, _| {});
    let message = error.unwrap_err().to_string();
    assert!(
        message.starts_with("--reference") && message.contains("331") && message.contains("2048"),
        "{message}"
    );
}

#[test]
fn texts_are_joined_by_one_newline_and_get_no_special_tokens() {
    let (model, data) = (support::path(STORIES), support::path("examples/tiny-stories/heldout.parquet"));
    let texts: Vec<String> = dataset::texts(&data, None).unwrap().map(Result::unwrap).collect();
    assert!(texts.len() > 1);
    let expected = Tokenizer::load(&model).unwrap().encode(&texts.join("\n"), false).unwrap();
    let tokens = heldout();
    assert_eq!(tokens, expected);
    assert_ne!(tokens[0], 1, "the model's first token is not added");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("short.txt");
    std::fs::write(&file, "a").unwrap();
    let message = text_tokens(&model, &file, None).unwrap_err().to_string();
    assert!(message.contains("short.txt: 1 tokens of text where at least 2"), "{message}");
}
