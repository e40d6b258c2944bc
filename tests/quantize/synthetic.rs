//! Models that are made up go through the same stages.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use exlay::formats::config::LlamaConfig;
use exlay::formats::safetensors::Checkpoint;
use exlay::gpu::DeviceOptions;
use exlay::model::{Shape, SyntheticFloats};
use exlay::quant::convert::{Conversion, convert};
use exlay::quant::method::Method;
use exlay::quant::room::ConversionPlan;
use exlay::quant::scales::ScaleRule;
use serde_json::Value;

use crate::transform::Silent;
use crate::{expect, files, support};

fn command_line(flags: &[&str], output: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exlay"));
    command.args(["--json", "convert", "--synthetic", "tiny", "--scales", "exl2", "-b", "3"]);
    command.args("-r 2 -l 64 -mr 1 -ml 64".split(' ')).args(flags);
    output.map(|output| command.arg("-cf").arg(output));
    command.output().unwrap()
}

#[test]
fn a_part_of_a_made_up_model_is_converted_the_same_each_time_and_tells_of_the_whole() {
    let home = tempfile::tempdir().unwrap();
    let outputs = ["one", "two"].map(|name| home.path().join(name));
    for output in &outputs {
        let done = command_line(&["--layers", "1"], Some(output));
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
    let done = command_line(&["--layers", "1"], None);
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
        let done = command_line(flags, None);
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && text.contains(message), "{flags:?}: {text}");
    }
}

fn conversion(home: &Path, name: &str) -> Conversion {
    Conversion {
        model: PathBuf::new(),
        synthetic: Some(SyntheticFloats::new(Shape::Tiny, Some(1), 0).unwrap()),
        host_memory: None,
        work: home.join(format!("{name}-work")),
        output: Some(home.join(name)),
        calibration: None,
        column: None,
        bits: 3.0,
        head_bits: 6,
        measurement: None,
        output_measurement: None,
        rotation: None,
        rows: (3, 64),
        measurement_rows: (1, 64),
        shard_bytes: u64::MAX,
        probe_rows: 0,
        method: Method { scales: ScaleRule::Exl2, ..Method::default() },
        resume: true,
    }
}

#[test]
fn a_conversion_stays_within_its_plan_and_is_refused_below_it() {
    let home = tempfile::tempdir().unwrap();
    let free = support::device(DeviceOptions::default());
    let first = conversion(home.path(), "free");
    let config = first.config().unwrap();
    let plan = ConversionPlan::new(&free, &config, &first, (2048, 64)).unwrap();
    convert(&free, &first, &mut Silent).unwrap();
    let peak = free.memory().peak;
    let (told, rows) = (plan.activations + plan.working, 2 * 3 * 64 * 256 * 4);
    // Small linears are tried several at a time, which is among what is small.
    assert!(peak <= plan.device() + rows, "{peak} of {} and {rows}", plan.device());
    assert!(told + rows <= 2 * peak, "{told} and {rows} for {peak}");

    // With no room left for hidden states neither on the device nor on the host, the same bytes.
    let limit = |bytes| DeviceOptions { memory_limit: Some(bytes), ..Default::default() };
    let capped = support::device(limit(plan.device()));
    let second = Conversion { host_memory: Some(plan.host), ..conversion(home.path(), "capped") };
    convert(&capped, &second, &mut Silent).unwrap();
    assert!(capped.memory().peak <= plan.device());
    assert_eq!(files(&home.path().join("free")), files(&home.path().join("capped")));

    let small = support::device(limit(plan.device() - 1));
    let third = conversion(home.path(), "small");
    let error = convert(&small, &third, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("are allowed; allow") && error.contains("--vram"), "{error}");
    let third = Conversion { host_memory: Some(plan.host - 1), ..third };
    let error = convert(&capped, &third, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("--host-memory"), "{error}");
    assert!(!home.path().join("small-work").exists(), "before anything is written");
}

#[test]
fn large_shapes_fit_where_they_should() {
    let home = tempfile::tempdir().unwrap();
    for (shape, device, host) in
        [(Shape::Llama2_13b, 5, 20), (Shape::Llama2_70b, 24, 32), (Shape::Llama2_70b, 12, 32)]
    {
        let options = DeviceOptions { memory_limit: Some(device * 1_000_000_000), ..Default::default() };
        let conversion = Conversion {
            synthetic: Some(SyntheticFloats::new(shape, None, 0).unwrap()),
            host_memory: Some(host * 1_000_000_000),
            rows: (128, 2048),
            measurement_rows: (16, 2048),
            ..conversion(home.path(), "large")
        };
        let config = conversion.config().unwrap();
        let plan =
            ConversionPlan::new(&support::device(options), &config, &conversion, (1024, 2048)).unwrap();
        println!("{shape}: {}", plan.line());
        assert!(plan.pass_rows >= 512, "{shape}: {}", plan.pass_rows);
    }
}
