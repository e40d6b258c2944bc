//! Activations of a pass, allocated once; what stands in a [`Role`] and is needed at other times shares memory.
//!
//! Three rooms as wide as the widest activation serve both kinds of block: queries and then gate in the first, what attention
//! yields and then up in the second, the activation in the third; an input in another order goes where nothing is wanted
//! any more. A slab in halves and the parts of attention, which no dispatch has at a time, share a fourth.

use super::block::{BlockSpec, LinearSpec, Role, blocks, head_spec};
use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::gpu::{Buffer, Device};
use crate::ops::attention::splits;
use crate::ops::cache::PAGE;
use crate::ops::matmul::GEMV_ROWS;
use crate::ops::{OperandRoom, Tensor, decode_bytes};

/// Buffers for up to a number of rows.
pub struct Scratch {
    rows: usize,
    hidden: Tensor,
    normed: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    attended: Tensor,
    gate: Tensor,
    up: Tensor,
    activated: Tensor,
    units: Tensor,
    partial: Tensor,
    decoded: Buffer,
}

/// Bytes that the activations of a pass take unless one row needs more.
const MOST_BYTES: usize = 128 << 20;

impl Scratch {
    /// Buffers for `rows` rows over a cache of `context` tokens a slot. Slabs of the linears that are `packed` are decoded
    /// where a prompt has more rows than are multiplied straight from packed words.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn new(
        device: &Device,
        config: &LlamaConfig,
        rows: usize,
        context: usize,
        packed: impl Fn(&LinearSpec) -> bool,
    ) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.query_size(), config.key_value_size());
        let zeros = |label, cols| Tensor::zeros(device, label, rows, cols);
        let context = context.next_multiple_of(PAGE);
        // Few rows have more splits each; the most that any number of rows needs.
        let parts = (1..=rows).map(|rows| rows * splits(rows, context).0).max().unwrap_or(1);
        let decoded = if rows > GEMV_ROWS { decode_room(device, config, packed) } else { 0 };
        let widest = widest(config);
        let room = || zeros("activations", widest);
        let (first, second, third) = (room()?, room()?, room()?);
        let part = config.num_attention_heads * (config.head_dim + 2);
        let shared = Tensor::zeros(device, "decoded", 1, (decoded as usize / 4).max(parts * part))?;
        Ok(Self {
            rows,
            hidden: zeros("hidden", hidden)?,
            normed: zeros("normed", hidden)?,
            queries: first.view(rows, queries)?,
            keys: zeros("keys row", keys)?,
            values: zeros("values row", keys)?,
            attended: second.view(rows, queries)?,
            gate: first.view(rows, inner)?,
            up: second.view(rows, inner)?,
            activated: third.view(rows, inner)?,
            units: zeros("units", 1)?,
            partial: shared.view(parts, part)?,
            decoded: shared.buffer().clone(),
        })
    }

    /// `rows`, or as many as do not take more memory than a prompt's activations should.
    pub fn fitting_rows(config: &LlamaConfig, rows: usize) -> usize {
        let row = 4 * (2 * config.hidden_size + 2 * config.key_value_size() + 3 * widest(config));
        let most = (MOST_BYTES / row.max(1)).max(1);
        if rows <= most { rows } else { 1 << most.ilog2() }
    }

    /// Most rows of a pass.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The residual stream [rows, hidden].
    pub fn hidden(&self) -> &Tensor {
        &self.hidden
    }

    /// The buffer that stands in a role; the head's logits are the head's own.
    pub fn tensor(&self, role: Role) -> &Tensor {
        match role {
            Role::Normed => &self.normed,
            Role::Queries => &self.queries,
            Role::Keys => &self.keys,
            Role::Values => &self.values,
            Role::Attended => &self.attended,
            Role::Gate => &self.gate,
            Role::Up => &self.up,
            Role::Activated => &self.activated,
            Role::Residual | Role::Logits => &self.hidden,
        }
    }

    /// Room for the input `x` of a group in another order or form: none of what the group reads or writes.
    pub fn operand_room(&self, x: &Tensor) -> OperandRoom {
        let taken = x.buffer().is(self.activated.buffer());
        // The rooms are as wide as the widest activation, whatever is seen of them.
        let room = if taken { &self.gate } else { &self.activated };
        OperandRoom::over(room.buffer(), self.units.buffer())
    }

    /// Partial results of attention.
    pub(super) fn partial(&self) -> &Tensor {
        &self.partial
    }

    /// Room for a slab in halves.
    pub(super) fn decoded(&self) -> &Buffer {
        &self.decoded
    }
}

/// Bytes of the largest slab in halves of those linears of a model that are `packed`.
fn decode_room(device: &Device, config: &LlamaConfig, packed: impl Fn(&LinearSpec) -> bool) -> u64 {
    let (blocks, head) = (blocks(config), head_spec(config));
    let linears = blocks.iter().flat_map(BlockSpec::linears).chain([&head]);
    let bytes = linears.filter(|spec| packed(spec)).map(|spec| decode_bytes(device, spec.k, spec.n));
    bytes.max().unwrap_or(0)
}

/// Values of the widest activation.
fn widest(config: &LlamaConfig) -> usize {
    config.hidden_size.max(config.intermediate_size).max(config.query_size())
}
