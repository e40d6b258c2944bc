//! Activations of a pass, allocated once; one buffer for each [`Role`].

use super::block::{BlockSpec, LinearSpec, Role, blocks, head_spec};
use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::gpu::{Buffer, Device};
use crate::ops::attention::splits;
use crate::ops::cache::PAGE;
use crate::ops::matmul::GEMV_ROWS;
use crate::ops::{Tensor, decode_bytes};

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
    gathered: Tensor,
    partial: Tensor,
    decoded: Buffer,
}

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
        Ok(Self {
            rows,
            hidden: zeros("hidden", hidden)?,
            normed: zeros("normed", hidden)?,
            queries: zeros("queries", queries)?,
            keys: zeros("keys row", keys)?,
            values: zeros("values row", keys)?,
            attended: zeros("attended", queries)?,
            gate: zeros("gate", inner)?,
            up: zeros("up", inner)?,
            activated: zeros("activated", inner)?,
            gathered: zeros("gathered", hidden.max(inner).max(queries))?,
            partial: Tensor::zeros(
                device,
                "partial",
                parts,
                config.num_attention_heads * (config.head_dim + 2),
            )?,
            decoded: device.alloc("decoded", decoded)?,
        })
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

    /// Room for an input in another order.
    pub(super) fn gathered(&self, cols: usize) -> Result<Tensor> {
        self.gathered.view(self.rows, cols)
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
