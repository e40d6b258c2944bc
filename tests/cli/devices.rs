//! `exlay devices` on the adapters of this machine, and without any.

use serde_json::Value;

use crate::{exlay, run, stderr, stdout};

#[test]
fn adapters_have_names_and_limits() {
    let report: Value = serde_json::from_str(stdout(&run(&["devices", "--json"], 0))).unwrap();
    let adapters = report["adapters"].as_array().unwrap();
    assert!(!adapters.is_empty());
    for (index, adapter) in adapters.iter().enumerate() {
        assert_eq!(adapter["index"], index);
        assert!(!adapter["name"].as_str().unwrap().is_empty());
        // The least that WebGPU allows.
        assert!(adapter["max_binding_bytes"].as_u64().unwrap() >= 128 << 20);
    }
    let table = run(&["devices"], 0);
    assert_eq!(stdout(&table).lines().count(), 1 + adapters.len());
}

#[test]
fn without_a_driver_it_fails_and_says_what_to_install() {
    let output = exlay(&["devices"]).env("VK_DRIVER_FILES", "/nonexistent.json").output().unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    assert!(stderr(&output).contains("mesa-vulkan-drivers"), "{}", stderr(&output));
}
