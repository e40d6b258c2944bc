//! Holds greedy continuations and logits against a recording of transformers in float32.
//!
//! `cargo run --release --example check_golden -- MODEL GOLDEN.json [f32|fx16]`, the recordings being those in `tests/data`. Each step
//! is fed the recorded token; a choice that differs counts as wrong unless the recorded margin is below 0.02.

use std::path::Path;

use exlay::gpu::{Arithmetic, Device, DeviceOptions, select};
use exlay::model::{CachePrecision, CacheSize, Llama, LoadOptions, Placement, Row};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().map(|values| values.iter().filter_map(Value::as_f64).collect()).unwrap_or_default()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, golden, arithmetic @ ..] = arguments.as_slice() else {
        return Err("usage: check_golden MODEL GOLDEN.json [f32|fx16]".into());
    };
    let arithmetic = arithmetic.first().map(|text| text.parse::<Arithmetic>()).transpose()?;
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(golden)?)?;
    let device = Device::open(&select(None)?, DeviceOptions { arithmetic, ..DeviceOptions::default() })?;
    let options = LoadOptions {
        rows: 512,
        cache: CacheSize { slots: 1, context: 512 },
        embedding: Placement::Device,
        precision: CachePrecision::Half,
    };
    let mut llama = Llama::load(&device, Path::new(model), options, &mut |_, _| {})?;
    println!("adapter {}, tier {}", device.name(), device.tier());
    let mut failed = false;
    for (name, case) in golden.as_object().ok_or("the recording is no object")? {
        let ids: Vec<u32> = numbers(&case["ids"]).iter().map(|&id| id as u32).collect();
        let rows: Vec<Row> =
            ids.iter().zip(0..).map(|(&token, position)| Row { token, slot: 0, position }).collect();
        let mut scores = llama.forward(&rows, &[rows.len() - 1])?;
        let first = if case["last_first16"].is_array() {
            &case["last_first16"]
        } else {
            &case["last_logits_first16"]
        };
        let mut worst = numbers(first)
            .iter()
            .zip(&scores)
            .fold(0.0f64, |worst, (a, &b)| worst.max((a - f64::from(b)).abs()));
        for pair in case["last_top5"].as_array().into_iter().flatten() {
            let pair = numbers(pair);
            worst = worst.max((pair[1] - f64::from(scores[pair[0] as usize])).abs());
        }
        let (mut wrong, mut close) = (0, 0);
        let greedy = numbers(&case["greedy"]);
        for (step, (&token, margin)) in greedy.iter().zip(numbers(&case["margins"])).enumerate() {
            let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0);
            match (best == token as usize, margin < 0.02) {
                (true, _) => {}
                (false, true) => close += 1,
                (false, false) => wrong += 1,
            }
            let row = Row { token: token as u32, slot: 0, position: (ids.len() + step) as u32 };
            scores = llama.forward(&[row], &[0])?;
        }
        println!(
            "{name}: logits within {worst:.4}; {} steps, {wrong} wrong, {close} other choices where the margin is below 0.02",
            greedy.len()
        );
        failed |= wrong > 0 || worst >= 0.05 || greedy.is_empty();
    }
    println!("{}", if failed { "FAILED" } else { "passed" });
    if failed { Err("the recording and this adapter disagree".into()) } else { Ok(()) }
}
