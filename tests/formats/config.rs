//! `config.json` and `generation_config.json`.

use exlay::formats::config::{GenerationConfig, LlamaConfig};
use exlay::formats::rope::RopeScaling;

use crate::data;

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
