//! The quantizer's kernels against their oracles, and whole linears through it.

#[path = "kernels/quant_gptq.rs"]
mod quant_gptq;
#[path = "kernels/quant_matmul_tn.rs"]
mod quant_matmul_tn;
#[path = "kernels/quant_numbers.rs"]
mod quant_numbers;
#[path = "kernels/quant_rounding.rs"]
mod quant_rounding;
#[path = "kernels/quant_scales.rs"]
mod quant_scales;
#[path = "kernels/quant_small.rs"]
mod quant_small;
#[path = "kernels/quant_support.rs"]
mod support;
