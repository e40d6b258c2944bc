//! A range of device memory that is counted while it lives.

use std::sync::Arc;

use super::device::Device;

/// Device memory; cloning shares it. Belongs to one [`Device`].
#[derive(Clone)]
pub struct Buffer(Arc<Inner>);

struct Inner {
    raw: wgpu::Buffer,
    label: String,
    bytes: u64,
    device: Device,
}

impl Buffer {
    pub(super) fn new(device: Device, raw: wgpu::Buffer, label: &str, bytes: u64) -> Self {
        Self(Arc::new(Inner { raw, label: label.to_owned(), bytes, device }))
    }

    /// What it holds, for messages and profilers.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// Its size in bytes, a multiple of four.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// The device whose memory it is.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// True when both are the same memory.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.0.raw
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.device.release(self.bytes);
    }
}
