//! Floor 2: one operation a file, from shapes and buffers to a dispatch.
//!
//! | operation | formula | shader | oracle |
//! |---|---|---|---|
//! | [`embed`] | row of a table | `embed` | `reference::embed` |
//! | [`rms_norm`] | x / rms(x) · w | `rms_norm` | `reference::rms_norm` |
//! | [`permute`] | x[:, order] | `permute` | `reference::permute` |
//! | [`matmul`] | x·Wᵀ (+ b) (+ y) | `gemv`, `matmul`, `matmul_subgroup`, `matmul_coop` | `reference::matmul` |
//! | [`halve`] | its rows as halves | `halve` | `reference::halve` |
//! | [`halve_columns`] | its columns as rows of halves | `column_peak`, `halve_columns` | `reference::halve` |
//! | [`quant_matmul`] | the same with packed weights | `quant_gemv` | `reference::quant_matmul` |
//! | [`group_gemv`] | the same for a few rows and all linears of a group | `group_gemv` | `reference::quant_matmul` |
//! | [`residual_norm`] | residual, norm and gather between products | `residual_norm` | `reference::rms_norm` |
//! | [`swiglu_gather`] | silu(g) · u and gather between products | `swiglu_gather` | `reference::swiglu` |
//! | [`dequantize`] | packed weights to halves | `dequantize` | `reference::dequantize` |
//! | [`reorder`] | packed words to the device's order | `reorder` | `reference::reorder` |
//! | [`rope`] | rotary positions | `rope` | `reference::rope` |
//! | [`cache`] | keys and values into pages | `cache_write` | `reference::attention` |
//! | [`attention`] | softmax(q·kᵀ)·v | `attention`, `attention_merge`, `attention_coop` | `reference::attention` |
//! | [`attention_decode`] | the same from a product's parts | `attention_decode` | `reference::attention_decode` |
//! | [`attention_join`] | its splits, in packed order | `attention_join` | `reference::attention` |
//! | [`kv_write`] | keys and values from a product's parts | `kv_write` | `reference::attention_decode` |
//! | [`swiglu`] | silu(g) · u | `swiglu` | `reference::swiglu` |
//! | [`matmul_tn`] | β·C + α·Aᵀ·diag(w)·B | `matmul_tn`, `matmul_tn_subgroup` | `reference::matmul_tn` |
//! | [`column_product`] | C + Aᵀ·diag(w)·B of whole activations | `matmul_coop`, or `matmul_tn` | `reference::matmul_tn` |
//! | [`scale_search`] | a group's scales | `column_max`, `scale_error`, `scale_pick` | `reference::scale_search` |
//! | [`scale_loss`] | the same by what rounding costs | `scale_loss`, `scale_choose` | `reference::scale_loss` |
//! | [`gptq_group`] | rounding with feedback | `gptq_group` | `reference::gptq` |
//! | [`pack`] | codes to words | `pack` | `reference::pack` |
//! | [`weight_error`] | w − decoded, bit check | `weight_error` | `reference::weight_error` |
//! | [`symmetrize`] | the half above the diagonal, mirrored | `symmetrize` | `reference::cholesky` |
//! | [`unit_diagonal`] | D·H·D in another order | `unit_diagonal` | `reference::cholesky` |
//! | [`cholesky_block`] | R⁻¹ of M = Rᵀ·R | `cholesky_block` | `reference::cholesky` |
//! | [`turn_factor`] | a lower triangle turned to an upper | `turn_factor` | `reference::cholesky` |
//! | [`score`] | −ln of softmax(x) at t, Σ p·(ln p − ln q) | `score` | `reference::score` |
//! | [`difference`] | a·(y − x) | `difference` | `reference::difference` |
//! | [`dot`] | Σ x·y | `dot` | `reference::dot` |
//! | [`sample`] | logits to the next token | `sample_scores`, `sample_greedy`, `sample_weights`, `sample_order`, `sample_choose` | `reference::sample` |
//! | [`gather_rows`] | x[order, :] | `gather_rows` | `reference::embed` |
//! | [`read_bandwidth`] | xor of words | `read_bandwidth` | `reference::read_bandwidth` |
//!
//! An operation checks shapes, picks the variant for the device's tier and adds dispatches to a list; nothing runs
//! until the list does. Which variants exist is told by [`variants`], so that a test can compile them all.

pub mod activation;
pub mod attention;
pub mod attention_decode;
pub mod attention_join;
pub mod cache;
pub mod cholesky_block;
pub mod column_product;
pub mod dequantize;
pub mod difference;
pub mod dot;
pub mod embed;
pub mod gather_rows;
pub mod gptq_group;
pub mod group_gemv;
pub mod halve;
pub mod halve_columns;
pub mod kv_write;
pub mod matmul;
pub mod matmul_tn;
pub mod pack;
pub mod permute;
pub mod quant_matmul;
pub mod read_bandwidth;
pub mod reorder;
pub mod residual_norm;
pub mod rms_norm;
pub mod rope;
pub mod sample;
pub mod scale_loss;
pub mod scale_search;
pub mod score;
pub mod swiglu;
pub mod swiglu_gather;
pub mod symmetrize;
pub mod turn_factor;
pub mod unit_diagonal;
pub mod weight_error;

mod attention_coop;
mod coop_text;
mod coop_tile;
mod dense;
mod gemv_text;
pub mod group_geometry;
mod group_table;
mod operand;
mod paged_cache;
mod quant;
mod quant_group;
mod tall;
mod tensor;
mod unpack;

pub use dense::{DenseMatrix, Slab};
pub use operand::{Operand, OperandRoom, on_matrix_units};
pub use paged_cache::{CacheShape, CacheSlab, PagedCache};
pub use quant::{Permutation, QuantMatrix, QuantSlab, block_table, decode_bytes, slab_columns};
pub use quant_group::{GroupMember, QuantGroup};
pub use residual_norm::RowNorm;
pub use tall::TallMatrix;
pub use tensor::Tensor;

use self::cache::CachePrecision;
use crate::gpu::{Capabilities, Tier, Variant};

/// Lanes of a workgroup in kernels that go element by element.
const ELEMENTWISE: u32 = 64;

/// Puts the reduction of the tier behind `common/reduce.wgsl`: the one place where that is decided.
fn with_reduce(variant: Variant, capabilities: &Capabilities) -> Variant {
    if capabilities.tier() >= Tier::Subgroup {
        variant.import("common/reduce.wgsl", "common/reduce_subgroup.wgsl")
    } else {
        variant
    }
}

/// Every variant that a device with these capabilities may be asked for.
pub fn variants(capabilities: &Capabilities) -> Vec<Variant> {
    let mut all = vec![
        embed::variant(),
        rms_norm::variant(capabilities),
        permute::variant(),
        quant_matmul::variant(),
        dequantize::variant(capabilities),
        reorder::variant(),
        rope::variant(),
        cache::variant(CachePrecision::Half),
        cache::variant(CachePrecision::Single),
        attention::merge_variant(),
        kv_write::variant(128, 4, CachePrecision::Half),
        kv_write::variant(128, 4, CachePrecision::Single),
        swiglu::variant(),
        gptq_group::variant(),
        pack::variant(),
        weight_error::variant(),
        score::variant(capabilities),
        difference::variant(),
        dot::variant(),
        gather_rows::variant(),
        read_bandwidth::variant(),
        symmetrize::variant(),
        unit_diagonal::variant(),
        cholesky_block::variant(),
        turn_factor::variant(),
    ];
    all.extend(sample::variants());
    all.extend(scale_search::variants());
    all.extend(scale_loss::variants());
    all.extend(group_gemv::variants(capabilities));
    all.extend(residual_norm::variants(capabilities));
    all.extend(swiglu_gather::variants());
    all.extend(attention_join::variants(64, 128));
    all.extend(halve::variants(capabilities));
    all.extend(halve_columns::variants());
    all.extend(matmul::variants(capabilities));
    all.extend(matmul_tn::variants(capabilities));
    for precision in [CachePrecision::Half, CachePrecision::Single] {
        for dim in [16, 64, 96, 128] {
            all.extend(attention::variants(capabilities, dim, precision));
        }
        for (dim, heads, sums) in [(8, 1, 1), (64, 8, 2), (80, 7, 4), (128, 1, 8), (128, 8, 16), (256, 8, 4)]
        {
            all.extend(attention_decode::variants(dim, heads, sums, precision));
        }
    }
    all
}
