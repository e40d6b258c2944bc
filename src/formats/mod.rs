//! Every byte on disk: configurations, safetensors, EXL2 tensors, tokenizers and calibration texts; and how files
//! are written so that they are complete or absent.
//!
//! Files are hostile input: what leaves this module has been checked against itself and against the
//! configuration, so that the floors above may index by it. Nothing here knows of a device.

pub mod atomic;
pub mod chat_template;
pub mod config;
pub mod dataset;
pub mod exl2;
mod header;
mod json;
pub mod rope;
mod rope_config;
pub mod safetensors;
mod spool;
mod tensor;
pub mod tokenizer;
mod writer;
