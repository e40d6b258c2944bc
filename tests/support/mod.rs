//! What several test targets need: one adapter for all tests, and the recorded data.

#![allow(dead_code, reason = "each test target uses a part")]

use std::path::PathBuf;

use exlay::gpu::{Arithmetic, Device, DeviceOptions, select};
use exlay::reference::score::mean_divergence;

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

/// The arithmetics that kernels on this device can have.
pub(crate) fn arithmetics(device: &Device) -> impl Iterator<Item = Arithmetic> + use<> {
    let capabilities = device.capabilities().clone();
    Arithmetic::ALL.into_iter().filter(move |&one| capabilities.allow(one))
}

/// Mean KL divergence in nats of rows of logits: Σ p·(ln p − ln q), p from `reference`.
pub(crate) fn kl_divergence(reference: &[f32], logits: &[f32], vocabulary: usize) -> f64 {
    mean_divergence(logits, reference, vocabulary).expect("finite logits")
}
