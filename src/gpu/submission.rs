//! Several lists in one submission: each submission costs the host what many dispatches cost it.

use std::sync::PoisonError;

use super::buffer::Buffer;
use super::device::Device;
use super::list::{CommandList, encode};
use crate::{Error, Result};

/// Work that is put together and then handed to the device at once; each part sees what those before it wrote. What is written
/// by the host meanwhile ([`Device::write`]) is there before all of it.
pub struct Submission {
    device: Device,
    label: String,
    encoder: Option<wgpu::CommandEncoder>,
}

impl Submission {
    /// Nothing yet; `label` names it in errors.
    pub fn new(device: &Device, label: &str) -> Self {
        Self { device: device.clone(), label: label.to_owned(), encoder: None }
    }

    fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some(&self.label) };
        self.encoder.get_or_insert_with(|| self.device.raw().create_command_encoder(&descriptor))
    }

    /// Adds a list.
    pub fn add(&mut self, list: &CommandList) {
        encode(self.encoder(), list.label(), list.commands());
    }

    /// Adds a copy of the first `bytes`, a multiple of four.
    ///
    /// # Errors
    /// [`Error::Shape`] when one holds fewer or the buffers are one.
    pub fn copy(&mut self, from: &Buffer, to: &Buffer, bytes: u64) -> Result<()> {
        if bytes > from.bytes().min(to.bytes()) || from.is(to) || !bytes.is_multiple_of(4) {
            let message = format!("{bytes} bytes from `{}` to `{}`", from.label(), to.label());
            return Err(Error::shape("copy", message));
        }
        self.encoder().copy_buffer_to_buffer(from.raw(), from.offset(), to.raw(), to.offset(), bytes);
        Ok(())
    }

    /// Submits what was added since the last time; does not wait.
    ///
    /// # Errors
    /// [`Error::Device`] with the label.
    pub fn run(&mut self) -> Result<()> {
        let Some(encoder) = self.encoder.take() else { return Ok(()) };
        let Some(meter) = self.device.meter() else {
            return self.device.guarded(&self.label, || {
                self.device.queue().submit([encoder.finish()]);
            });
        };
        let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.make_room(&self.device)?;
        self.device.guarded(&self.label, || {
            let mut stamp = || {
                let mut encoder = self.device.raw().create_command_encoder(&Default::default());
                meter.stamp(&mut encoder);
                encoder.finish()
            };
            let (begun, done) = (stamp(), stamp());
            self.device.queue().submit([begun, encoder.finish(), done]);
        })
    }
}
