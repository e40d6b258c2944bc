//! What each part of a model takes in its files, from headers and group tables: no weight is read.

use exlay::Result;
use exlay::formats::config::LlamaConfig;
use exlay::formats::safetensors::{Checkpoint, Dtype, TensorView};
use exlay::model::{EMBEDDING_TABLE, LAST_NORM, LinearSpec, WeightSource, blocks, head_spec, head_weight};
use exlay::packing::{Group, Layout};

/// Weights, and the bytes that hold them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) weights: u64,
    pub(super) bytes: u64,
}

impl Amount {
    /// Zero for nothing.
    pub(super) fn bits_per_weight(self) -> f64 {
        if self.weights == 0 { 0.0 } else { 8.0 * self.bytes as f64 / self.weights as f64 }
    }

    fn of(tensor: &TensorView<'_>) -> Self {
        Self { weights: tensor.elements() as u64, bytes: tensor.bytes.len() as u64 }
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts
            .fold(Self::default(), |a, b| Self { weights: a.weights + b.weights, bytes: a.bytes + b.bytes })
    }
}

/// One linear.
#[derive(Clone, Debug)]
pub(super) struct StoredLinear {
    pub(super) name: String,
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    pub(super) amount: Amount,
    pub(super) bias: Amount,
    /// `F16`, or `0.05:3b/0.95:2b 32g` as ExLlamaV2 writes it.
    pub(super) storage: String,
}

/// A model by part.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// The linears of each layer.
    pub(super) layers: Vec<Vec<StoredLinear>>,
    /// `None` if the embedding serves as head.
    pub(super) head: Option<StoredLinear>,
    pub(super) embedding: Amount,
    pub(super) norms: Amount,
}

/// Counts all tensors that `config` asks for.
///
/// # Errors
/// [`exlay::Error::Tensor`] if one is missing, or contradicts `config` in shape.
pub(super) fn count(config: &LlamaConfig, checkpoint: &Checkpoint) -> Result<Stored> {
    let norm = |name: &str| {
        let norm = dense(checkpoint, &format!("{name}.weight"), &[config.hidden_size])?;
        Ok(Amount::of(&norm))
    };
    let mut layers = vec![vec![]; config.num_hidden_layers];
    let mut norms = vec![norm(LAST_NORM)?];
    for block in blocks(config) {
        for spec in block.linears() {
            layers[block.layer].push(linear(checkpoint, spec)?);
        }
        norms.push(norm(&block.norm)?);
    }
    let embedding = dense(checkpoint, EMBEDDING_TABLE, &[config.vocab_size, config.hidden_size])?;
    let spec = head_spec(config);
    let own = checkpoint.has_packed(&spec) || head_weight(checkpoint, config) != EMBEDDING_TABLE;
    let head = own.then(|| linear(checkpoint, &spec)).transpose()?;
    Ok(Stored { layers, head, embedding: Amount::of(&embedding), norms: norms.into_iter().sum() })
}

fn dense<'a>(checkpoint: &'a Checkpoint, name: &str, shape: &[usize]) -> Result<TensorView<'a>> {
    let tensor = checkpoint.get(name)?;
    tensor.expect_shape(shape)?;
    Ok(tensor)
}

/// A linear, packed or dense.
fn linear(checkpoint: &Checkpoint, spec: &LinearSpec) -> Result<StoredLinear> {
    let (name, k, n) = (spec.name.clone(), spec.k, spec.n);
    let (bytes, storage) = if checkpoint.has_packed(spec) {
        packed(checkpoint, &name, k, n)?
    } else {
        let weight = dense(checkpoint, &format!("{name}.weight"), &[n, k])?;
        (weight.bytes.len() as u64, weight.dtype.name().to_string())
    };
    let bias_name = format!("{name}.bias");
    let bias = if checkpoint.has(&bias_name) {
        let bytes = checkpoint.get(&bias_name)?.bytes.len() as u64;
        Amount { weights: n as u64, bytes }
    } else {
        Amount::default()
    };
    let amount = Amount { weights: k as u64 * n as u64, bytes };
    Ok(StoredLinear { name, in_features: k, out_features: n, amount, bias, storage })
}

/// Bytes of the five tensors of a packed linear, and its mix of widths.
fn packed(checkpoint: &Checkpoint, name: &str, k: usize, n: usize) -> Result<(u64, String)> {
    let get = |part: &str| checkpoint.get(&format!("{name}.{part}"));
    let weight = get("q_weight")?;
    weight.expect_dtype(Dtype::I32)?;
    let word_rows = weight.shape.first().copied().unwrap_or_default();
    weight.expect_shape(&[word_rows, n.next_multiple_of(32)])?;
    let groups = get("q_groups")?;
    let layout = Layout::from_q_groups(&groups.to_u16()?, word_rows)
        .map_err(|error| groups.error(error.to_string()))?;
    if layout.rows() != k {
        return Err(groups.error(format!(
            "its groups have {} rows, config.json asks for {k}; the two files are not of the same model",
            layout.rows()
        )));
    }
    let parts = [weight, groups, get("q_scale")?, get("q_scale_max")?, get("q_invperm")?];
    Ok((parts.iter().map(|part| part.bytes.len() as u64).sum(), mix(layout.groups())))
}

/// Shares of rows by width, and the size of the first group of each width; one size if all are equal.
fn mix(groups: &[Group]) -> String {
    let rows: usize = groups.iter().map(|group| group.rows).sum();
    let (mut shares, mut sizes) = (vec![], vec![]);
    for width in groups.chunk_by(|a, b| a.bits == b.bits) {
        let share = width.iter().map(|group| group.rows).sum::<usize>() as f64 / rows as f64;
        let share = format!("{share:.2}");
        shares.push(format!("{}:{}b", share.trim_end_matches('0').trim_end_matches('.'), width[0].bits));
        sizes.push(width[0].rows.to_string());
    }
    sizes.dedup();
    format!("{} {}g", shares.join("/"), sizes.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_written_as_exllamav2_does() {
        let groups = |list: &[(u32, usize)]| -> Vec<Group> {
            list.iter().map(|&(bits, rows)| Group { bits, rows }).collect()
        };
        assert_eq!(mix(&groups(&[(4, 64), (4, 32)])), "1:4b 64g");
        assert_eq!(mix(&groups(&[(3, 32), (2, 32), (2, 32), (2, 32)])), "0.25:3b/0.75:2b 32g");
        assert_eq!(mix(&groups(&[(6, 32), (3, 64), (2, 64)])), "0.2:6b/0.4:3b/0.4:2b 32/64g");
    }

    #[test]
    fn amounts_add_up() {
        let amounts = [Amount { weights: 64, bytes: 16 }, Amount { weights: 64, bytes: 48 }];
        let sum: Amount = amounts.into_iter().sum();
        assert_eq!((sum, sum.bits_per_weight()), (Amount { weights: 128, bytes: 64 }, 4.0));
        assert_eq!(Amount::default().bits_per_weight(), 0.0);
    }
}
