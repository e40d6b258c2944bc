//! `config.json` of the supported architectures, and `generation_config.json`.
//!
//! What is not supported is refused by name. Sizes are checked so far that products of two of them fit
//! a usize; whether the tensors have those sizes is for their reader.

use std::path::Path;

use serde_json::Value;

use super::json::{Object, load_object};
use super::rope::Rope;
use super::rope_config;
use crate::error::{Error, Result};

/// The supported entries of `architectures`, each with its `model_type`.
pub const ARCHITECTURES: [(&str, &str); 2] =
    [("LlamaForCausalLM", "llama"), ("MistralForCausalLM", "mistral")];

/// Largest `head_dim` that attention takes; it must also be a multiple of 8.
const MOST_HEAD_DIM: usize = 256;

/// Switches that change the computation, with the values under which they do not.
const NEUTRAL: [(&str, &[f64]); 14] = [
    ("pretraining_tp", &[0.0, 1.0]),
    ("partial_rotary_factor", &[1.0]),
    ("num_experts", &[0.0, 1.0]),
    ("num_local_experts", &[0.0, 1.0]),
    ("use_qk_norm", &[0.0]),
    ("qk_norm", &[0.0]),
    ("alibi", &[0.0]),
    ("logit_scale", &[1.0]),
    ("logits_scaling", &[1.0]),
    ("embedding_multiplier", &[1.0]),
    ("residual_multiplier", &[1.0]),
    ("attention_multiplier", &[]),
    ("attn_logit_softcapping", &[0.0]),
    ("final_logit_softcapping", &[0.0]),
];

/// The hyper-parameters of a Llama or Mistral model.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// One of [`ARCHITECTURES`].
    pub architecture: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub num_hidden_layers: usize,
    /// Query heads, a multiple of the KV heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head, even; not always `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// The longest context, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f32,
    /// Rotary embedding.
    pub rope: Rope,
    /// Positions that a query sees, itself included; `None` is all before it.
    pub sliding_window: Option<usize>,
    /// Whether the head is the embedding; a stored `lm_head` wins over it.
    pub tie_word_embeddings: bool,
    /// Whether q, k, v and o have biases.
    pub attention_bias: bool,
    /// Whether gate, up and down have biases.
    pub mlp_bias: bool,
    /// Beginning of sequence; below `vocab_size`.
    pub bos_token_id: Option<u32>,
    /// Ends of sequence; empty when the file names none.
    pub eos_token_id: Vec<u32>,
}

impl LlamaConfig {
    /// Reads `config.json` in `directory`. Keys that it lacks have the defaults of transformers, but
    /// for the sizes of the matrices, which must be there, and the token ids, which have none.
    ///
    /// # Errors
    /// If the file is missing or damaged, or describes something that is not supported.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self> {
        let path = directory.as_ref().join("config.json");
        let object = load_object(&path)?.ok_or_else(|| {
            Error::file(&path, "is missing; give a Hugging Face model directory, which holds a config.json")
        })?;
        Self::from_object(&object)
    }

    fn from_object(object: &Object) -> Result<Self> {
        let architecture = architecture(object)?;
        refuse_unsupported(object)?;
        let mistral = architecture == "MistralForCausalLM";
        let size = |key: &str, largest: usize| object.required_size(key, largest);

        let hidden_size = size("hidden_size", 1 << 16)?;
        let num_attention_heads = size("num_attention_heads", 1 << 12)?;
        let default_kv =
            if mistral && !object.contains("num_key_value_heads") { 8 } else { num_attention_heads };
        let num_key_value_heads = object.size("num_key_value_heads", 1 << 12)?.unwrap_or(default_kv);
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            let heads = format!("num_attention_heads is {num_attention_heads}, num_key_value_heads");
            return Err(
                object.error(format!("{heads} is {num_key_value_heads}; the second must divide the first"))
            );
        }
        let head_dim = match object.size("head_dim", 1 << 10)? {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
            None => {
                let message = "hidden_size is no multiple of num_attention_heads; give head_dim";
                return Err(object.error(message));
            }
        };
        if !head_dim.is_multiple_of(8) || head_dim > MOST_HEAD_DIM {
            let message =
                format!("head_dim is {head_dim}; supported are multiples of 8 up to {MOST_HEAD_DIM}");
            return Err(object.error(message));
        }
        let vocab_size = size("vocab_size", 1 << 24)?;
        let default_positions = if mistral { 4096 * 32 } else { 2048 };
        let max_position_embeddings =
            object.size("max_position_embeddings", 1 << 27)?.unwrap_or(default_positions);
        let sliding_window = match mistral {
            true if object.contains("sliding_window") => object.size("sliding_window", 1 << 30)?,
            true => Some(4096),
            false => None,
        };
        let rms_norm_eps = object.number("rms_norm_eps")?.unwrap_or(1e-6);
        if !(0.0..=1.0).contains(&rms_norm_eps) {
            return Err(object.error(format!("rms_norm_eps is {rms_norm_eps}; it must lie in 0..=1")));
        }
        let bos = token_ids(object, "bos_token_id", Some(vocab_size))?;
        Ok(Self {
            architecture,
            hidden_size,
            intermediate_size: size("intermediate_size", 1 << 20)?,
            num_hidden_layers: size("num_hidden_layers", 1 << 12)?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            vocab_size,
            max_position_embeddings,
            rms_norm_eps: rms_norm_eps as f32,
            rope: rope_config::read(object, max_position_embeddings)?,
            sliding_window,
            tie_word_embeddings: object.flag("tie_word_embeddings")?.unwrap_or(false),
            attention_bias: object.flag("attention_bias")?.unwrap_or(false),
            mlp_bias: object.flag("mlp_bias")?.unwrap_or(false),
            bos_token_id: bos.first().copied(),
            eos_token_id: token_ids(object, "eos_token_id", Some(vocab_size))?,
        })
    }

    /// Refuses a context of no tokens or of more than the model knows.
    ///
    /// # Errors
    /// [`Error::Argument`] that names `--context`.
    pub fn check_context(&self, context: usize) -> Result<()> {
        if context == 0 || context > self.max_position_embeddings {
            let message =
                format!("{context} tokens where the model knows 1 to {}", self.max_position_embeddings);
            return Err(Error::argument("--context", message));
        }
        Ok(())
    }

    /// Output features of the query projection.
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Output features of the key projection, and of the value projection.
    pub fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }
}

fn architecture(object: &Object) -> Result<String> {
    let supported = ARCHITECTURES.map(|(name, _)| name).join(", ");
    let refuse = |found: String| Err(object.error(format!("{found}; supported are: {supported}")));
    let names = match object.get("architectures") {
        Some(Value::Array(names)) => names.as_slice(),
        Some(other) => return refuse(format!("architectures is {other}, not a list of one name")),
        None => return refuse("architectures is missing".into()),
    };
    let [Value::String(name)] = names else {
        return refuse(format!("architectures has {} entries, one name is needed", names.len()));
    };
    let Some((_, model_type)) = ARCHITECTURES.iter().find(|(known, _)| known == name) else {
        return refuse(format!("the architecture is {name}"));
    };
    match object.get("model_type") {
        Some(Value::String(found)) if found != model_type => {
            refuse(format!("model_type is {found}, which is not that of {name}"))
        }
        _ => Ok(name.clone()),
    }
}

/// Refuses what would make the model another one than it is taken for.
fn refuse_unsupported(object: &Object) -> Result<()> {
    match object.get("hidden_act") {
        None => {}
        Some(Value::String(name)) if name == "silu" => {}
        Some(other) => return Err(object.error(format!("hidden_act is {other}; supported is: silu"))),
    }
    for (key, neutral) in NEUTRAL {
        let Some(value) = object.get(key) else { continue };
        let number = value.as_f64().or_else(|| value.as_bool().map(f64::from));
        if number.is_none_or(|number| !neutral.contains(&number)) {
            return Err(object.error(format!("{key} is {value}; models with it are not supported")));
        }
    }
    if let Some(Value::Array(types)) = object.get("layer_types") {
        let differing = types.iter().find(|kind| **kind != types[0]);
        if let Some(kind) = differing {
            let message =
                format!("layer_types holds both {} and {kind}; layers of one kind are supported", types[0]);
            return Err(object.error(message));
        }
    }
    if let Some(quantization) = object.get("quantization_config") {
        let method = quantization.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
        if method != "exl2" {
            let message =
                format!("quantization_config has quant_method {method}; supported are: exl2, or none");
            return Err(object.error(format!("{message} (convert the unquantized model)")));
        }
    }
    Ok(())
}

/// One id, a list of ids, or nothing.
fn token_ids(object: &Object, key: &str, below: Option<usize>) -> Result<Vec<u32>> {
    let ids = match object.get(key) {
        None => return Ok(Vec::new()),
        Some(Value::Array(ids)) => ids.as_slice(),
        Some(id) => std::slice::from_ref(id),
    };
    let id = |id: &Value| match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
        Some(id) if below.is_none_or(|below| (id as usize) < below) => Ok(id),
        Some(id) => Err(object.error(format!("{key} {id} lies outside the vocabulary"))),
        None => Err(object.error(format!("{key} holds {id}; a token id is needed"))),
    };
    ids.iter().map(id).collect()
}

/// What `generation_config.json` says; `None` is "does not say".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Beginning of sequence.
    pub bos_token_id: Option<u32>,
    /// Ends of sequence; empty when the file names none.
    pub eos_token_id: Vec<u32>,
    /// Whether to sample; greedy otherwise.
    pub do_sample: Option<bool>,
    /// Divisor of the logits.
    pub temperature: Option<f32>,
    /// How many of the likeliest tokens to keep; 0 is all.
    pub top_k: Option<u32>,
    /// Probability mass to keep.
    pub top_p: Option<f32>,
    /// Least probability to keep, relative to the likeliest token's.
    pub min_p: Option<f32>,
    /// Divisor of the logits of tokens seen before.
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    /// Reads `generation_config.json` in `directory`; without such a file nothing is said.
    ///
    /// # Errors
    /// If the file is damaged or a value has the wrong type.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self> {
        let path = directory.as_ref().join("generation_config.json");
        let Some(object) = load_object(&path)? else { return Ok(Self::default()) };
        let number = |key: &str| Ok(object.number(key)?.map(|value| value as f32));
        Ok(Self {
            bos_token_id: token_ids(&object, "bos_token_id", None)?.first().copied(),
            eos_token_id: token_ids(&object, "eos_token_id", None)?,
            do_sample: object.flag("do_sample")?,
            temperature: number("temperature")?,
            top_k: object.value("top_k", "a number of tokens")?,
            top_p: number("top_p")?,
            min_p: number("min_p")?,
            repetition_penalty: number("repetition_penalty")?,
        })
    }
}
