//! `config.json` and `generation_config.json`.

use exlay::formats::config::{GenerationConfig, LlamaConfig};
use exlay::formats::rope::RopeScaling;

use serde_json::{Value, json};

use crate::{data, directory, refused};

fn variant(name: &str) -> LlamaConfig {
    LlamaConfig::load(data("variants").join(name)).unwrap()
}

#[test]
fn variants_are_read() {
    for entry in std::fs::read_dir(data("variants")).unwrap() {
        let config = LlamaConfig::load(entry.unwrap().path()).unwrap();
        assert_eq!((config.hidden_size, config.intermediate_size, config.num_hidden_layers), (96, 160, 2));
        assert_eq!(
            (config.num_attention_heads, config.vocab_size, config.max_position_embeddings),
            (6, 331, 256)
        );
        assert_eq!((config.bos_token_id, config.eos_token_id.as_slice()), (Some(1), &[2][..]));
        assert_eq!(config.rms_norm_eps, 1e-5);
    }
    assert_eq!(variant("gqa").num_key_value_heads, 2);
    assert_eq!(variant("mha").num_key_value_heads, 6);
    assert_eq!(variant("mqa").num_key_value_heads, 1);
    assert_eq!((variant("gqa").head_dim, variant("head-dim").head_dim), (16, 32));
    assert_eq!((variant("head-dim").query_size(), variant("head-dim").key_value_size()), (192, 64));
    assert!(variant("tied").tie_word_embeddings && !variant("gqa").tie_word_embeddings);
    assert!(variant("attention-bias").attention_bias && !variant("attention-bias").mlp_bias);
    assert!(variant("mlp-bias").mlp_bias && !variant("mlp-bias").attention_bias);
    assert_eq!((variant("theta").rope.theta, variant("gqa").rope.theta), (500_000.0, 10_000.0));
    assert_eq!(variant("rope-linear").rope.scaling, RopeScaling::Linear { factor: 4.0 });
    assert_eq!(variant("sliding-window").sliding_window, Some(24));
    assert_eq!(variant("sliding-window").architecture, "MistralForCausalLM");
    assert_eq!(variant("gqa").sliding_window, None);
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 64.0,
    };
    assert_eq!(variant("rope-llama3").rope.scaling, llama3);
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        original_max_position_embeddings: 64.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: None,
        mscale: None,
        mscale_all_dim: None,
        truncate: true,
    };
    assert_eq!(variant("rope-yarn").rope.scaling, yarn);
}

#[test]
fn generation_config_is_read() {
    let config = GenerationConfig::load(data("tiny-stories-exl2/4.0")).unwrap();
    assert_eq!((config.bos_token_id, config.eos_token_id.as_slice()), (Some(1), &[2][..]));
    assert_eq!((config.do_sample, config.temperature, config.top_k), (Some(true), Some(0.8), Some(40)));
    assert_eq!(GenerationConfig::load(data("variants/gqa")).unwrap(), GenerationConfig::default());
}

/// The smallest configuration that loads, with these keys changed; `null` is not removed.
fn with(changes: Value) -> exlay::Result<LlamaConfig> {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
        "num_attention_heads": 4, "vocab_size": 50,
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    LlamaConfig::load(directory(&[("config.json", config.to_string().as_bytes())]).path())
}

/// As [`with`], for a Mistral.
fn mistral(changes: Value) -> exlay::Result<LlamaConfig> {
    let mut changes = changes;
    changes["architectures"] = json!(["MistralForCausalLM"]);
    with(changes)
}

#[test]
fn absent_keys_have_the_defaults_of_transformers() {
    let llama = with(json!({})).unwrap();
    assert_eq!((llama.num_key_value_heads, llama.head_dim, llama.max_position_embeddings), (4, 16, 2048));
    assert_eq!((llama.rms_norm_eps, llama.rope.theta, llama.sliding_window), (1e-6, 10_000.0, None));
    assert_eq!((llama.bos_token_id, llama.eos_token_id.len()), (None, 0));
    assert_eq!(
        with(json!({"head_dim": null, "num_key_value_heads": null, "rope_scaling": null})).unwrap(),
        llama
    );
    let heads = json!({"num_attention_heads": 16, "hidden_size": 128});
    let found = mistral(heads).unwrap();
    assert_eq!((found.num_key_value_heads, found.sliding_window), (8, Some(4096)));
    assert_eq!(found.max_position_embeddings, 131_072);
    assert_eq!(
        mistral(json!({"sliding_window": null, "num_key_value_heads": 2})).unwrap().sliding_window,
        None
    );
    assert_eq!(with(json!({"sliding_window": 24})).unwrap().sliding_window, None);
}

#[test]
fn both_spellings_of_rope() {
    let linear = RopeScaling::Linear { factor: 2.0 };
    for changes in [
        json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2}}),
        json!({"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        json!({"rope_parameters": {"rope_type": "linear", "rope_theta": 500000, "factor": 2.0}}),
        json!({"rope_theta": 5e5, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
    ] {
        let rope = with(changes).unwrap().rope;
        assert_eq!((rope.theta, rope.scaling), (5e5, linear.clone()));
    }
    let yarn = json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "max_position_embeddings": 512});
    match with(yarn).unwrap().rope.scaling {
        RopeScaling::Yarn { original_max_position_embeddings, .. } => {
            assert_eq!(original_max_position_embeddings, 512.0);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn end_of_sequence_is_a_number_or_a_list() {
    assert_eq!(with(json!({"eos_token_id": 7})).unwrap().eos_token_id, [7]);
    assert_eq!(with(json!({"eos_token_id": [7, 49]})).unwrap().eos_token_id, [7, 49]);
    assert_eq!(with(json!({"eos_token_id": null})).unwrap().eos_token_id, [0; 0]);
    refused(with(json!({"eos_token_id": [7, 50]})), &["config.json", "eos_token_id 50", "vocabulary"]);
    refused(with(json!({"bos_token_id": -1})), &["config.json", "bos_token_id", "-1"]);
    refused(with(json!({"eos_token_id": "</s>"})), &["eos_token_id", "</s>"]);
}

#[test]
fn other_models_are_refused_by_name() {
    for (architectures, word) in [
        (json!(["Qwen2ForCausalLM"]), "Qwen2ForCausalLM"),
        (json!(["LlamaForSequenceClassification"]), "LlamaForSequenceClassification"),
        (json!([]), "0 entries"),
        (json!(["LlamaForCausalLM", "MistralForCausalLM"]), "2 entries"),
        (json!("LlamaForCausalLM"), "not a list"),
        (json!([1]), "one name"),
        (json!(null), "missing"),
    ] {
        let supported = ["config.json", word, "LlamaForCausalLM, MistralForCausalLM"];
        refused(with(json!({"architectures": architectures})), &supported);
    }
    refused(with(json!({"model_type": "granite"})), &["granite", "LlamaForCausalLM"]);
    refused(with(json!({"hidden_act": "gelu"})), &["hidden_act", "gelu", "silu"]);
    refused(with(json!({"pretraining_tp": 2})), &["pretraining_tp is 2"]);
    refused(with(json!({"partial_rotary_factor": 0.5})), &["partial_rotary_factor is 0.5"]);
    refused(with(json!({"num_local_experts": 8})), &["num_local_experts is 8"]);
    refused(with(json!({"use_qk_norm": true})), &["use_qk_norm is true"]);
    refused(
        with(json!({"layer_types": ["full_attention", "sliding_attention"]})),
        &["layer_types", "sliding_attention"],
    );
    for method in ["gptq", "awq", "fp8", "bitsandbytes"] {
        let words = ["quant_method", method, "exl2"];
        refused(with(json!({"quantization_config": {"quant_method": method}})), &words);
    }
    refused(with(json!({"quantization_config": {"bits": 4}})), &["quant_method unknown"]);
    let neutral = json!({
        "model_type": "llama", "hidden_act": "silu", "pretraining_tp": 1, "use_qk_norm": false, "unknown_key": [1],
        "quantization_config": {"quant_method": "exl2", "bits": 3.0}, "layer_types": ["full_attention"],
    });
    with(neutral).unwrap();
}

#[test]
fn other_rope_types_are_refused_by_name() {
    for kind in ["dynamic", "longrope", "ntk", "su", "mrope"] {
        let words = ["config.json", kind, "default, linear, llama3, yarn"];
        refused(with(json!({"rope_scaling": {"rope_type": kind, "factor": 2.0}})), &words);
        refused(with(json!({"rope_parameters": {"type": kind, "factor": 2.0}})), &words);
    }
    for (scaling, word) in [
        (json!({"factor": 2.0}), "rope_type is missing"),
        (json!({"rope_type": 3}), "rope_type is 3"),
        (json!({"rope_type": "linear"}), "factor is missing"),
        (json!({"rope_type": "linear", "factor": 0}), "factor of linear RoPE is 0"),
        (json!({"rope_type": "linear", "factor": "2"}), "rope_scaling.factor"),
        (json!({"rope_type": "yarn", "factor": -4.0}), "factor of yarn RoPE is -4"),
        (json!({"rope_type": "llama3", "factor": 8.0}), "low_freq_factor is missing"),
        (json!({"rope_type": "yarn", "factor": 4, "partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (
            json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
                "original_max_position_embeddings": 64}),
            "must be larger",
        ),
        (json!("linear"), "rope_scaling is"),
    ] {
        refused(with(json!({"rope_scaling": scaling})), &["config.json", word]);
    }
    let (a, b) = (json!({"rope_type": "linear", "factor": 2}), json!({"rope_type": "linear", "factor": 3}));
    refused(
        with(json!({"rope_scaling": a, "rope_parameters": b})),
        &["rope_parameters and rope_scaling differ"],
    );
    refused(with(json!({"rope_theta": 1.0})), &["rope_theta is 1"]);
}

#[test]
fn impossible_sizes_are_refused() {
    for key in ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
    {
        refused(with(json!({key: null})), &["config.json", key, "missing"]);
        for value in [json!(0), json!(u64::MAX), json!(1_u64 << 40)] {
            refused(with(json!({key: value})), &["config.json", key, &value.to_string()]);
        }
        for value in [json!(-1), json!(1.5), json!("64"), json!([64]), json!(1e30)] {
            refused(with(json!({key: value})), &["config.json", key, "whole number"]);
        }
    }
    refused(with(json!({"num_key_value_heads": 3})), &["num_key_value_heads is 3", "divide"]);
    refused(with(json!({"num_key_value_heads": 8})), &["num_key_value_heads is 8", "divide"]);
    refused(with(json!({"num_key_value_heads": 0})), &["num_key_value_heads"]);
    for head_dim in [15, 20, 264, 512] {
        let named = format!("head_dim is {head_dim}");
        refused(with(json!({"head_dim": head_dim})), &["config.json", &named, "multiples of 8 up to 256"]);
    }
    refused(with(json!({"head_dim": 1 << 20})), &["config.json", "head_dim"]);
    for head_dim in [8, 40, 256] {
        assert_eq!(with(json!({"head_dim": head_dim})).unwrap().head_dim, head_dim);
    }
    refused(with(json!({"hidden_size": 66})), &["no multiple", "head_dim"]);
    refused(with(json!({"max_position_embeddings": 0})), &["max_position_embeddings"]);
    refused(mistral(json!({"sliding_window": 0, "num_key_value_heads": 2})), &["sliding_window"]);
    refused(with(json!({"rms_norm_eps": -1e-5})), &["rms_norm_eps"]);
    refused(with(json!({"tie_word_embeddings": "yes"})), &["tie_word_embeddings", "true or false"]);
}

#[test]
fn damaged_files_are_refused() {
    refused(LlamaConfig::load(directory(&[]).path()), &["config.json", "missing"]);
    for text in ["", "[]", "null", "{\"hidden_size\":", "{\"rms_norm_eps\":1e999}", "\u{0}"] {
        refused(LlamaConfig::load(directory(&[("config.json", text.as_bytes())]).path()), &["config.json"]);
        let generation = directory(&[("generation_config.json", text.as_bytes())]);
        refused(GenerationConfig::load(generation.path()), &["generation_config.json"]);
    }
    let bad = directory(&[("generation_config.json", br#"{"top_k": -1}"#)]);
    refused(GenerationConfig::load(bad.path()), &["generation_config.json", "top_k is -1"]);
}
