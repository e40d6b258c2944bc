//! Every kernel against its oracle: each tier, with and without bounds checks, at awkward shapes.
//!
//! The adapter is the first one, or the one that `EXLAY_TEST_ADAPTER` names (index or part of a name).
//! `EXLAY_TEST_TIER=coop` makes an adapter without matrix units a failure; elsewhere their tests do nothing there.

#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy exempts only test functions")]

mod support;

mod attention;
mod attention_decode;
mod cache_slabs;
mod cache_write;
mod column_product;
mod dequantize;
mod device;
mod difference;
mod embed;
mod fused;
mod gemv;
mod halve;
mod lists;
mod matmul;
mod permute;
mod quant_cholesky;
mod quant_factor;
mod quant_gemv;
mod quant_gptq;
mod quant_losses;
mod quant_matmul_tn;
mod quant_numbers;
mod quant_rounding;
mod quant_scales;
mod quant_small;
mod read_bandwidth;
mod readback;
mod reorder;
mod rms_norm;
mod rope;
mod sample;
mod score;
mod selftest;
mod slabs;
mod swiglu;
mod timing;
