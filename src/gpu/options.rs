//! What can be asked of a device when it is opened, and what it tells of its memory.

use std::path::PathBuf;

use super::capabilities::{Arithmetic, Tier};

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    /// Use no more than this tier.
    pub tier: Option<Tier>,
    /// How few rows are multiplied with packed weights, if not as the capabilities tell.
    pub arithmetic: Option<Arithmetic>,
    /// Keep what the driver makes of the kernels in this directory, for the next start.
    pub pipeline_cache: Option<PathBuf>,
    /// Build kernels with bounds checks and the other safety costs.
    pub checked: bool,
    /// Refuse to hold more bytes than this.
    pub memory_limit: Option<u64>,
    /// Pretend that bindings end at this many bytes; for tests of slabs.
    pub binding_limit: Option<u64>,
    /// Decode no more bytes of packed weights at a time than this; for tests of slabs.
    pub decode_limit: Option<u64>,
    /// Tell what stages take, at the price of waiting at both ends of each ([`super::Device::stage`]).
    pub metered: bool,
}

/// Bytes of device memory in exlay's own buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Held now.
    pub held: u64,
    /// The most held at any time.
    pub peak: u64,
}
