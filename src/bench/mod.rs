//! Top floor: how fast kernels and whole models are on a device, which share of what the device can do that is, and how far the
//! arithmetics of generation are apart.
//!
//! Nothing is timed that was not verified first; times are the device's own where it has a clock ([`crate::gpu::Clock`]),
//! inputs rotate through more memory than a last-level cache holds, and the device is busy before the first sample. What
//! is printed is the caller's affair.

mod arithmetic;
mod decode;
mod entry;
mod factor;
mod forward;
mod fused;
mod kernels;
mod model;
mod products;
mod quantizer;
mod report;
mod spread;
mod timing;

pub use arithmetic::{Difference, Likeness, difference, likeness, logits, random_tokens};
pub use entry::Layer;
pub use kernels::{KernelPlan, time_kernels};
pub use model::{Decoded, KernelShare, ModelFigures, ModelPlan, Prompted, time_model};
pub use report::{Figures, KernelReport, Record};
pub use spread::Spread;
pub use timing::{Bandwidth, bandwidth};
