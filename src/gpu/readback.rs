//! Results that come back while later work runs: a few small buffers that the host can map, used in turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::device::Device;
use crate::{Error, Result};

/// Not mapped yet, mapped, failed.
const WAITING: u8 = 0;
const MAPPED: u8 = 1;
const FAILED: u8 = 2;

/// Copies on their way to the host, in the order in which they were asked for by
/// [`CommandList::run_and_read`](super::CommandList::run_and_read).
pub struct Readback {
    device: Device,
    label: String,
    bytes: u64,
    free: Vec<wgpu::Buffer>,
    pending: VecDeque<Pending>,
}

struct Pending {
    buffer: wgpu::Buffer,
    bytes: u64,
    submission: wgpu::SubmissionIndex,
    state: Arc<AtomicU8>,
}

impl Readback {
    /// Room for `depth` copies on their way, each of at most `bytes`.
    ///
    /// # Errors
    /// [`Error::Device`] from the driver.
    pub fn new(device: &Device, label: &str, bytes: u64, depth: usize) -> Result<Self> {
        let bytes = bytes.next_multiple_of(8);
        let make = || {
            device.raw().create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let free = device.guarded(label, || (0..depth).map(|_| make()).collect())?;
        let pending = VecDeque::with_capacity(depth);
        Ok(Self { device: device.clone(), label: label.to_owned(), bytes, free, pending })
    }

    /// Copies on their way.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Room for more.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Whether the oldest copy has arrived; does not wait.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is lost.
    pub fn ready(&self) -> Result<bool> {
        let Some(oldest) = self.pending.front() else { return Ok(false) };
        if oldest.state.load(Ordering::Acquire) == WAITING {
            self.device.poll(&self.label, wgpu::PollType::Poll)?;
        }
        Ok(oldest.state.load(Ordering::Acquire) != WAITING)
    }

    /// The oldest copy, after waiting for the work that it belongs to and for nothing later.
    ///
    /// # Errors
    /// [`Error::Shape`] when none is on its way, [`Error::Device`] when the device fails.
    pub fn wait<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&mut self) -> Result<Vec<T>> {
        let Some(oldest) = self.pending.pop_front() else {
            return Err(Error::shape("readback", format!("nothing of `{}` is on its way", self.label)));
        };
        let values = self.arrived(&oldest);
        oldest.buffer.unmap();
        self.free.push(oldest.buffer);
        values
    }

    fn arrived<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&self, oldest: &Pending) -> Result<Vec<T>> {
        if oldest.state.load(Ordering::Acquire) == WAITING {
            let submission_index = Some(oldest.submission.clone());
            self.device.poll(&self.label, wgpu::PollType::Wait { submission_index, timeout: None })?;
        }
        let failed = |message: String| Error::Device { label: self.label.clone(), message };
        if oldest.state.load(Ordering::Acquire) != MAPPED {
            return Err(failed("a result could not be mapped".to_owned()));
        }
        let view = oldest.buffer.get_mapped_range(..).map_err(|error| failed(error.to_string()))?;
        let mut values = vec![T::zeroed(); oldest.bytes as usize / size_of::<T>()];
        let bytes = values.len() * size_of::<T>();
        bytemuck::cast_slice_mut::<T, u8>(&mut values).copy_from_slice(&view[..bytes]);
        Ok(values)
    }

    /// Waits for all copies on their way and forgets them.
    ///
    /// # Errors
    /// As [`Readback::wait`].
    pub fn discard(&mut self) -> Result<()> {
        while self.pending() > 0 {
            self.wait::<u8>()?;
        }
        Ok(())
    }

    /// A free buffer for `bytes`.
    ///
    /// # Errors
    /// [`Error::Shape`] when they are more than there is room for or all buffers are on their way.
    pub(super) fn take(&mut self, bytes: u64) -> Result<wgpu::Buffer> {
        if bytes > self.bytes {
            let message = format!("{bytes} bytes of `{}` where {} fit", self.label, self.bytes);
            return Err(Error::shape("readback", message));
        }
        self.free.pop().ok_or_else(|| {
            let message = format!("{} copies of `{}` are on their way already", self.pending(), self.label);
            Error::shape("readback", message)
        })
    }

    /// Notes a buffer whose copy has been submitted.
    pub(super) fn submitted(&mut self, buffer: wgpu::Buffer, bytes: u64, submission: wgpu::SubmissionIndex) {
        let state = Arc::new(AtomicU8::new(WAITING));
        let note = Arc::clone(&state);
        buffer.map_async(wgpu::MapMode::Read, .., move |result| {
            note.store(if result.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
        });
        self.pending.push_back(Pending { buffer, bytes, submission, state });
    }

    /// Takes back a buffer that was not used.
    pub(super) fn give_back(&mut self, buffer: wgpu::Buffer) {
        self.free.push(buffer);
    }
}
