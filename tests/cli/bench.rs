//! `exlay bench`: what is told of a model that is made up, and of kernels.

use serde_json::Value;

use crate::{run, stderr, stdout};

fn json(args: &[&str]) -> Value {
    let output = run(&[&["bench"], args, &["--json"]].concat(), 0);
    serde_json::from_str(stdout(&output)).expect("stdout is one JSON object")
}

const TINY: [&str; 8] = ["model", "--synthetic", "tiny", "--bits", "3", "--tokens", "8", "--runs"];

#[test]
fn a_model_is_made_and_timed() {
    let report = json(&[&TINY[..], &["2", "--prompt", "16", "--context-lengths", "0,20"]].concat());
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} in {report}"));
    assert!((2.9..3.1).contains(&number(&report["bits_per_weight"])), "{report}");
    assert!((6.0..6.2).contains(&number(&report["head_bits_per_weight"])));
    assert_eq!(report["prompt"]["tokens_per_second"]["samples"].as_array().unwrap().len(), 2);
    let decode = report["decode"].as_array().unwrap();
    assert_eq!(decode.len(), 2);
    for (decoded, context) in decode.iter().zip([0.0, 20.0]) {
        assert_eq!(number(&decoded["context"]), context);
        let speed = &decoded["tokens_per_second"];
        assert!(number(&speed["least"]) > 0.0 && number(&speed["least"]) <= number(&speed["median"]));
        let (bytes, rate) = (number(&decoded["bytes_per_token"]), number(&decoded["gb_per_s"]));
        assert!((rate - bytes * number(&speed["median"]) / 1e9).abs() < 1e-9 * rate);
        let share = rate / number(&report["bandwidth"]["read_gb_per_s"]["median"]);
        assert!((number(&decoded["share_of_read"]) - share).abs() < 1e-9 * share);
        assert!(number(&decoded["device_seconds_per_token"]) > 0.0);
    }
    // Blocks: 2 · (2·256·256 + 2·256·64 + 3·256·704) weights at 3.0159 bits; head: 256 · 512 at 6.09; two pages of
    // norms. The cache: 2 layers, keys and values of 2 heads of 32 halves, 5 tokens.
    let expected = 1_404_928.0 * number(&report["bits_per_weight"]) / 8.0 + 131_072.0 * 6.0945 / 8.0;
    let bytes = number(&decode[0]["bytes_per_token"]);
    assert!((bytes / expected - 1.0).abs() < 0.05, "{bytes}, expected about {expected}");
    assert_eq!(number(&decode[1]["bytes_per_token"]) - bytes, f64::from(20 * 2 * 2 * 2 * 32 * 2));
    let profile = report["profile"].as_array().unwrap();
    let sum = |key: &str| profile.iter().map(|kernel| number(&kernel[key])).sum::<f64>();
    assert!((sum("share") - 1.0).abs() < 1e-9);
    assert_eq!(sum("count"), number(&report["dispatches_per_token"]));
    assert!(number(&report["dispatches_per_layer"]) >= 1.0);
    assert!(number(&report["memory"]["peak"]) >= number(&report["memory"]["weights"]));
}

#[test]
fn tables_say_what_was_measured() {
    let flags = ["1", "--prompt", "0", "--context-lengths", "0", "--embedding", "host", "--profile"];
    let output = run(&[&["bench"], &TINY[..], &flags].concat(), 0);
    for words in [
        "model       synthetic tiny, 3.0",
        "8 tokens after 0 ",
        "GB/s read",
        "tuning      ",
        "residual_norm ",
        "a layer, ",
    ] {
        assert!(stdout(&output).contains(words), "{words}: {}", stdout(&output));
    }
    assert!(!stdout(&output).contains("prompt of") && !stdout(&output).contains("embed "));
}

/// A profile that is missing is a failure, one that is damaged is ignored, and none is used when it is off.
#[test]
fn profiles_are_off_pinned_or_ignored() {
    let flags = ["1", "--prompt", "0", "--context-lengths", "0", "--json", "--tuning"];
    let bench = |file: &str, code| run(&[&["bench"], &TINY[..], &flags, &[file]].concat(), code);
    let source = |output: &std::process::Output| -> Value {
        let report: Value = serde_json::from_str(stdout(output)).expect("stdout is one JSON object");
        report["tuning"]["source"].clone()
    };
    assert_eq!(source(&bench("off", 0)), "off");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profile.json");
    let file = file.to_str().unwrap();
    assert!(stderr(&bench(file, 1)).contains("profile.json"));
    std::fs::write(file, "{\"adapter\": 1}").unwrap();
    let ignored = bench(file, 0);
    let note = stderr(&ignored);
    assert!(note.contains("profile.json: is no tuning profile") && note.contains("ignored"), "{note}");
    assert_eq!(source(&ignored), "default");

    let name = std::env::var("EXLAY_TEST_ADAPTER").ok();
    let adapter = exlay::gpu::select(name.as_deref()).unwrap();
    let device = exlay::gpu::Device::open(&adapter, exlay::gpu::DeviceOptions::default()).unwrap();
    device.geometry().set([704, 256], Some(16));
    exlay::model::Tuning::of(&adapter, &device).write(std::path::Path::new(file)).unwrap();
    let report: Value = serde_json::from_str(stdout(&bench(file, 0))).unwrap();
    assert_eq!(report["tuning"]["source"], "pinned");
    assert_eq!(report["tuning"]["products"][0]["of_workgroup"], 16);
}

#[test]
fn arithmetics_are_compared_with_single_precision() {
    let tiny = ["arithmetic", "--synthetic", "tiny", "--bits", "3", "--layers", "1", "--tokens", "16"];
    let report = json(&tiny);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} in {report}"));
    let names: Vec<_> =
        report["arithmetics"].as_array().unwrap().iter().map(|one| &one["arithmetic"]).collect();
    let has_halves = report["tier"] != "plain";
    assert_eq!(names, if has_halves { vec!["fx16", "f16"] } else { vec!["fx16"] });
    for one in report["arithmetics"].as_array().unwrap() {
        let (mean, most) = (number(&one["kl_divergence"]), number(&one["kl_divergence_most"]));
        assert!(mean > 0.0 && mean <= most && mean < 1e-5, "{one}");
        assert!(number(&one["logit_difference"]) > 0.0 && number(&one["top1_agreement"]) <= 1.0, "{one}");
    }
    assert!((0.1..512_f64.ln()).contains(&number(&report["entropy"])), "{report}");
    assert_eq!(report["model"], "synthetic tiny, 1 layers");
    let table = stdout(&run(&[&["bench"], &tiny[..], &["--arithmetic", "fx16"]].concat(), 0)).to_owned();
    assert!(
        table.contains("\nfx16 ") && !table.contains("\nf16 ") && table.contains("nats of 6.24"),
        "{table}"
    );
}

#[test]
fn kernels_are_compared_with_an_earlier_run() {
    let report = json(&["kernels", "--filter", "rope", "--samples", "1"]);
    let kernels = report["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), 2, "one row, and those of a prompt");
    assert!(kernels.iter().all(|kernel| kernel["figures"]["microseconds"]["median"].as_f64().unwrap() > 0.0));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("before.json");
    std::fs::write(&file, report.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let again = run(&["bench", "kernels", "--filter", "rope", "--samples", "1", "--compare", file], 0);
    let table = stdout(&again).lines().filter(|line| line.starts_with("rope ")).collect::<Vec<_>>();
    assert!(table.len() == 2 && table.iter().all(|line| line.ends_with('%')), "{}", stdout(&again));
    std::fs::write(directory.path().join("before.json"), "{}").unwrap();
    let bad = run(&["bench", "kernels", "--compare", file], 1);
    assert!(stderr(&bad).contains("--compare"), "{}", stderr(&bad));
}

#[test]
fn wrong_flags_are_refused() {
    for (args, code, named) in [
        (&["model"][..], 2, "--model"),
        (&["model", "--synthetic", "tiny"], 2, "--bits"),
        (&["model", "--synthetic", "8b", "--bits", "3"], 2, "llama3-8b"),
        (&["model", "-m", "dir", "--synthetic", "tiny", "--bits", "3"], 2, "--synthetic"),
        (&["model", "--synthetic", "tiny", "--bits", "1"], 1, "--bits: 1 bits"),
        (&["model", "--synthetic", "tiny", "--bits", "3", "--context", "9000"], 1, "--context: 9000"),
        (
            &["model", "--synthetic", "tiny", "--bits", "3", "--context-lengths", "64", "--context", "64"],
            1,
            "--tokens",
        ),
        (&["kernels", "--filter", "none"], 1, "--filter: no kernel"),
        (&["arithmetic", "--synthetic", "tiny", "--bits", "3", "--layers", "3"], 1, "--layers: 3 layers"),
        (&["arithmetic", "-m", "examples/tiny-stories"], 1, "--model: its weights are not all packed"),
        (&["arithmetic", "--synthetic", "tiny", "--bits", "3", "--data", "text.txt"], 2, "--data"),
        (
            &["arithmetic", "--synthetic", "tiny", "--bits", "3", "--tier", "plain", "--arithmetic", "f16"],
            1,
            "--arithmetic: ",
        ),
    ] {
        let output = run(&[&["bench"], args].concat(), code);
        assert!(stderr(&output).contains(named), "{args:?}: {}", stderr(&output));
    }
}
