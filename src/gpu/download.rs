//! From device memory to the host, waiting for all earlier work; what does not wait is `readback`'s.

use super::buffer::Buffer;
use super::device::Device;
use crate::{Error, Result};

impl Device {
    /// Waits for all earlier work and reads `count` values from a byte offset.
    ///
    /// # Errors
    /// As [`Device::read_into`].
    pub fn read<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(
        &self,
        buffer: &Buffer,
        offset: u64,
        count: usize,
    ) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); count];
        self.read_into(buffer, offset, &mut values)?;
        Ok(values)
    }

    /// Waits for all earlier work and fills `values` from a byte offset (a multiple of four).
    ///
    /// # Errors
    /// [`Error::Shape`] when the range lies outside, [`Error::Device`] from the driver.
    pub fn read_into<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(
        &self,
        buffer: &Buffer,
        offset: u64,
        values: &mut [T],
    ) -> Result<()> {
        let bytes = size_of_val(values) as u64;
        if !offset.is_multiple_of(4) || offset + bytes > buffer.bytes() {
            let message = format!("{bytes} bytes at {offset} of `{}` of {}", buffer.label(), buffer.bytes());
            return Err(Error::shape("readback", message));
        }
        if bytes == 0 {
            return Ok(());
        }
        let staging_bytes = bytes.next_multiple_of(4);
        let staging = self.guarded(buffer.label(), || {
            let staging = self.raw().create_buffer(&wgpu::BufferDescriptor {
                label: Some("readback"),
                size: staging_bytes,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let mut encoder = self.raw().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(buffer.raw(), buffer.offset() + offset, &staging, 0, staging_bytes);
            self.queue().submit([encoder.finish()]);
            staging.map_async(wgpu::MapMode::Read, .., |_| {});
            staging
        })?;
        self.wait(buffer.label())?;
        let failed = |error: String| Error::Device { label: buffer.label().to_owned(), message: error };
        let view = staging.get_mapped_range(..).map_err(|error| failed(error.to_string()))?;
        bytemuck::cast_slice_mut::<T, u8>(values).copy_from_slice(&view[..bytes as usize]);
        Ok(())
    }
}
