//! Floor 4: a Llama on a device, from its weights to logits.
//!
//! A model is an embedding, a row of [`Block`]s (attention and MLP in turn) and a [`Head`]. A block is described by a
//! [`BlockSpec`]: which linears it has, which of them share an input, and in what role ([`Role`]) each input and output
//! stands. [`Llama`] holds all blocks and generates; [`Streamed`] loads one at a time, for models larger than the card;
//! the converter does the same with blocks that it changes, on the same [`Workbench`]. All record the same dispatches ([`Pass::block`]), so that
//! they agree to the last bit.

mod batch;
mod block;
mod cache;
mod decode;
mod embedding;
mod head;
mod linear;
mod llama;
mod pass;
mod plan;
mod room;
mod scratch;
mod source;
mod streamed;
mod synthetic;
mod tuning;
mod weights;
mod workbench;

pub use batch::{Batch, Row};
pub use block::{BlockKind, BlockSpec, GroupSpec, LinearSpec, Role, blocks, head_spec};
pub use cache::{Cache, CacheSize};
pub use decode::{Decode, DecodeModel};
pub use embedding::{EMBEDDING_TABLE, Embedding, Placement};
pub use head::{Head, LAST_NORM, head_weight};
pub use linear::{Linear, LinearGroup};
pub use llama::{DecodeRow, Llama, LoadOptions, MOST_IN_FLIGHT, MemoryByPart, TokenProfile};
pub use pass::{Pass, Tap};
pub use plan::{MemoryPlan, Planner};
pub use scratch::Scratch;
pub use source::WeightSource;
pub use streamed::Streamed;
pub use synthetic::{Shape, Synthetic, SyntheticFloats, mixed_layout};
pub use tuning::{Product, Tuning};
pub use weights::{Block, load_norm};
pub use workbench::{Runner, RunnerTap, Workbench};

pub use crate::ops::cache::CachePrecision;
pub use crate::ops::sample::{Choice, MOST_ROWS};

use crate::Result;
use crate::ops::Tensor;

/// Moves the first `rows` rows of a hidden state to another tensor, on the same device or through the host. The one
/// place where hidden states cross between ranges of layers; nothing calls it while a model lies on one device, and a
/// second one has nowhere else to begin.
///
/// # Errors
/// [`crate::Error::Shape`] when the widths differ; as the devices report.
pub fn cross(from: &Tensor, to: &Tensor, rows: usize) -> Result<()> {
    to.expect("hidden state", rows, from.cols())?;
    if from.device().is(to.device()) {
        let mut list = crate::gpu::CommandList::new(from.device(), "hidden state");
        list.copy(from.buffer(), 0, to.buffer(), 0, (4 * rows * from.cols()) as u64)?;
        list.run()
    } else {
        to.write(&from.read(rows)?)
    }
}
