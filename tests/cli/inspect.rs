//! `exlay inspect` on the models that come with the project.

use std::fs;

use serde_json::Value;

use crate::{path, run, stderr, stdout};

fn json(directory: &str) -> Value {
    serde_json::from_str(stdout(&run(&["inspect", "--json", directory], 0)))
        .expect("stdout is one JSON object")
}

/// Rounded to three decimals.
fn bits(value: &Value) -> f64 {
    (value.as_f64().expect("a number") * 1e3).round() / 1e3
}

#[test]
fn exllamav2s_own_files_have_the_bits_it_reports() {
    for (directory, expected) in
        [("tests/data/tiny-stories-exl2/2.5", 2.484), ("tests/data/tiny-stories-exl2/4.0", 4.0)]
    {
        let report = json(path(directory));
        assert_eq!(bits(&report["bits_per_weight"]), expected);
        // By hand: 128 rows of 8 and 128 of 6 bits, 4-bit scales and a 16-bit maximum of the two groups, two
        // 16-bit numbers for each group, a 32-bit permutation; over 256 × 2048 weights.
        let stored = 128 * 2048 * (8 + 6) + 2 * (2048 * 4 + 16 + 2 * 16) + 256 * 32;
        let head = report["head_bits_per_weight"].as_f64().unwrap();
        assert_eq!(head, f64::from(stored) / f64::from(256 * 2048));
        assert_eq!(report["architecture"], "LlamaForCausalLM");
        assert_eq!(report["parameters"], 3_410_176);
        let linears = report["linears"].as_array().unwrap();
        assert_eq!(linears.len(), 4 * 7);
        assert_eq!(linears[0]["name"], "model.layers.0.self_attn.q_proj");
        assert_eq!(linears[27]["name"], "model.layers.3.mlp.down_proj");
        // Layers have equal shapes, so the mean over layers is that over the model.
        let layers = report["layers"].as_array().unwrap();
        let mean = layers.iter().map(|layer| layer.as_f64().unwrap()).sum::<f64>() / 4.0;
        assert!((mean - report["bits_per_weight"].as_f64().unwrap()).abs() < 1e-12);
    }
}

#[test]
fn a_dense_model() {
    let directory = path("examples/tiny-stories");
    let report = json(directory);
    assert_eq!((bits(&report["bits_per_weight"]), bits(&report["head_bits_per_weight"])), (16.0, 16.0));
    // Each parameter is two bytes of the file, whose header is small.
    let bytes = report["total_bytes"].as_u64().unwrap();
    assert_eq!(bytes, 2 * report["parameters"].as_u64().unwrap());
    let file = fs::metadata("examples/tiny-stories/model.safetensors").unwrap().len();
    assert!(bytes < file && file < bytes + 10_000, "{bytes} of {file}");
}

#[test]
fn tied_heads_and_biases() {
    let tied = json(path("tests/data/variants/tied"));
    assert_eq!((&tied["tied_head"], &tied["bytes"]["head"]), (&Value::from(true), &Value::from(0)));
    let biased = json(path("tests/data/variants/attention-bias"));
    assert_eq!(biased["tied_head"], false);
    assert!(biased["bytes"]["biases"].as_u64().unwrap() > 0);
}

#[test]
fn as_text() {
    insta::assert_snapshot!(
        "inspect-exl2",
        stdout(&run(&["inspect", path("tests/data/tiny-stories-exl2/2.5")], 0))
    );
    insta::assert_snapshot!("inspect-f16", stdout(&run(&["inspect", path("examples/tiny-stories")], 0)));
}

#[test]
fn errors_name_the_file_and_the_tensor() {
    let source = "tests/data/tiny-stories-exl2/2.5";
    let config = fs::read_to_string(format!("{source}/config.json")).unwrap();
    let run_with = |config: &str| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.json"), config).unwrap();
        fs::copy(format!("{source}/output.safetensors"), directory.path().join("output.safetensors"))
            .unwrap();
        let output = run(&["inspect", directory.path().to_str().unwrap()], 1);
        stderr(&output).to_string()
    };
    let more_layers = run_with(&config.replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5"));
    assert!(more_layers.contains("`model.layers.4.self_attn.q_proj.weight`"), "{more_layers}");
    let wider = run_with(&config.replace("\"intermediate_size\": 512", "\"intermediate_size\": 544"));
    assert!(wider.contains("output.safetensors") && wider.contains("gate_proj.q_weight"), "{wider}");
    let other = run_with(&config.replace("LlamaForCausalLM", "MambaForCausalLM"));
    assert!(other.contains("config.json") && other.contains("MambaForCausalLM"), "{other}");
}

#[test]
fn a_context_plans_the_memory_that_generate_then_reports() {
    let directory = "tests/data/tiny-stories-exl2/4.0";
    let plan = |flags: &[&str]| -> Value {
        let args = [&["inspect", "--json", path(directory), "--context", "256"][..], flags].concat();
        let report: Value = serde_json::from_str(stdout(&run(&args, 0))).expect("stdout is one JSON object");
        report["memory"].clone()
    };
    let free = plan(&[]);
    assert_eq!((&free["context"], &free["limit"]), (&Value::from(256), &Value::Null));
    let total = free["total"].as_u64().unwrap();
    let bytes = |part: &str| free[part].as_u64().unwrap();
    assert_eq!(total, bytes("weights") + bytes("cache") + bytes("scratch"));
    let parts: u64 =
        free["parts"].as_array().unwrap().iter().map(|part| part["bytes"].as_u64().unwrap()).sum();
    assert_eq!(parts, bytes("scratch"));

    let capped = plan(&["--vram", &(total - 1).to_string()]);
    assert!(capped["total"].as_u64().unwrap() < total && capped["rows"].as_u64() < free["rows"].as_u64());
    assert_eq!(capped["longest_context"], 512, "all that the model knows");
    assert_eq!(plan(&["--vram", "1MB"])["longest_context"], Value::Null);

    let text = run(&["inspect", path(directory), "--context", "256", "--vram", "1MB"], 0);
    assert!(
        stdout(&text).contains("does not fit into 1,000,000 bytes; no context fits"),
        "{}",
        stdout(&text)
    );
    let error = run(&["inspect", path(directory), "--context", "513"], 1);
    assert!(stderr(&error).contains("--context: 513 tokens"), "{}", stderr(&error));
}
