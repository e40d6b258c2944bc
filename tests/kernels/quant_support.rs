//! Numbers for the tests of the quantizer's kernels, and devices until `support` is merged.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use exlay::gpu::{Device, DeviceOptions, Tier};

/// Each tier, without and with bounds checks.
pub(crate) fn devices() -> impl Iterator<Item = (Device, bool)> {
    static DEVICES: OnceLock<Mutex<HashMap<(Tier, bool), Device>>> = OnceLock::new();
    let adapter = exlay::gpu::select(std::env::var("EXLAY_TEST_ADAPTER").ok().as_deref()).unwrap();
    let best = adapter.capabilities().tier();
    Tier::ALL
        .into_iter()
        .filter(move |&tier| tier <= best)
        .flat_map(|tier| [(tier, false), (tier, true)])
        .map(move |(tier, checked)| {
            let mut devices = DEVICES.get_or_init(Mutex::default).lock().unwrap();
            let options = || DeviceOptions { tier: Some(tier), checked, ..Default::default() };
            let device =
                devices.entry((tier, checked)).or_insert_with(|| Device::open(&adapter, options()).unwrap());
            (device.clone(), checked)
        })
}
