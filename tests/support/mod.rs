//! What several test targets need: one adapter for all tests, and the recorded data.

#![allow(dead_code, reason = "each test target uses a part")]

use std::path::PathBuf;

use exlay::gpu::{Device, DeviceOptions, select};

/// A path inside the project.
pub(crate) fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// A device on the adapter that `EXLAY_TEST_ADAPTER` names, or on the first.
pub(crate) fn device(options: DeviceOptions) -> Device {
    let name = std::env::var("EXLAY_TEST_ADAPTER").ok();
    let adapter = select(name.as_deref()).expect("tests need an adapter: install mesa-vulkan-drivers");
    Device::open(&adapter, options).expect("the adapter opens")
}

/// Mean KL divergence in nats of rows of logits: Σ p·(ln p − ln q), p from `reference`.
pub(crate) fn kl_divergence(reference: &[f32], logits: &[f32], vocabulary: usize) -> f64 {
    let log_softmax = |row: &[f32]| -> Vec<f64> {
        let largest = row.iter().fold(f64::MIN, |a, &b| a.max(f64::from(b)));
        let sum: f64 = row.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
        row.iter().map(|&x| f64::from(x) - largest - sum.ln()).collect()
    };
    let rows = reference.chunks(vocabulary).zip(logits.chunks(vocabulary));
    let total: f64 = rows
        .map(|(p, q)| {
            let (p, q) = (log_softmax(p), log_softmax(q));
            p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
        })
        .sum();
    total / (reference.len() / vocabulary) as f64
}
