//! Bytes between host memory and a device's buffers; a readback that does not wait is `readback`'s.

use std::sync::atomic::Ordering;

use super::buffer::Buffer;
use super::device::Device;
use crate::{Error, Result};

/// Uploads are cut into pieces of this many bytes.
const UPLOAD_PIECE: usize = 16 << 20;

/// Uploads are submitted when so many bytes wait in staging memory, which wgpu frees only then.
const UPLOAD_WAITING: u64 = 64 << 20;

impl Device {
    /// Allocates and fills a buffer.
    ///
    /// # Errors
    /// As [`Device::alloc`] and [`Device::write`].
    pub fn upload<T: bytemuck::NoUninit>(&self, label: &str, data: &[T]) -> Result<Buffer> {
        let buffer = self.alloc(label, size_of_val(data) as u64)?;
        self.write(&buffer, 0, data)?;
        Ok(buffer)
    }

    /// Writes `data` at a byte offset (a multiple of four).
    ///
    /// # Errors
    /// [`Error::Shape`] when it does not fit, [`Error::Device`] from the driver.
    pub fn write<T: bytemuck::NoUninit>(&self, buffer: &Buffer, offset: u64, data: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        if !offset.is_multiple_of(4) || offset + bytes.len() as u64 > buffer.bytes() {
            let message =
                format!("{} bytes at {offset} into `{}` of {}", bytes.len(), buffer.label(), buffer.bytes());
            return Err(Error::shape("upload", message));
        }
        self.guarded(buffer.label(), || {
            for (index, piece) in bytes.chunks(UPLOAD_PIECE).enumerate() {
                let at = buffer.offset() + offset + (index * UPLOAD_PIECE) as u64;
                if piece.len() % 4 == 0 {
                    self.queue().write_buffer(buffer.raw(), at, piece);
                } else {
                    let mut padded = piece.to_vec();
                    padded.resize(piece.len().next_multiple_of(4), 0);
                    self.queue().write_buffer(buffer.raw(), at, &padded);
                }
                let waiting = self.uploading().fetch_add(piece.len() as u64, Ordering::Relaxed);
                if waiting + piece.len() as u64 > UPLOAD_WAITING {
                    self.uploading().store(0, Ordering::Relaxed);
                    self.queue().submit([]);
                    let _ = self.raw().poll(wgpu::PollType::Poll);
                }
            }
        })
    }

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
