//! ExLlamaV2's own files against its own logits, and the dense model against transformers' text.

use exlay::gpu::{Arithmetic, Device, DeviceOptions};
use exlay::model::{Placement, Row};

use super::{load, logits, recorded, support, tiers, worst};

/// ExLlamaV2 computes in half precision; exact arithmetic differs from its recording by 0.032 and 1.3e-5.
const BOUND: f32 = 0.06;
const KL_BOUND: f64 = 5e-5;

#[test]
fn files_of_exllamav2_give_its_logits() {
    for (device, name) in devices() {
        for bits in ["2.5", "4.0"] {
            let directory = support::path("tests/data/tiny-stories-exl2").join(bits);
            // Whole prompts; and rows one by one and by eights, which go through the products of generation.
            for rows in [256, 1, 8] {
                let mut model = load(&device, &directory, rows, 256, Placement::Device);
                for tokens in [1, 7, 40, 200] {
                    if rows < 256 && tokens > 40 {
                        continue;
                    }
                    let recorded = recorded(&directory, tokens);
                    let found = logits(&mut model, &recorded.ids);
                    let error = worst(&found, &recorded.logits);
                    let kl = support::kl_divergence(&recorded.logits, &found, 2048);
                    println!("{bits} bpw, {tokens} tokens, {rows} rows, {name}: {error:.4}, KL {kl:.2e}");
                    assert!(error < BOUND && kl < KL_BOUND, "{bits} bpw, {tokens} tokens: {error}, KL {kl}");
                }
            }
        }
    }
}

/// Every tier with every arithmetic that it has.
fn devices() -> Vec<(Device, String)> {
    let all = tiers().into_iter().flat_map(|device| {
        let tier = Some(device.tier());
        support::arithmetics(&device).map(move |arithmetic| {
            let options = DeviceOptions { tier, arithmetic: Some(arithmetic), ..Default::default() };
            (support::device(options), format!("{}, {arithmetic}", device.tier()))
        })
    });
    all.collect()
}

/// The bound that the arithmetic must keep of a whole model; blocks of 16-bit fixed point keep it by far.
const ARITHMETIC_KL: f64 = 1e-5;

#[test]
fn the_arithmetic_changes_nothing_that_matters() {
    for bits in ["2.5", "4.0"] {
        let directory = support::path("tests/data/tiny-stories-exl2").join(bits);
        let ids = recorded(&directory, 200).ids;
        let run = |arithmetic| {
            let device =
                support::device(DeviceOptions { arithmetic: Some(arithmetic), ..Default::default() });
            let mut model = load(&device, &directory, 8, 256, Placement::Device);
            assert_eq!(model.arithmetic(), Some(arithmetic));
            logits(&mut model, &ids)
        };
        let single = run(Arithmetic::Single);
        let device = support::device(DeviceOptions::default());
        for arithmetic in support::arithmetics(&device).filter(|&one| one != Arithmetic::Single) {
            let found = run(arithmetic);
            let kl = support::kl_divergence(&single, &found, 2048);
            println!(
                "{bits} bpw, {arithmetic}: KL {kl:.2e}, largest difference {:.1e}",
                worst(&found, &single)
            );
            assert!(single != found && kl < ARITHMETIC_KL, "{bits} bpw, {arithmetic}: {kl}");
        }
    }
}

#[test]
fn tiny_stories_continues_as_transformers_does() {
    let golden: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(support::path("tests/data/tiny-stories-golden.json")).unwrap(),
    )
    .unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    for device in tiers() {
        let mut model = load(&device, &support::path("examples/tiny-stories"), 64, 256, Placement::Device);
        for (prompt, case) in golden.as_object().unwrap() {
            let ids: Vec<u32> = numbers(&case["ids"]).iter().map(|&id| id as u32).collect();
            let vocabulary = 2048;
            let mut scores = logits(&mut model, &ids).split_off((ids.len() - 1) * vocabulary);
            let first: Vec<f32> = numbers(&case["last_logits_first16"]).iter().map(|&x| x as f32).collect();
            assert!(worst(&scores[..16], &first) < 0.05, "{prompt}");
            // The reference's own tokens are fed, so that a step may be compared after one that was too close.
            let steps = numbers(&case["greedy"]).into_iter().zip(numbers(&case["margins"]));
            for (step, (token, margin)) in steps.enumerate() {
                let best = (0..vocabulary).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
                assert!(best as f64 == token || margin < 0.02, "{prompt}, step {step}: {best} for {token}");
                let row = Row { token: token as u32, slot: 0, position: (ids.len() + step) as u32 };
                scores = model.forward(&[row], &[0]).unwrap();
            }
        }
    }
}
