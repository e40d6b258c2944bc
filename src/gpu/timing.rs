//! How long lists take: by the card's own clock where it has one, else by the host's around submitting and waiting.

use std::time::Instant;

use super::device::Device;
use super::list::{Command, CommandList};
use crate::{Error, Result};

/// What times on the device need of an adapter.
const FEATURES: wgpu::Features =
    wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);

/// Most time stamps in a set.
const MOST_STAMPS: usize = wgpu::QUERY_SET_MAX_QUERIES as usize;

/// The features to ask of a device, as far as its adapter has them.
pub(super) fn features(adapter: &wgpu::Adapter) -> wgpu::Features {
    if adapter.features().contains(FEATURES) { FEATURES } else { wgpu::Features::empty() }
}

/// Whose clock measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clock {
    /// The device's.
    Device,
    /// The host's: each time holds one submission and one wait, which take so many seconds for an empty list.
    Host {
        /// Seconds of submitting nothing and waiting for it.
        round_trip: f64,
    },
}

/// Seconds of each command of a list, in order.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Whose clock measured.
    pub clock: Clock,
    /// The kernel's label (`copy` or `clear` for the other commands) and its seconds, what it waits for included.
    pub steps: Vec<(String, f64)>,
}

impl Device {
    /// The clock that lists are timed by on this device.
    ///
    /// # Errors
    /// As [`Device::wait`].
    pub fn clock(&self) -> Result<Clock> {
        if self.raw().features().contains(FEATURES) {
            return Ok(Clock::Device);
        }
        self.wait("a clock")?;
        let empty = CommandList::new(self, "nothing");
        let round_trip = empty.host_seconds(1)?;
        Ok(Clock::Host { round_trip })
    }
}

impl CommandList {
    /// Runs the list `runs` times in one submission, waits, and tells how many seconds all of them took together by
    /// `clock`, which is [`Device::clock`]'s.
    ///
    /// # Errors
    /// As [`CommandList::run`] and [`Device::wait`].
    pub fn seconds(&self, runs: u32, clock: Clock) -> Result<f64> {
        match clock {
            Clock::Host { .. } => self.host_seconds(runs),
            Clock::Device => {
                let runs = vec![self.commands(); runs as usize];
                Ok(stamped(self.device(), self.label(), &runs)?.into_iter().sum())
            }
        }
    }

    /// Runs the list once, each command after the one before it has ended, and tells how long each took. Their sum
    /// exceeds the list's own time where commands of the list do not depend on each other.
    ///
    /// # Errors
    /// As [`CommandList::run`] and [`Device::wait`].
    pub fn profile(&self) -> Result<Profile> {
        let clock = self.device().clock()?;
        let commands: Vec<&[Command]> = self.commands().chunks(1).collect();
        let seconds = match clock {
            Clock::Device => stamped(self.device(), self.label(), &commands)?,
            Clock::Host { .. } => {
                let device = self.device();
                device.wait(self.label())?;
                commands
                    .iter()
                    .map(|command| timed(device, self.label(), &[*command]))
                    .collect::<Result<_>>()?
            }
        };
        let labels = self.commands().iter().map(|command| command.label().to_owned());
        Ok(Profile { clock, steps: labels.zip(seconds).collect() })
    }

    fn host_seconds(&self, runs: u32) -> Result<f64> {
        timed(self.device(), self.label(), &vec![self.commands(); runs as usize])
    }
}

/// Submits pieces of lists and waits for them.
fn timed(device: &Device, label: &str, pieces: &[&[Command]]) -> Result<f64> {
    let start = Instant::now();
    device.guarded(label, || {
        let mut encoder = device.raw().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        pieces.iter().for_each(|piece| super::list::encode(&mut encoder, label, piece));
        device.queue().submit([encoder.finish()]);
    })?;
    device.wait(label)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Runs pieces of lists with a time stamp after each: seconds of each piece.
fn stamped(device: &Device, label: &str, pieces: &[&[Command]]) -> Result<Vec<f64>> {
    let mut seconds = Vec::with_capacity(pieces.len());
    for pieces in pieces.chunks(MOST_STAMPS - 1) {
        let count = pieces.len() as u32 + 1;
        let mut stamps = Stamps::new(device, count)?;
        device.guarded(label, || {
            let mut encoder = device.raw().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            stamps.stamp(&mut encoder);
            for piece in pieces {
                super::list::encode(&mut encoder, label, piece);
                stamps.stamp(&mut encoder);
            }
            device.queue().submit([encoder.finish()]);
        })?;
        let times = stamps.read(device)?;
        seconds.extend(times.windows(2).map(|two| two[1] - two[0]));
    }
    Ok(seconds)
}

/// Time stamps that lists leave on the device until they are read.
pub(super) struct Stamps {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    room: u32,
    used: u32,
}

impl Stamps {
    /// Room for `room` of them, at most [`MOST_STAMPS`].
    pub(super) fn new(device: &Device, room: u32) -> Result<Self> {
        let bytes = u64::from(room) * u64::from(wgpu::QUERY_SIZE);
        let raw = device.raw();
        let buffer = |usage| {
            raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some("time stamps"),
                size: bytes,
                usage,
                mapped_at_creation: false,
            })
        };
        device.guarded("time stamps", || Self {
            set: raw.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("time stamps"),
                ty: wgpu::QueryType::Timestamp,
                count: room,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            staging: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            room,
            used: 0,
        })
    }

    /// For as many as there can be, where the device has a clock.
    pub(super) fn of(device: &Device) -> Result<Option<Self>> {
        let has_clock = device.raw().features().contains(FEATURES);
        has_clock.then(|| Self::new(device, MOST_STAMPS as u32)).transpose()
    }

    /// Whether there is room for so many more.
    pub(super) fn has_room(&self, more: u32) -> bool {
        self.used + more <= self.room
    }

    /// Records the next one.
    pub(super) fn stamp(&mut self, encoder: &mut wgpu::CommandEncoder) {
        encoder.write_timestamp(&self.set, self.used);
        self.used += 1;
    }

    /// Waits for all work and tells the seconds of all stamps, from any moment on; there is room for as many new ones then.
    fn read(&mut self, device: &Device) -> Result<Vec<f64>> {
        const LABEL: &str = "time stamps";
        let used = std::mem::take(&mut self.used);
        if used == 0 {
            return Ok(Vec::new());
        }
        let bytes = u64::from(used) * u64::from(wgpu::QUERY_SIZE);
        device.guarded(LABEL, || {
            let mut encoder = device.raw().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.resolve_query_set(&self.set, 0..used, &self.resolved, 0);
            encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.staging, 0, bytes);
            device.queue().submit([encoder.finish()]);
            self.staging.map_async(wgpu::MapMode::Read, ..bytes, |_| {});
        })?;
        device.wait(LABEL)?;
        let failed = |error: String| Error::Device { label: LABEL.to_owned(), message: error };
        let view = self.staging.get_mapped_range(..bytes).map_err(|error| failed(error.to_string()))?;
        let period = f64::from(device.queue().get_timestamp_period()) * 1e-9;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view[..]);
        drop(view);
        self.staging.unmap();
        let first = ticks[0];
        Ok(ticks.into_iter().map(|tick| tick.wrapping_sub(first) as f64 * period).collect())
    }

    /// Waits for all work and tells the seconds between the first and second stamp, the third and fourth and so on, together.
    pub(super) fn collect(&mut self, device: &Device) -> Result<f64> {
        let times = self.read(device)?;
        Ok(times.as_chunks::<2>().0.iter().map(|[start, end]| end - start).sum())
    }
}
