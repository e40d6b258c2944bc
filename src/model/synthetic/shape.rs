//! The models whose sizes a synthetic one can have.

use std::fmt;
use std::str::FromStr;

use crate::formats::config::LlamaConfig;
use crate::formats::rope::{Rope, RopeScaling};

/// Sizes of a published model, from its config.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Two small layers, for tests.
    Tiny,
    /// TinyLlama 1.1B.
    TinyLlama,
    /// Llama 2 7B.
    Llama2_7b,
    /// Llama 3 8B.
    Llama3_8b,
    /// Llama 2 13B.
    Llama2_13b,
    /// Llama 2 70B.
    Llama2_70b,
}

impl Shape {
    /// All of them, smallest first.
    pub const ALL: [Self; 6] =
        [Self::Tiny, Self::TinyLlama, Self::Llama2_7b, Self::Llama3_8b, Self::Llama2_13b, Self::Llama2_70b];

    /// What it is called on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::TinyLlama => "tinyllama",
            Self::Llama2_7b => "7b",
            Self::Llama3_8b => "llama3-8b",
            Self::Llama2_13b => "13b",
            Self::Llama2_70b => "70b",
        }
    }

    /// Hidden size, size of the MLP, layers, query heads, key and value heads, vocabulary.
    fn sizes(self) -> [usize; 6] {
        match self {
            Self::Tiny => [256, 704, 2, 8, 2, 512],
            Self::TinyLlama => [2048, 5632, 22, 32, 4, 32_000],
            Self::Llama2_7b => [4096, 11_008, 32, 32, 32, 32_000],
            Self::Llama3_8b => [4096, 14_336, 32, 32, 8, 128_256],
            Self::Llama2_13b => [5120, 13_824, 40, 40, 40, 32_000],
            Self::Llama2_70b => [8192, 28_672, 80, 64, 8, 32_000],
        }
    }

    /// The configuration of a model of this shape, for contexts of up to 8192 tokens.
    pub fn config(self) -> LlamaConfig {
        let [hidden, inner, layers, heads, kv_heads, vocabulary] = self.sizes();
        LlamaConfig {
            architecture: "LlamaForCausalLM".to_owned(),
            hidden_size: hidden,
            intermediate_size: inner,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: hidden / heads,
            vocab_size: vocabulary,
            max_position_embeddings: 8192,
            rms_norm_eps: 1e-5,
            rope: Rope {
                theta: if self == Self::Llama3_8b { 500_000.0 } else { 10_000.0 },
                scaling: RopeScaling::Default,
            },
            sliding_window: None,
            tie_word_embeddings: false,
            attention_bias: false,
            mlp_bias: false,
            bos_token_id: None,
            eos_token_id: Vec::new(),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|shape| shape.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("unknown shape `{text}`; there are {names}")
        })
    }
}
