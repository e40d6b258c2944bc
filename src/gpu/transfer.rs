//! Between host and device memory: small writes by the queue, large ones through a few staging buffers used in turn, so
//! that sending a model takes no host memory of its size; and reading, which waits. For results that come back while later
//! work runs there is [`super::Readback`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rayon::prelude::*;
use wgpu::WriteOnly;

use super::buffer::Buffer;
use super::device::Device;
use crate::{Error, Result};

/// Bytes of a staging buffer, and how many there are.
const PIECE: u64 = 16 << 20;
const PIECES: usize = 4;

/// Bytes that a thread copies at a time.
const SHARE: usize = 1 << 18;

/// Writes of fewer bytes go by the queue.
const SMALL: usize = 1 << 18;

/// A mapping that is not there yet, is there, or failed.
const WAITING: u8 = 0;
const MAPPED: u8 = 1;
const FAILED: u8 = 2;

/// Staging buffers whose copies were submitted, oldest first.
#[derive(Default)]
pub(super) struct Staging {
    sent: VecDeque<(wgpu::Buffer, wgpu::SubmissionIndex, Arc<AtomicU8>)>,
}

impl Staging {
    /// A mapped buffer: a new one, or when all were sent the oldest after waiting for it.
    fn take(&mut self, device: &Device, label: &str) -> Result<wgpu::Buffer> {
        if self.sent.len() < PIECES {
            return device.guarded(label, || {
                device.raw().create_buffer(&wgpu::BufferDescriptor {
                    label: Some("staging"),
                    size: PIECE,
                    usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: true,
                })
            });
        }
        let (buffer, submission, state) = self.sent.pop_front().expect("all buffers were sent");
        if state.load(Ordering::Acquire) == WAITING {
            let submission_index = Some(submission);
            device.poll(label, wgpu::PollType::Wait { submission_index, timeout: None })?;
        }
        if state.load(Ordering::Acquire) != MAPPED {
            let message = "a staging buffer could not be mapped".to_owned();
            return Err(Error::Device { label: label.to_owned(), message });
        }
        Ok(buffer)
    }

    /// Submits the copy of a piece that was filled.
    fn send(&mut self, device: &Device, from: wgpu::Buffer, to: &Buffer, at: u64, bytes: u64) -> Result<()> {
        let submission = device.guarded(to.label(), || {
            from.unmap();
            let mut encoder = device.raw().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(&from, 0, to.raw(), to.offset() + at, bytes);
            device.queue().submit([encoder.finish()])
        })?;
        let state = Arc::new(AtomicU8::new(WAITING));
        let note = Arc::clone(&state);
        from.map_async(wgpu::MapMode::Write, .., move |result| {
            note.store(if result.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
        });
        self.sent.push_back((from, submission, state));
        Ok(())
    }
}

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
        // What no copy of whole words moves goes by the queue.
        let (large, rest) = bytes.split_at(if bytes.len() < SMALL { 0 } else { bytes.len() & !3 });
        inside(buffer, offset, bytes.len() as u64)?;
        self.write_rows(
            buffer,
            offset,
            &Rows { bytes: large, stride: large.len(), first: 0, width: large.len() },
        )?;
        if rest.is_empty() || self.counts() {
            return Ok(());
        }
        let at = buffer.offset() + offset + large.len() as u64;
        self.guarded(buffer.label(), || {
            if rest.len() % 4 == 0 {
                self.queue().write_buffer(buffer.raw(), at, rest);
            } else {
                let mut padded = rest.to_vec();
                padded.resize(rest.len().next_multiple_of(4), 0);
                self.queue().write_buffer(buffer.raw(), at, &padded);
            }
        })
    }

    /// Writes a part of each row of a table, one after the other, at a byte offset (a multiple of four). The bytes are read
    /// once, by all processors, straight into memory that the device copies from.
    ///
    /// # Errors
    /// As [`Device::write`].
    pub fn write_rows(&self, buffer: &Buffer, offset: u64, rows: &Rows<'_>) -> Result<()> {
        let total = rows.len() as u64;
        inside(buffer, offset, total)?;
        if !total.is_multiple_of(4) {
            return Err(Error::shape("upload", format!("{total} bytes of rows, no whole words")));
        }
        if self.counts() {
            return Ok(());
        }
        let mut staging = self.staging();
        for first in (0..total).step_by(PIECE as usize) {
            let bytes = PIECE.min(total - first);
            let piece = staging.take(self, buffer.label())?;
            let failed = |error: String| Error::Device { label: buffer.label().to_owned(), message: error };
            let mut view = piece.get_mapped_range_mut(..bytes).map_err(|error| failed(error.to_string()))?;
            let (shares, rest) = view.slice(..).into_chunks::<SHARE>();
            let shares: Vec<WriteOnly<'_, [u8; SHARE]>> = shares.into_iter().collect();
            rows.copy_to(first as usize + shares.len() * SHARE, rest);
            shares.into_par_iter().enumerate().for_each(|(index, share)| {
                rows.copy_to(first as usize + index * SHARE, share.into());
            });
            drop(view);
            staging.send(self, piece, buffer, offset + first, bytes)?;
        }
        Ok(())
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

/// Bytes `first .. first + width` of each row of a table whose rows have `stride` bytes.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The table, whole rows.
    pub bytes: &'a [u8],
    /// Bytes from a row to the next.
    pub stride: usize,
    /// First byte of a row that is wanted.
    pub first: usize,
    /// Bytes of a row that are wanted.
    pub width: usize,
}

impl<'a> Rows<'a> {
    /// Bytes that are wanted.
    fn len(&self) -> usize {
        self.bytes.len().checked_div(self.stride).unwrap_or(0) * self.width
    }

    /// Copies the wanted bytes from number `at` on.
    fn copy_to(&self, at: usize, mut to: WriteOnly<'_, [u8]>) {
        let mut done = 0;
        while done < to.len() {
            let run = self.run(at + done, to.len() - done);
            to.slice(done..done + run.len()).copy_from_slice(run);
            done += run.len();
        }
    }

    /// The longest run of the wanted bytes from number `at` on, at most `most` bytes.
    fn run(&self, at: usize, most: usize) -> &'a [u8] {
        let (row, column) = (at / self.width, at % self.width);
        let start = row * self.stride + self.first + column;
        let length = if self.width == self.stride { self.bytes.len() - start } else { self.width - column };
        &self.bytes[start..start + length.min(most)]
    }
}

/// Refuses a range outside of a buffer.
fn inside(buffer: &Buffer, offset: u64, bytes: u64) -> Result<()> {
    if !offset.is_multiple_of(4) || offset.checked_add(bytes).is_none_or(|end| end > buffer.bytes()) {
        let message = format!("{bytes} bytes at {offset} into `{}` of {}", buffer.label(), buffer.bytes());
        return Err(Error::shape("upload", message));
    }
    Ok(())
}
