//! What a model is made of, told without weights: blocks, their linears, and who feeds whom.

use crate::formats::config::LlamaConfig;

/// The two kinds of block in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockKind {
    /// q, k, v and o around an attention.
    Attention,
    /// gate, up and down around an activation.
    Mlp,
}

/// What an input or output of a linear is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The hidden state after the block's norm.
    Normed,
    /// Queries before the rotation.
    Queries,
    /// Keys before the rotation.
    Keys,
    /// Values.
    Values,
    /// What attention yields.
    Attended,
    /// What the activation function takes.
    Gate,
    /// What the activated gate is multiplied with.
    Up,
    /// Their product.
    Activated,
    /// Added to the hidden state.
    Residual,
    /// Scores of the vocabulary.
    Logits,
}

/// One linear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    /// Its name in the files, without `.weight`.
    pub name: String,
    /// Input features.
    pub k: usize,
    /// Output features.
    pub n: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// What its output is.
    pub output: Role,
}

/// Linears that share an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// What the input is.
    pub input: Role,
    /// At least one.
    pub linears: Vec<LinearSpec>,
}

/// One block: norm, linears in groups that run one after the other, residual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSpec {
    /// Its name in the files, such as `model.layers.0.self_attn`.
    pub name: String,
    /// Attention or MLP.
    pub kind: BlockKind,
    /// Number of the layer.
    pub layer: usize,
    /// Name of the norm before it, without `.weight`.
    pub norm: String,
    /// In the order in which they run.
    pub groups: Vec<GroupSpec>,
}

impl BlockSpec {
    /// All linears, group by group.
    pub fn linears(&self) -> impl Iterator<Item = &LinearSpec> {
        self.groups.iter().flat_map(|group| &group.linears)
    }
}

/// The blocks of a model in order; two a layer.
pub fn blocks(config: &LlamaConfig) -> Vec<BlockSpec> {
    (0..config.num_hidden_layers).flat_map(|layer| [attention(config, layer), mlp(config, layer)]).collect()
}

/// The head: hidden state to scores.
pub fn head_spec(config: &LlamaConfig) -> LinearSpec {
    let (k, n) = (config.hidden_size, config.vocab_size);
    LinearSpec { name: "lm_head".to_owned(), k, n, bias: false, output: Role::Logits }
}

fn attention(config: &LlamaConfig, layer: usize) -> BlockSpec {
    let name = format!("model.layers.{layer}.self_attn");
    let linear = |part: &str, k, n, output| LinearSpec {
        name: format!("{name}.{part}"),
        k,
        n,
        bias: config.attention_bias,
        output,
    };
    let hidden = config.hidden_size;
    let (queries, keys) = (config.query_size(), config.key_value_size());
    let inputs = vec![
        linear("q_proj", hidden, queries, Role::Queries),
        linear("k_proj", hidden, keys, Role::Keys),
        linear("v_proj", hidden, keys, Role::Values),
    ];
    let outputs = vec![linear("o_proj", queries, hidden, Role::Residual)];
    BlockSpec {
        kind: BlockKind::Attention,
        layer,
        norm: format!("model.layers.{layer}.input_layernorm"),
        groups: vec![
            GroupSpec { input: Role::Normed, linears: inputs },
            GroupSpec { input: Role::Attended, linears: outputs },
        ],
        name,
    }
}

fn mlp(config: &LlamaConfig, layer: usize) -> BlockSpec {
    let name = format!("model.layers.{layer}.mlp");
    let linear = |part: &str, k, n, output| LinearSpec {
        name: format!("{name}.{part}"),
        k,
        n,
        bias: config.mlp_bias,
        output,
    };
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let inputs =
        vec![linear("gate_proj", hidden, inner, Role::Gate), linear("up_proj", hidden, inner, Role::Up)];
    let outputs = vec![linear("down_proj", inner, hidden, Role::Residual)];
    BlockSpec {
        kind: BlockKind::Mlp,
        layer,
        norm: format!("model.layers.{layer}.post_attention_layernorm"),
        groups: vec![
            GroupSpec { input: Role::Normed, linears: inputs },
            GroupSpec { input: Role::Activated, linears: outputs },
        ],
        name,
    }
}
