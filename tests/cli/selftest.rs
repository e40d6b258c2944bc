//! `exlay selftest` on the adapter of this machine. What it says of a kernel that is wrong: `tests/kernels`.

use serde_json::Value;

use crate::{run, stderr, stdout};

#[test]
fn every_kernel_passes_and_is_listed() {
    let output = run(&["selftest", "--quick", "--json"], 0);
    let report: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert!(!report["adapter"].as_str().unwrap().is_empty());
    let kernels = report["kernels"].as_array().unwrap();
    assert!(kernels.len() > 10);
    for kernel in kernels {
        // The plain tier has no half-precision arithmetic.
        if kernel["verdict"] == "skipped: needs half-precision arithmetic" {
            assert_eq!(kernel["tier"], "plain", "{kernel}");
            continue;
        }
        assert_eq!(kernel["verdict"], "passed", "{kernel}");
        assert!(kernel["worst_error"].as_f64().unwrap() <= kernel["bound"].as_f64().unwrap(), "{kernel}");
        for name in ["kernel", "tier", "shape"] {
            assert!(!kernel[name].as_str().unwrap().is_empty(), "{kernel}");
        }
    }
}

#[test]
fn what_was_skipped_has_not_passed() {
    let output = run(&["selftest", "--quick", "--tier", "plain", "--vram", "1"], 1);
    assert!(stdout(&output).contains("skipped: needs "), "{}", stdout(&output));
    assert!(!stdout(&output).contains("passed"), "{}", stdout(&output));
    assert!(stderr(&output).contains("no check could run"), "{}", stderr(&output));
}
