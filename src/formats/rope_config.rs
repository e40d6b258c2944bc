//! The rotary embedding in `config.json`, in both of transformers' spellings.

use serde_json::Value;

use super::json::Object;
use super::rope::{Rope, RopeScaling};
use crate::error::Result;

const SUPPORTED: &str = "default, linear, llama3, yarn";

/// Reads `rope_parameters`, or `rope_theta` and `rope_scaling`.
pub(super) fn read(config: &Object, max_position: usize) -> Result<Rope> {
    let parameters = config.object("rope_parameters")?;
    let scaling = config.object("rope_scaling")?;
    if parameters.is_some()
        && scaling.is_some()
        && config.get("rope_parameters") != config.get("rope_scaling")
    {
        return Err(config.error("rope_parameters and rope_scaling differ; remove the one that is wrong"));
    }
    let Some(object) = parameters.or(scaling) else {
        return Ok(Rope { theta: theta(config)?.unwrap_or(10_000.0), scaling: RopeScaling::Default });
    };
    let theta = theta(&object)?.map_or_else(|| theta(config), |theta| Ok(Some(theta)))?.unwrap_or(10_000.0);
    if object.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
        return Err(config.error("partial_rotary_factor is not 1; models with it are not supported"));
    }
    Ok(Rope { theta, scaling: scaling_of(&object, max_position)? })
}

fn theta(object: &Object) -> Result<Option<f64>> {
    match object.number("rope_theta")? {
        Some(theta) if !(theta > 1.0 && theta.is_finite()) => {
            Err(object.error(format!("rope_theta is {theta}; it must be above 1")))
        }
        theta => Ok(theta),
    }
}

fn scaling_of(object: &Object, max_position: usize) -> Result<RopeScaling> {
    let kind = match object.get("rope_type").or_else(|| object.get("type")) {
        Some(Value::String(kind)) => kind.as_str(),
        Some(other) => return Err(object.error(format!("rope_type is {other}; supported are: {SUPPORTED}"))),
        None => return Err(object.error(format!("rope_type is missing; supported are: {SUPPORTED}"))),
    };
    let positive = |key: &str| match object.number(key)? {
        Some(value) if value > 0.0 && value <= 1e12 => Ok(Some(value)),
        Some(value) => Err(object.error(format!("{key} of {kind} RoPE is {value}; it must be above 0"))),
        None => Ok(None),
    };
    let missing = |key: &str| object.error(format!("{key} is missing, which {kind} RoPE needs"));
    let required = |key: &str| positive(key)?.ok_or_else(|| missing(key));
    let original_key = "original_max_position_embeddings";
    match kind {
        "default" => Ok(RopeScaling::Default),
        "linear" => Ok(RopeScaling::Linear { factor: required("factor")? }),
        "llama3" => {
            let (low, high) = (required("low_freq_factor")?, required("high_freq_factor")?);
            if low >= high {
                let message =
                    format!("low_freq_factor is {low}, high_freq_factor {high}; the second must be larger");
                return Err(object.error(message));
            }
            Ok(RopeScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: required(original_key)?,
            })
        }
        "yarn" => {
            let original = positive(original_key)?;
            let ratio = original.map(|original| max_position as f64 / original);
            Ok(RopeScaling::Yarn {
                factor: positive("factor")?.or(ratio).ok_or_else(|| missing("factor"))?,
                original_max_position_embeddings: original.unwrap_or(max_position as f64),
                beta_fast: positive("beta_fast")?.unwrap_or(32.0),
                beta_slow: positive("beta_slow")?.unwrap_or(1.0),
                attention_factor: positive("attention_factor")?,
                mscale: object.number("mscale")?,
                mscale_all_dim: object.number("mscale_all_dim")?,
                truncate: object.flag("truncate")?.unwrap_or(true),
            })
        }
        other => Err(object.error(format!("rope_type is {other}; supported are: {SUPPORTED}"))),
    }
}
