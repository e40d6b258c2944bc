//! A range of device memory that is counted while it lives.

use std::sync::Arc;

use super::device::Device;
use crate::{Error, Result};

/// Views begin at multiples of this, the coarsest alignment that an adapter may ask of a binding.
pub const VIEW_ALIGNMENT: u64 = 256;

/// Device memory; cloning shares it. Belongs to one [`Device`].
#[derive(Clone)]
pub struct Buffer {
    memory: Arc<Memory>,
    offset: u64,
    bytes: u64,
}

struct Memory {
    raw: wgpu::Buffer,
    label: String,
    bytes: u64,
    device: Device,
}

impl Buffer {
    pub(super) fn new(device: Device, raw: wgpu::Buffer, label: &str, bytes: u64) -> Self {
        let memory = Arc::new(Memory { raw, label: label.to_owned(), bytes, device });
        Self { memory, offset: 0, bytes }
    }

    /// A part of the memory as a buffer of its own; both keep it alive.
    ///
    /// # Errors
    /// [`Error::Shape`] when the part lies outside or `offset` is no multiple of [`VIEW_ALIGNMENT`].
    pub fn view(&self, offset: u64, bytes: u64) -> Result<Self> {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        if !inside || bytes == 0 || !bytes.is_multiple_of(4) || !offset.is_multiple_of(VIEW_ALIGNMENT) {
            let message = format!("{bytes} bytes at {offset} of `{}` of {}", self.label(), self.bytes);
            return Err(Error::shape("view", message));
        }
        Ok(Self { memory: Arc::clone(&self.memory), offset: self.offset + offset, bytes })
    }

    /// What it holds, for messages and profilers.
    pub fn label(&self) -> &str {
        &self.memory.label
    }

    /// Its size in bytes, a multiple of four.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The device whose memory it is.
    pub fn device(&self) -> &Device {
        &self.memory.device
    }

    /// True when both are, or are parts of, the same allocation.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory)
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.memory.raw
    }

    /// Where it begins in [`Buffer::raw`].
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn binding(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: self.raw(),
            offset: self.offset,
            size: std::num::NonZeroU64::new(self.bytes),
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.device.release(self.bytes);
    }
}
