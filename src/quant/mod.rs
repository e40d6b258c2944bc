//! The converter.

pub mod gptq;
pub mod hessian;
pub mod weights;
