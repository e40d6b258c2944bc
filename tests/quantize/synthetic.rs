//! Models that are made up go through the same stages.

use std::path::Path;
use std::process::{Command, Output};

use exlay::formats::config::LlamaConfig;
use exlay::formats::safetensors::Checkpoint;
use serde_json::Value;

use crate::{expect, files};

fn convert(flags: &[&str], output: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exlay"));
    command.args([
        "--json",
        "convert",
        "--synthetic",
        "tiny",
        "--scales",
        "exl2",
        "-b",
        "3",
    ]);
    command.args("-r 2 -l 64 -mr 1 -ml 64".split(' ')).args(flags);
    output.map(|output| command.arg("-cf").arg(output));
    command.output().unwrap()
}

#[test]
fn a_part_of_a_made_up_model_is_converted_the_same_each_time_and_tells_of_the_whole() {
    let home = tempfile::tempdir().unwrap();
    let outputs = ["one", "two"].map(|name| home.path().join(name));
    for output in &outputs {
        let done = convert(&["--layers", "1"], Some(output));
        expect(&done, 0);
        let report: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(report["output"].as_str(), output.to_str());
        let stages = &report["stages"];
        assert_eq!((stages["layers"].as_u64(), stages["all_layers"].as_u64()), (Some(1), Some(2)));
        let [seconds, whole] = ["seconds", "whole_seconds"].map(|key| stages[key].as_f64().unwrap());
        assert!(0.0 < seconds && seconds < whole && whole < 2.0 * seconds, "{seconds} {whole}");
        let parts: Vec<&str> = stages["stages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|share| share["part"].as_str().unwrap())
            .collect();
        assert!(
            ["embedding", "measuring", "quantizing", "head", "writing"]
                .iter()
                .all(|part| parts.contains(part))
        );
    }
    assert_eq!(files(&outputs[0]), files(&outputs[1]));
    let config = LlamaConfig::load(&outputs[0]).unwrap();
    assert_eq!((config.num_hidden_layers, config.hidden_size), (1, 256));
    let checkpoint = Checkpoint::open(&outputs[0]).unwrap();
    assert!(checkpoint.has("model.layers.0.mlp.down_proj.q_weight") && checkpoint.has("lm_head.q_weight"));
}

#[test]
fn without_a_place_to_keep_it_the_result_is_thrown_away() {
    let done = convert(&["--layers", "1"], None);
    expect(&done, 0);
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(report["output"].is_null() && report["bits_per_weight"].as_f64().unwrap() <= 3.0);
    let text = String::from_utf8(done.stderr).unwrap();
    let place =
        text.lines().find_map(|line| line.split_once("given: ")?.1.split_once(" is deleted")).unwrap();
    assert!(!Path::new(place.0).exists());
}

#[test]
fn what_a_made_up_model_cannot_have_is_refused() {
    for (flags, message) in [
        (&["--layers", "3"][..], "1 to 2"),
        (&["--probe-rows", "1", "--layers", "1"], "--layers says nothing"),
        (&["-i", "model"], "--model"),
    ] {
        let done = convert(flags, None);
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && text.contains(message), "{flags:?}: {text}");
    }
}
