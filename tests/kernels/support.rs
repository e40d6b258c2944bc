//! Devices that the tests share, and how a case is checked on all of them.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use exlay::gpu::{Adapter, Device, DeviceOptions, Tier};
use exlay::selftest::{Case, Fault, Verdict, outcome};

/// The adapter under test.
pub(crate) fn adapter() -> Adapter {
    let name = std::env::var("EXLAY_TEST_ADAPTER").ok();
    exlay::gpu::select(name.as_deref())
        .unwrap_or_else(|error| panic!("kernel tests need an adapter: {error}"))
}

/// The tiers that the adapter has.
pub(crate) fn tiers() -> &'static [Tier] {
    static TIERS: OnceLock<Vec<Tier>> = OnceLock::new();
    TIERS.get_or_init(|| {
        let adapter = adapter();
        let best = adapter.capabilities().tier();
        println!("{}, {}, tier {best}", adapter.name(), adapter.driver());
        if let Ok(wanted) = std::env::var("EXLAY_TEST_TIER") {
            let wanted: Tier = wanted.parse().unwrap();
            assert!(best >= wanted, "EXLAY_TEST_TIER={wanted}, but {} reaches {best} only", adapter.name());
        }
        Tier::ALL.into_iter().filter(|&tier| tier <= best).collect()
    })
}

/// An open device with these options.
pub(crate) fn open(options: DeviceOptions) -> Device {
    Device::open(&adapter(), options).unwrap()
}

/// The device of a tier that all tests share.
pub(crate) fn device(tier: Tier, checked: bool) -> Device {
    static DEVICES: OnceLock<Mutex<HashMap<(Tier, bool), Device>>> = OnceLock::new();
    let mut devices = DEVICES.get_or_init(Mutex::default).lock().unwrap();
    devices
        .entry((tier, checked))
        .or_insert_with(|| open(DeviceOptions { tier: Some(tier), checked, ..Default::default() }))
        .clone()
}

/// Each tier, without and with bounds checks.
pub(crate) fn devices() -> impl Iterator<Item = (Device, bool)> {
    let checks = [false, true];
    tiers().iter().flat_map(move |&tier| checks.map(|checked| (device(tier, checked), checked)))
}

/// Runs a case on every device that has its arithmetic; then a device that sees one wrong weight must fail.
pub(crate) fn check(case: &dyn Case) {
    for (device, checked) in devices().filter(|(device, _)| device.capabilities().allow(case.arithmetic())) {
        for seed in [1, 2] {
            let outcome = outcome(&device, case, seed, Fault::None).unwrap();
            assert_eq!(outcome.verdict, Verdict::Passed, "checked: {checked}, seed {seed}: {outcome:?}");
        }
        let outcome = outcome(&device, case, 3, Fault::OneWrong).unwrap();
        assert_eq!(outcome.verdict, Verdict::Failed, "one wrong weight: {outcome:?}");
    }
}
