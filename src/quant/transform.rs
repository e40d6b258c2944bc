//! What happens to a model's float tensors on their way into the converter, each with its place in the model.
//!
//! A [`Transform`] changes the tensors of a model so that it computes the same and quantizes better. It sees every tensor:
//! the embedding, the norms, the linears with their roles, their biases and the head; and it decides whether the
//! model still counts as one whose head is its embedding. Who reads the tensors and when is not known here
//! ([`super::source`]).

use serde_json::Value;

pub use super::tensors::Floats;
use crate::Result;
use crate::model::{BlockSpec, LinearSpec, Role, WeightSource};

/// Where a tensor stands in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// Rows of the embedding table, `[rows, hidden]`: all of them in order, or those of some tokens.
    Embedding,
    /// The norm before a block, `[hidden]`.
    Norm(&'a BlockSpec),
    /// The weight of a linear, `[n, k]`.
    Weight(Site<'a>),
    /// The bias of a linear, `[n]`.
    Bias(Site<'a>),
    /// The norm before the head, `[hidden]`.
    LastNorm,
    /// The head, `[vocabulary, hidden]`; where the source ties it to the embedding, that is what comes here.
    Head,
}

/// A linear and what it stands between; its output's role is in its own specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site<'a> {
    /// Its block.
    pub block: &'a BlockSpec,
    /// What it takes.
    pub input: Role,
    /// The linear.
    pub linear: &'a LinearSpec,
}

/// A change of all float tensors.
///
/// A tensor may be asked for more than once and in any order: the answer depends on the tensor, its place and the
/// source alone.
pub trait Transform {
    /// Tells results of this transform from those of others, its parameters included; empty for none.
    fn id(&self) -> String;

    /// The tensor that takes the place of a stored one. `source` has the others, such as a norm that is to be folded into
    /// the linears after it.
    ///
    /// # Errors
    /// As the files report.
    fn apply<'a>(
        &self,
        place: Place<'_>,
        stored: Floats<'a>,
        source: &dyn WeightSource,
    ) -> Result<Floats<'a>>;

    /// What config.json says of the head, `tied` being what the source says: true where embedding and head may be
    /// one tensor, which no longer holds once they were changed in different ways.
    fn tied(&self, tied: bool) -> bool;

    /// What `quantization_config` in config.json says of it: a key and its value; nothing for none.
    fn record(&self) -> Option<(&'static str, Value)> {
        None
    }
}

/// The transform that leaves everything as it is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Transform for Identity {
    fn id(&self) -> String {
        String::new()
    }

    fn apply<'a>(&self, _: Place<'_>, stored: Floats<'a>, _: &dyn WeightSource) -> Result<Floats<'a>> {
        Ok(stored)
    }

    fn tied(&self, tied: bool) -> bool {
        tied
    }
}
