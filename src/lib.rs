//! exlay quantizes Llama-family models to a mix of 2 to 8 bits per weight (the EXL2 format of
//! ExLlamaV2) and runs them on any GPU that wgpu reaches.
//!
//! Data flows one way: files → model → quantize → files, and files → model → runtime → tokens.
//! Modules are listed in floor order; each may use those above it in this list only, which
//! `tests/architecture.rs` checks.

pub mod error;
pub mod packing;
pub mod random;

pub mod gpu;

pub mod ops;

pub mod formats;

pub mod model;
pub mod reference;

pub mod selftest;

pub mod generate;
pub mod quant;

pub mod bench;

pub use error::{Error, Result};
