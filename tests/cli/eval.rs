//! `exlay eval`: its fields, and what is refused.

use std::fs;

use serde_json::Value;

use crate::{path, run, stderr, stdout};

const PACKED: &str = "tests/data/tiny-stories-exl2/2.5";
const STORIES: &str = "examples/tiny-stories";

fn eval(flags: &[&str], code: i32) -> std::process::Output {
    run(&[&["eval", "--model", path(PACKED)], flags].concat(), code)
}

#[test]
fn scores_as_json_are_the_same_streamed() {
    let flags = [
        "--data",
        path("examples/tiny-stories/heldout.parquet"),
        "--reference",
        path(STORIES),
        "--context",
        "33",
        "--windows",
        "2",
        "--json",
    ];
    let report = |more: &[&str]| -> Value {
        serde_json::from_str(stdout(&eval(&[&flags[..], more].concat(), 0)))
            .expect("stdout is one JSON object")
    };
    let (whole, streamed) = (report(&[]), report(&["--stream"]));
    assert_eq!((&whole["tokens"], &whole["windows"], &whole["context"]), (&66.into(), &2.into(), &33.into()));
    for name in ["perplexity", "kl_divergence", "top1_agreement"] {
        let value = whole[name].as_f64().unwrap_or_else(|| panic!("{name}"));
        assert!(value > 0.0 && whole[format!("{name}_se")].is_f64(), "{name}: {value}");
        assert_eq!((name, value), (name, streamed[name].as_f64().unwrap()));
    }
    assert!(!whole["adapter"].as_str().unwrap().is_empty());
}

#[test]
fn a_text_file_as_text() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("story.txt");
    fs::write(&file, "The little fox was on a train, and the fox was on a train.").unwrap();
    let output = eval(&["-d", file.to_str().unwrap()], 0);
    assert!(stdout(&output).starts_with("perplexity       "), "{}", stdout(&output));
    assert!(stdout(&output).contains("windows: 1 of 16"), "{}", stdout(&output));
    assert!(!stdout(&output).contains("KL divergence"), "{}", stdout(&output));
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let short = directory.path().join("short.txt");
    fs::write(&short, "a").unwrap();
    let short = short.to_str().unwrap();
    let heldout = path("examples/tiny-stories/heldout.parquet");
    for (flags, named) in [
        (&["-d", short][..], "short.txt: 1 tokens of text where at least 2 are needed"),
        (&["-d", "no-such.parquet"], "no-such.parquet"),
        (&["-d", heldout, "--column", "prose"], "prose"),
        (&["-d", heldout, "--reference", "tests/data/variants/gqa"], "--reference: has 331 tokens"),
        (&["-d", heldout, "--vram", "1M"], "--stream holds one layer at a time"),
    ] {
        let output = eval(flags, 1);
        assert_eq!(stdout(&output), "", "{named}");
        assert!(stderr(&output).contains(named), "{named}: {}", stderr(&output));
    }
    assert!(stderr(&eval(&["-d", heldout, "--context", "1"], 2)).contains("--context"));
}
