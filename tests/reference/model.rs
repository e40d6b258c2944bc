//! The whole forward pass against the logits of transformers and ExLlamaV2.

use std::path::Path;

use exlay::formats::config::LlamaConfig;
use exlay::formats::safetensors::Checkpoint;
use exlay::reference::llama::forward;
use exlay::reference::weights::Weights;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::{data, read};

/// A model with the oracle's weights.
struct Model {
    config: LlamaConfig,
    weights: Weights,
}

impl Model {
    fn load(directory: &Path) -> Self {
        let config = LlamaConfig::load(directory).unwrap();
        let weights = Weights::load(&config, &Checkpoint::open(directory).unwrap()).unwrap();
        Self { config, weights }
    }

    fn logits(&self, tokens: &[u32]) -> Vec<f64> {
        forward(&self.config, &self.weights, tokens).unwrap()
    }
}

/// The recorded `(ids, logits)` of a directory at a length.
fn recorded(directory: &Path, tokens: usize) -> (Vec<u32>, Vec<f32>) {
    let bytes = std::fs::read(directory.join("logits.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids = read(&file, &format!("ids.{tokens}"), Dtype::I32, u32::from_le_bytes);
    (ids, read(&file, &format!("logits.{tokens}"), Dtype::F32, f32::from_le_bytes))
}

fn worst(found: &[f64], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - f64::from(*b)).abs());
    // A NaN is the worst of all.
    differences.fold(0.0, |worst, difference| if difference <= worst { worst } else { difference })
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let maximum = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|logit| (logit - maximum).exp()).sum();
    logits.iter().map(|logit| logit - maximum - sum.ln()).collect()
}

/// Mean over positions of KL(expected ‖ found) in nats.
fn divergence(found: &[f64], expected: &[f32], vocabulary: usize) -> f64 {
    let mut sum = 0.0;
    for (found, expected) in found.chunks_exact(vocabulary).zip(expected.chunks_exact(vocabulary)) {
        let q = log_softmax(found);
        let p = log_softmax(&expected.iter().copied().map(f64::from).collect::<Vec<_>>());
        sum += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
    }
    sum / (found.len() / vocabulary) as f64
}

#[test]
fn every_variant_gives_the_logits_of_transformers() {
    let mut variants: Vec<_> =
        std::fs::read_dir(data("variants")).unwrap().map(|entry| entry.unwrap().path()).collect();
    variants.sort();
    assert_eq!(variants.len(), 12);
    for directory in variants {
        let model = Model::load(&directory);
        for tokens in [1, 33, 150] {
            let (ids, expected) = recorded(&directory, tokens);
            let difference = worst(&model.logits(&ids), &expected);
            println!("{} at {tokens}: {difference:.1e}", directory.display());
            // transformers computed in f32, RoPE's angles included.
            assert!(difference <= 2e-3, "{} at {tokens}: {difference}", directory.display());
        }
    }
}

#[test]
fn exllama_files_give_the_logits_of_exllama() {
    for bits in ["2.5", "4.0"] {
        let directory = data("tiny-stories-exl2").join(bits);
        let model = Model::load(&directory);
        for tokens in [1, 7, 40, 200] {
            let (ids, expected) = recorded(&directory, tokens);
            let found = model.logits(&ids);
            let difference = worst(&found, &expected);
            let divergence = divergence(&found, &expected, model.config.vocab_size);
            println!("{bits} at {tokens}: {difference:.4}, {divergence:.1e}");
            // ExLlamaV2 computes in f16.
            assert!(difference <= 0.06, "{bits} at {tokens}: {difference}");
            assert!(divergence.abs() < 5e-5, "{bits} at {tokens}: {divergence}");
        }
    }
}

fn numbers<T>(value: &Value, number: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().unwrap().iter().map(number).collect()
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    let text = std::fs::read_to_string(data("tiny-stories-golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let model = Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny-stories"));
    for (prompt, case) in golden.as_object().unwrap() {
        let mut ids = numbers(&case["ids"], |id| id.as_u64().unwrap() as u32);
        let (length, greedy) = (ids.len(), numbers(&case["greedy"], |id| id.as_u64().unwrap() as u32));
        ids.extend(&greedy);
        let logits = model.logits(&ids);
        let rows: Vec<&[f64]> = logits.chunks_exact(model.config.vocab_size).collect();
        let first = numbers(&case["last_logits_first16"], |logit| logit.as_f64().unwrap() as f32);
        // Recorded to five decimals, computed in f32.
        assert!(worst(&rows[length - 1][..16], &first) < 1e-3, "{prompt}");
        let margins = numbers(&case["margins"], |margin| margin.as_f64().unwrap());
        for (step, (&id, margin)) in greedy.iter().zip(&margins).enumerate() {
            let row = rows[length - 1 + step];
            let chosen = row[id as usize];
            let others = row.iter().enumerate().filter(|(at, _)| *at != id as usize).map(|(_, logit)| *logit);
            let found = chosen - others.fold(f64::NEG_INFINITY, f64::max);
            // Margins are recorded to four decimals; a tie may fall either way.
            assert!(
                (found - margin).abs() < 1e-3,
                "{prompt}, step {step}: margin {found}, recorded {margin}"
            );
        }
    }
}

#[test]
fn a_missing_weight_is_named() {
    let directory = data("variants/mha");
    let config = LlamaConfig::load(&directory).unwrap();
    let error = forward(&config, &Weights::new(), &[1]).unwrap_err();
    assert!(error.to_string().contains("model.embed_tokens.weight"), "{error}");
}
