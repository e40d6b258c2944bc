//! What a conversion is of: a directory of Hugging Face with a file of text, or a model that is made up and random tokens.

use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

use super::calibrate::{random_rows, token_rows};
use super::conversion::Conversion;
use super::fingerprint::{ModelIdentity, file_digest};
use super::tensors::Tensors;
use super::written;
use crate::formats::config::LlamaConfig;
use crate::formats::safetensors::Checkpoint;
use crate::formats::tokenizer::Tokenizer;
use crate::model::SyntheticFloats;
use crate::{Error, Result};

impl Conversion {
    /// The model's sizes.
    ///
    /// # Errors
    /// As [`LlamaConfig::load`].
    pub fn config(&self) -> Result<LlamaConfig> {
        match &self.synthetic {
            Some(model) => Ok(model.config().clone()),
            None => LlamaConfig::load(&self.model),
        }
    }

    /// Tells the model from others.
    pub(super) fn identity(&self) -> Result<ModelIdentity> {
        let Some(model) = &self.synthetic else { return ModelIdentity::of(&self.model) };
        let layers = model.config().num_hidden_layers;
        let name = format!("synthetic {}, {layers} layers", model.shape());
        Ok(ModelIdentity { fingerprint: format!("{name}, seed {}, made as version 1", model.seed()), name })
    }

    /// Tells the tokenizer and the calibration from others.
    pub(super) fn text_digests(&self) -> Result<[String; 2]> {
        match &self.synthetic {
            Some(_) => Ok([String::new(), "random tokens".to_owned()]),
            None => {
                let text = match &self.calibration {
                    Some(file) => file_digest(file)?,
                    None => written::IDENTITY.to_owned(),
                };
                Ok([file_digest(self.model.join("tokenizer.json"))?, text])
            }
        }
    }

    /// The model's tensors.
    pub(super) fn tensors(&self) -> Result<Box<dyn Tensors>> {
        match &self.synthetic {
            Some(model) => Ok(Box::new(model.clone())),
            None => Ok(Box::new(Checkpoint::open(&self.model)?)),
        }
    }

    /// What makes rows of tokens; nothing where the model is to write them itself.
    pub(super) fn text(&self) -> Result<Option<Text<'_>>> {
        Ok(match (&self.synthetic, &self.calibration) {
            (Some(model), _) => Some(Text::Random(model)),
            (None, Some(file)) => {
                let (column, tokenizer) = (self.column.as_deref(), Box::new(Tokenizer::load(&self.model)?));
                Some(Text::File { file, column, tokenizer })
            }
            (None, None) => None,
        })
    }

    /// The directory whose small files belong to the result, if there is one.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.synthetic.is_none().then_some(self.model.as_path())
    }

    /// The source's config.json.
    pub(super) fn config_json(&self) -> Result<Map<String, Value>> {
        if let Some(model) = &self.synthetic {
            return Ok(synthetic_config(model));
        }
        let path = self.model.join("config.json");
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        serde_json::from_str(&text)
            .map_err(|error| Error::file(&path, format!("is not a JSON object: {error}")))
    }
}

/// What makes rows of tokens: a file and the model's tokenizer, or a made-up model's random numbers.
pub(super) enum Text<'a> {
    File { file: &'a Path, column: Option<&'a str>, tokenizer: Box<Tokenizer> },
    Random(&'a SyntheticFloats),
}

impl Text<'_> {
    /// Rows of tokens below `vocabulary`, so many of such a length.
    ///
    /// # Errors
    /// As [`token_rows`].
    pub(super) fn rows(&self, rows: (usize, usize), vocabulary: usize) -> Result<Vec<Vec<u32>>> {
        match self {
            Self::File { file, column, tokenizer } => token_rows(tokenizer, file, *column, rows, vocabulary),
            Self::Random(model) => Ok(random_rows(model.seed(), rows, vocabulary)),
        }
    }
}

fn synthetic_config(model: &SyntheticFloats) -> Map<String, Value> {
    let config = model.config();
    let value = json!({
        "architectures": [config.architecture],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope.theta,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": "float16",
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Shape;

    #[test]
    fn the_file_describes_the_model_that_was_made() {
        for shape in Shape::ALL {
            let model = SyntheticFloats::new(shape, Some(1), 0).unwrap();
            let directory = tempfile::tempdir().unwrap();
            let text = Value::Object(synthetic_config(&model)).to_string();
            fs::write(directory.path().join("config.json"), text).unwrap();
            assert_eq!(LlamaConfig::load(directory.path()).unwrap(), *model.config(), "{shape}");
        }
    }
}
