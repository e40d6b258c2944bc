//! Rotations folded into the weights: the model computes the same, its weights and hidden states have no outliers, and it is
//! still a model of its architecture, with tensors of the same names and shapes.
//!
//! - Each norm's weights move into the linears after it (the last norm's into the head) and become ones.
//! - The residual stream is rotated by one orthogonal matrix Q: embedding rows e·Q, linears that read the stream W·diag(g)·Q,
//!   linears that add to it Qᵀ·W, and their biases Qᵀ·b. A norm of ones commutes with Q.
//! - The values of each KV head are rotated by a matrix R of its own: Rᵀ·W of its rows of `v_proj` (and of the bias), and W·R
//!   of the columns of `o_proj` that take its query heads' results. Attention only sums values, so the R meet.
//!
//! After Ashkboos et al., "QuaRot", 2024 (R1 and R2 of Liu et al., "SpinQuant", 2024). Rotations that need work while the
//! model runs are not done. Exact but for rounding; what that leaves is measured by the tests.

mod lines;
mod orthogonal;

use serde_json::{Value, json};

use self::lines::{each_column, each_row};
pub use self::orthogonal::Orthogonal;
use super::transform::{Floats, Place, Site, Transform};
use crate::formats::config::LlamaConfig;
use crate::model::{LAST_NORM, Role, WeightSource};
use crate::{Error, Result};

/// The seed where none is asked for.
pub const DEFAULT_SEED: u64 = 0;

/// Architectures for which it holds: RMSNorm before each block and before the head and nowhere else, and nothing between
/// values and the output projection.
const ARCHITECTURES: [&str; 2] = ["LlamaForCausalLM", "MistralForCausalLM"];

/// The rotation of a model, as a [`Transform`].
#[derive(Clone, Debug)]
pub struct Rotation {
    seed: u64,
    residual: Orthogonal,
    query_heads: usize,
    key_value_heads: usize,
    head_dim: usize,
}

impl Rotation {
    /// The rotation of a seed for a model of this configuration.
    ///
    /// # Errors
    /// [`Error::Argument`] for an architecture of which it is not known that it computes the same afterwards, and for a hidden
    /// size with a large odd factor, for which no fast rotation is known here.
    pub fn new(config: &LlamaConfig, seed: u64) -> Result<Self> {
        if !ARCHITECTURES.contains(&config.architecture.as_str()) {
            let message = format!(
                "is known to keep the results of {} only, and this model is a {}; convert it with --rotation off",
                ARCHITECTURES.join(" and "),
                config.architecture
            );
            return Err(Error::argument("--rotation", message));
        }
        let residual = Orthogonal::new(config.hidden_size, seed, "residual").map_err(|error| {
            let message = format!("cannot rotate this hidden size ({error}); convert it with --rotation off");
            Error::argument("--rotation", message)
        })?;
        Ok(Self {
            seed,
            residual,
            query_heads: config.num_attention_heads,
            key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        })
    }

    /// Which matrices they are, such as `residual hadamard 64 x orthogonal 9, values hadamard 64`.
    pub fn method(&self) -> String {
        let [residual, values] = [self.residual.size(), self.head_dim].map(Orthogonal::method);
        format!("residual {residual}, values {values}")
    }

    /// Its seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The rotations of a layer's values, one a KV head.
    fn values(&self, layer: usize) -> Result<Vec<Orthogonal>> {
        let head = |head| Orthogonal::new(self.head_dim, self.seed, &format!("layer {layer} values {head}"));
        (0..self.key_value_heads).map(head).collect()
    }

    /// A norm's weights `[hidden]`.
    fn norm(&self, name: &str, source: &dyn WeightSource) -> Result<Vec<f32>> {
        source.vector(&format!("{name}.weight"), self.residual.size())
    }

    /// W·diag(g)·Q for W [n, hidden], with the norm's weights g.
    fn read_stream(&self, values: &mut [f32], norm: &[f32]) {
        each_row(values, self.residual.size(), |row| {
            row.iter_mut().zip(norm).for_each(|(value, &norm)| *value *= f64::from(norm));
            self.residual.rotate(row);
        });
    }

    fn weight<'a>(
        &self,
        site: Site<'_>,
        stored: Floats<'a>,
        source: &dyn WeightSource,
    ) -> Result<Floats<'a>> {
        let Site { block, input, linear } = site;
        let norm = if input == Role::Normed { Some(self.norm(&block.norm, source)?) } else { None };
        let of_heads = input == Role::Attended || linear.output == Role::Values;
        let heads = if of_heads { self.values(block.layer)? } else { Vec::new() };
        let shared = self.query_heads / self.key_value_heads;
        stored.map(|mut values| {
            match norm {
                Some(norm) => self.read_stream(&mut values, &norm),
                None if input == Role::Attended => each_row(&mut values, linear.k, |row| {
                    let parts = row.chunks_exact_mut(self.head_dim).enumerate();
                    parts.for_each(|(query, part)| heads[query / shared].rotate(part));
                }),
                None => {}
            }
            match linear.output {
                Role::Values => each_column(&mut values, linear.k, |column| rotate_values(&heads, column)),
                Role::Residual => each_column(&mut values, linear.k, |column| self.residual.rotate(column)),
                _ => {}
            }
            values
        })
    }

    fn bias<'a>(&self, site: Site<'_>, stored: Floats<'a>) -> Result<Floats<'a>> {
        let heads = match site.linear.output {
            Role::Values => self.values(site.block.layer)?,
            Role::Residual => Vec::new(),
            _ => return Ok(stored),
        };
        stored.map(|mut values| {
            each_row(&mut values, site.linear.n, |bias| match site.linear.output {
                Role::Values => rotate_values(&heads, bias),
                _ => self.residual.rotate(bias),
            });
            values
        })
    }
}

/// A column of `v_proj`, or its bias: head after head.
fn rotate_values(heads: &[Orthogonal], column: &mut [f64]) {
    let mut rest = column;
    for head in heads {
        let (part, after) = rest.split_at_mut(head.size());
        head.rotate(part);
        rest = after;
    }
}

impl Transform for Rotation {
    fn id(&self) -> String {
        format!("rotation 1: {}, seed {}", self.method(), self.seed)
    }

    fn apply<'a>(
        &self,
        place: Place<'_>,
        stored: Floats<'a>,
        source: &dyn WeightSource,
    ) -> Result<Floats<'a>> {
        let hidden = self.residual.size();
        let expect = |shape: &[usize]| stored.view().expect_shape(shape);
        match place {
            Place::Embedding | Place::Head => {
                expect(&[stored.shape().first().copied().unwrap_or(0), hidden])?
            }
            Place::Norm(_) | Place::LastNorm => expect(&[hidden])?,
            Place::Weight(site) => expect(&[site.linear.n, site.linear.k])?,
            Place::Bias(site) => expect(&[site.linear.n])?,
        }
        match place {
            Place::Embedding => stored.map(|mut values| {
                each_row(&mut values, hidden, |row| self.residual.rotate(row));
                values
            }),
            Place::Norm(_) | Place::LastNorm => stored.map(|values| vec![1.0; values.len()]),
            Place::Weight(site) => self.weight(site, stored, source),
            Place::Bias(site) => self.bias(site, stored),
            Place::Head => {
                let norm = self.norm(LAST_NORM, source)?;
                stored.map(|mut values| {
                    self.read_stream(&mut values, &norm);
                    values
                })
            }
        }
    }

    /// The embedding and the head are rotated alike, but the last norm is in the head alone.
    fn tied(&self, _: bool) -> bool {
        false
    }

    fn record(&self) -> Option<(&'static str, Value)> {
        Some(("rotation", json!({ "method": self.method(), "seed": self.seed })))
    }
}
