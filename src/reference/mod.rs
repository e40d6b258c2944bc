//! Oracles: plain loops in double precision, in the order of the formula they stand for.
//!
//! Kernel tests and `exlay selftest` compare with them, so nothing here shares code with `packing`,
//! `gpu` or `ops`, and nothing here is fast beyond what a test needs: a function for one element or one
//! column stands beside each product, for shapes whose full result would take too long. Shapes are
//! the caller's duty: a wrong one panics, as an index out of range does.

pub mod attention;
pub mod attention_decode;
pub mod cache_write;
pub mod cholesky;
pub mod dequantize;
pub mod difference;
pub mod dot;
pub mod embed;
pub mod fixed;
pub mod gptq;
pub mod halve;
pub mod llama;
pub mod matmul;
pub mod matmul_tn;
pub mod pack;
pub mod pairs;
pub mod permute;
pub mod philox;
pub mod quant_matmul;
pub mod read_bandwidth;
pub mod real;
pub mod reorder;
pub mod rms_norm;
pub mod rope;
pub mod sample;
pub mod scale_loss;
pub mod scale_search;
pub mod score;
pub mod swiglu;
pub mod unpack;
pub mod weight_error;
pub mod weights;

pub use real::Real;
