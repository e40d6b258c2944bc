//! Float weights of random numbers with the spread of trained ones, for a conversion without a download.
//!
//! A value depends on the seed, the tensor's name and its place only, so a tensor is made when it is wanted and kept by nobody.

use std::collections::BTreeSet;
use std::ops::Range;

use half::f16;
use rayon::prelude::*;

use super::shape::Shape;
use crate::formats::config::LlamaConfig;
use crate::model::block::{LinearSpec, blocks, head_spec};
use crate::model::embedding::EMBEDDING_TABLE;
use crate::model::head::LAST_NORM;
use crate::model::source::WeightSource;
use crate::packing::{PackedMatrix, Words};
use crate::random::Random;
use crate::{Error, Result};

/// Deviation of a weight, that of Llama's initialization.
const DEVIATION: f32 = 0.02;

/// One row of a matrix in so many is [`LOUD_ROW`] times as large as the others.
const ROWS_A_LOUD_ONE: usize = 512;
const LOUD_ROW: f32 = 4.0;

/// One channel of a norm in so many is [`LOUD_CHANNEL`] times as large: what makes a few inputs of the linears after it
/// outliers.
const CHANNELS_A_LOUD_ONE: usize = 256;
const LOUD_CHANNEL: f32 = 8.0;

/// A model of a shape, its weights in halves and nowhere.
#[derive(Clone, Debug)]
pub struct SyntheticFloats {
    shape: Shape,
    config: LlamaConfig,
    seed: u64,
    names: BTreeSet<String>,
}

impl SyntheticFloats {
    /// The first `layers` layers of a model of this shape, with its embedding and its head; all of its layers where none is given.
    ///
    /// # Errors
    /// [`Error::Argument`] when the shape has fewer layers, or none is asked for.
    pub fn new(shape: Shape, layers: Option<usize>, seed: u64) -> Result<Self> {
        let mut config = shape.config();
        let most = config.num_hidden_layers;
        config.num_hidden_layers = layers.unwrap_or(most);
        if !(1..=most).contains(&config.num_hidden_layers) {
            let message = format!("{}; {shape} has 1 to {most}", config.num_hidden_layers);
            return Err(Error::argument("--layers", message));
        }
        let specs = blocks(&config);
        let linears = specs.iter().flat_map(|block| block.linears()).map(|linear| &linear.name);
        let names = specs.iter().map(|block| &block.norm).chain(linears);
        let head = head_spec(&config).name;
        let names = names.map(String::as_str).chain([LAST_NORM, head.as_str()]);
        let mut names: BTreeSet<String> = names.map(|name| format!("{name}.weight")).collect();
        names.insert(EMBEDDING_TABLE.to_owned());
        Ok(Self { shape, config, seed, names })
    }

    /// The sizes of what is made.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The shape that it is a part of.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Layers of the whole shape.
    pub fn all_layers(&self) -> usize {
        self.shape.config().num_hidden_layers
    }

    /// Its seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A tensor's name, for as long as the model lives.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is none of this name.
    pub fn name_of(&self, name: &str) -> Result<&str> {
        let found = self.names.get(name).map(String::as_str);
        found.ok_or_else(|| Error::shape("synthetic model", format!("there is no `{name}`")))
    }

    /// Rows of a matrix of so many columns, each value a half: bell-shaped, a few rows larger than the rest.
    pub fn matrix(&self, name: &str, columns: usize, rows: Range<usize>) -> Vec<f32> {
        let (random, loud) = (Random::new(self.seed, name), Random::new(self.seed, &format!("{name} rows")));
        let mut values = vec![0.0; rows.len() * columns];
        values.par_chunks_mut(columns.max(1)).zip(rows).for_each(|(values, row)| {
            let size = if loud.below(row as u64, ROWS_A_LOUD_ONE) == 0 { LOUD_ROW } else { 1.0 };
            for (value, index) in values.iter_mut().zip((row * columns) as u64..) {
                *value = f16::from_f32(DEVIATION * size * random.bell(index)).to_f32();
            }
        });
        values
    }
}

impl WeightSource for SyntheticFloats {
    fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    fn has_packed(&self, _spec: &LinearSpec) -> bool {
        false
    }

    fn packed(&self, _spec: &LinearSpec) -> Result<Option<PackedMatrix<Words<'_>>>> {
        Ok(None)
    }

    fn rows(&self, name: &str, shape: [usize; 2], range: Range<usize>) -> Result<Vec<f16>> {
        let values = self.matrix(self.name_of(name)?, shape[1], range);
        Ok(values.par_iter().map(|&value| f16::from_f32(value)).collect())
    }

    /// Norms only.
    fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>> {
        let random = Random::new(self.seed, self.name_of(name)?);
        let value = |channel: u64| {
            let size = if random.below(channel, CHANNELS_A_LOUD_ONE) == 0 { LOUD_CHANNEL } else { 1.0 };
            f16::from_f32(size * (1.0 + 0.1 * random.bell(!channel))).to_f32()
        };
        Ok((0..length as u64).map(value).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_parts_of_the_whole_and_look_like_weights() {
        let model = SyntheticFloats::new(Shape::Tiny, Some(1), 3).unwrap();
        let name = "model.layers.0.mlp.down_proj.weight";
        let whole = model.matrix(name, 704, 0..256);
        assert_eq!(model.matrix(name, 704, 17..19), whole[17 * 704..19 * 704]);
        let halves = model.rows(name, [256, 704], 17..19).unwrap();
        assert!(halves.iter().zip(&whole[17 * 704..]).all(|(half, &value)| half.to_f32() == value));
        let mean = whole.iter().map(|&value| f64::from(value)).sum::<f64>() / whole.len() as f64;
        let square = whole.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / whole.len() as f64;
        assert!(mean.abs() < 1e-3 && (0.019..0.03).contains(&square.sqrt()), "{mean} {square}");
        let norm = model.vector("model.norm.weight", 4096).unwrap();
        let loud = norm.iter().filter(|&&value| value > 4.0).count();
        assert!((4..40).contains(&loud), "{loud} of about 16");
        assert_ne!(SyntheticFloats::new(Shape::Tiny, None, 4).unwrap().matrix(name, 704, 0..1), whole[..704]);
    }

    #[test]
    fn only_tensors_of_the_model_are_made() {
        let model = SyntheticFloats::new(Shape::Tiny, Some(1), 0).unwrap();
        assert!(
            model.has("lm_head.weight")
                && model.has(EMBEDDING_TABLE)
                && !model.has("model.layers.1.mlp.up_proj.weight")
        );
        assert!(model.vector("model.layers.1.input_layernorm.weight", 4).is_err());
        for layers in [0, 3] {
            let error = SyntheticFloats::new(Shape::Tiny, Some(layers), 0).unwrap_err().to_string();
            assert!(error.contains("--layers") && error.contains("1 to 2"), "{error}");
        }
    }
}
