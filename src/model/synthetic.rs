//! A model of random weights with the shape of a real one, made in memory: for timing without a download. Its widths are
//! mixed within every matrix, its rows permuted and its head has 6 bits, as a converted model's.
//!
//! Its numbers depend on the shape, the bits and the seed only. It says nothing of text: there is no tokenizer.

mod floats;
mod matrix;
mod mix;
mod shape;

use std::ops::Range;

use half::f16;
use rayon::prelude::*;

pub use floats::SyntheticFloats;
pub use mix::layout as mixed_layout;
pub use shape::Shape;

use super::block::{LinearSpec, Role, blocks, head_spec};
use super::embedding::EMBEDDING_TABLE;
use super::source::WeightSource;
use crate::formats::config::LlamaConfig;
use crate::packing::{Layout, PackedMatrix, Words, padded_columns};
use crate::random::Random;
use crate::{Error, Result};

/// Bits per weight that can be asked for; what a shape cannot reach gets the nearest that it can.
const BITS: std::ops::RangeInclusive<f64> = 2.0..=8.5;

/// Bits of the head's codes.
const HEAD_BITS: u32 = 6;

/// Values of a table that are made at a time.
const PIECE: usize = 1 << 14;

/// Random weights by name.
#[derive(Clone, Debug)]
pub struct Synthetic {
    config: LlamaConfig,
    bits: f64,
    seed: u64,
}

impl Synthetic {
    /// A model of this shape with about `bits` bits per weight in its blocks.
    ///
    /// # Errors
    /// [`Error::Argument`] when `bits` is below 2 or above 8.5.
    pub fn new(shape: Shape, bits: f64, seed: u64) -> Result<Self> {
        if !BITS.contains(&bits) {
            let message = format!("{bits} bits per weight; use {} to {}", BITS.start(), BITS.end());
            return Err(Error::argument("--bits", message));
        }
        Ok(Self { config: shape.config(), bits, seed })
    }

    /// The same model's first layers, at least one and at most those that it has.
    ///
    /// # Errors
    /// [`Error::Argument`] for any other number.
    pub fn cut_to(mut self, layers: usize) -> Result<Self> {
        let all = self.config.num_hidden_layers;
        if !(1..=all).contains(&layers) {
            return Err(Error::argument("--layers", format!("{layers} layers of a shape that has {all}")));
        }
        self.config.num_hidden_layers = layers;
        Ok(self)
    }

    /// The model's sizes.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Stored bits per weight of the blocks' linears, exactly; and of the head.
    ///
    /// # Errors
    /// As the shape's layouts report.
    pub fn bits_per_weight(&self) -> Result<(f64, f64)> {
        let specs = blocks(&self.config);
        let linears: Vec<_> = specs.iter().flat_map(|block| block.linears()).collect();
        Ok((self.average(&linears)?, self.average(&[&head_spec(&self.config)])?))
    }

    fn average(&self, linears: &[&LinearSpec]) -> Result<f64> {
        let (mut bits, mut weights) = (0, 0);
        for spec in linears {
            let n = padded_columns(spec.n);
            bits += self.layout(spec)?.total_bits(n);
            weights += spec.k * n;
        }
        Ok(bits as f64 / weights as f64)
    }

    /// What the order of a linear's inputs is drawn from. Linears with the same input have the same, since the order comes
    /// from the input's statistics.
    fn order(&self, spec: &LinearSpec) -> Random {
        let input = match spec.output {
            Role::Queries | Role::Keys | Role::Values | Role::Gate | Role::Up => {
                spec.name.rsplit_once('.').map_or(spec.name.as_str(), |(block, _)| block)
            }
            _ => &spec.name,
        };
        Random::new(self.seed, &format!("{input} order"))
    }

    fn layout(&self, spec: &LinearSpec) -> Result<Layout> {
        match spec.output {
            Role::Logits => mix::uniform(spec.k, HEAD_BITS),
            _ => mix::layout(spec.k, padded_columns(spec.n), self.bits),
        }
    }
}

impl WeightSource for Synthetic {
    fn has(&self, name: &str) -> bool {
        name == EMBEDDING_TABLE
    }

    fn has_packed(&self, _spec: &LinearSpec) -> bool {
        true
    }

    fn packed(&self, spec: &LinearSpec) -> Result<Option<PackedMatrix<Words<'_>>>> {
        let random = Random::new(self.seed, &spec.name);
        matrix::packed(self.layout(spec)?, padded_columns(spec.n), &random, &self.order(spec)).map(Some)
    }

    fn outline(&self, spec: &LinearSpec) -> Result<Option<PackedMatrix<Words<'_>>>> {
        matrix::outline(self.layout(spec)?, padded_columns(spec.n), &self.order(spec)).map(Some)
    }

    fn rows(&self, name: &str, shape: [usize; 2], range: Range<usize>) -> Result<Vec<f16>> {
        if name != EMBEDDING_TABLE {
            return Err(Error::shape("synthetic model", format!("`{name}` is not kept in halves")));
        }
        let random = Random::new(self.seed, name);
        let first = (range.start * shape[1]) as u64;
        let mut values = vec![f16::ZERO; range.len() * shape[1]];
        values.par_chunks_mut(PIECE).enumerate().for_each(|(number, piece)| {
            let indices = first + (number * PIECE) as u64..;
            piece.iter_mut().zip(indices).for_each(|(value, index)| *value = random.weight(index));
        });
        Ok(values)
    }

    /// Norms only.
    fn vector(&self, _name: &str, length: usize) -> Result<Vec<f32>> {
        Ok(vec![1.0; length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_per_weight_are_near_those_asked_for() {
        for shape in Shape::ALL {
            for bits in [2.5, 4.0] {
                let (blocks, head) = Synthetic::new(shape, bits, 1).unwrap().bits_per_weight().unwrap();
                let bound = if shape == Shape::Tiny { 0.2 } else { 0.02 };
                assert!((blocks - bits).abs() < bound, "{shape} at {bits}: {blocks}");
                assert!((6.03..6.2).contains(&head), "{shape}: {head}");
            }
            assert_eq!(shape.to_string().parse(), Ok(shape));
        }
        assert!(
            Synthetic::new(Shape::Tiny, 1.9, 1).is_err() && Synthetic::new(Shape::Tiny, f64::NAN, 1).is_err()
        );
        assert!("8b".parse::<Shape>().unwrap_err().contains("llama3-8b"));
    }

    #[test]
    fn a_seed_gives_the_same_weights_and_inputs_share_an_order() {
        let model = Synthetic::new(Shape::Tiny, 3.0, 1).unwrap();
        let specs = blocks(model.config());
        let matrices: Vec<_> = specs[..2].iter().flat_map(|block| block.linears()).collect();
        fn get<'a>(model: &'a Synthetic, spec: &LinearSpec) -> PackedMatrix<Words<'a>> {
            model.packed(spec).unwrap().unwrap()
        }
        let orders: Vec<_> = (0..7).map(|at| get(&model, matrices[at]).q_invperm).collect();
        assert!(orders[0] == orders[1] && orders[1] == orders[2] && orders[4] == orders[5]);
        assert!(orders[0] != orders[3] && orders[0] != orders[4]);
        assert_ne!(get(&model, matrices[1]).q_weight.bytes(), get(&model, matrices[2]).q_weight.bytes());
        let words = |seed| {
            let model = Synthetic::new(Shape::Tiny, 3.0, seed).unwrap();
            let matrix = get(&model, matrices[3]);
            (matrix.q_weight.bytes().to_vec(), matrix.q_scale.bytes().to_vec(), matrix.q_invperm)
        };
        assert!(words(1) == words(1) && words(1) != words(2));
        let whole = model.rows(EMBEDDING_TABLE, [512, 256], 0..512).unwrap();
        assert_eq!(model.rows(EMBEDDING_TABLE, [512, 256], 7..9).unwrap(), whole[7 * 256..9 * 256]);
    }
}
