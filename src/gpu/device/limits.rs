//! How much an open device takes at a time. What an adapter can do is told by `capabilities`.

use super::Device;

/// The most immediates that naga follows.
const IMMEDIATE_BYTES: u32 = 256;

impl Device {
    /// Largest size in bytes of a buffer that is bound whole.
    pub fn max_slab_bytes(&self) -> u64 {
        self.0.limits.max_storage_buffer_binding_size.min(self.0.limits.max_buffer_size) & !3
    }

    /// The limit on bytes of decoded weights, where one was asked for.
    pub fn decode_limit(&self) -> Option<u64> {
        self.0.options.decode_limit
    }

    /// Most workgroups in one dimension of a dispatch.
    pub fn max_workgroups(&self) -> u32 {
        self.0.limits.max_compute_workgroups_per_dimension
    }

    /// Most invocations in one workgroup.
    pub fn max_invocations(&self) -> u32 {
        self.0.limits.max_compute_invocations_per_workgroup
    }

    /// Most bytes of a kernel's immediates.
    pub fn max_immediate_bytes(&self) -> usize {
        self.0.limits.max_immediate_size.min(IMMEDIATE_BYTES) as usize
    }
}
