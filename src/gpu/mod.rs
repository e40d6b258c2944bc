//! Floor 1: what exlay needs of a graphics card, and nothing of models or files.
//!
//! The life of a dispatch: an [`Adapter`] is chosen and opened as a [`Device`]; the device turns a
//! [`Variant`] of a shader into a [`Kernel`] once and keeps it; a [`CommandList`] holds dispatches
//! with their buffers bound and their shapes fixed; [`CommandList::run`] encodes them into one
//! compute pass and submits it, any number of times; errors that the driver or the validator
//! reports come back from the call that caused them. Nothing here is global, so a process may use
//! several devices side by side.

mod adapter;
mod buffer;
mod capabilities;
mod device;
mod geometry;
mod kernel;
mod list;
mod meter;
mod options;
mod pipeline_cache;
mod readback;
mod shader;
mod submission;
mod timing;
mod transfer;

pub use adapter::{Adapter, adapters, select};
pub use buffer::{Buffer, VIEW_ALIGNMENT};
pub use capabilities::{Arithmetic, Capabilities, Tier};
pub use device::Device;
pub use geometry::Geometry;
pub use kernel::{Binding, Interface, Kernel, parse};
pub use list::{CommandList, flat_grid};
pub use meter::{Stage, StageTime};
pub use options::{DeviceOptions, Memory};
pub use readback::Readback;
pub use shader::{Variant, kernel_stems, source};
pub use submission::Submission;
pub use timing::{Clock, Profile};
pub use transfer::Rows;
