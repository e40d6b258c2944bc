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
        let stamps = pieces.len() as u32 + 1;
        let bytes = u64::from(stamps) * u64::from(wgpu::QUERY_SIZE);
        let raw = device.raw();
        let staging = device.guarded(label, || {
            let set = raw.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("time stamps"),
                ty: wgpu::QueryType::Timestamp,
                count: stamps,
            });
            let buffer = |usage| {
                raw.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("time stamps"),
                    size: bytes,
                    usage,
                    mapped_at_creation: false,
                })
            };
            let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
            let staging = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
            let mut encoder = raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.write_timestamp(&set, 0);
            for (piece, stamp) in pieces.iter().zip(1..) {
                super::list::encode(&mut encoder, label, piece);
                encoder.write_timestamp(&set, stamp);
            }
            encoder.resolve_query_set(&set, 0..stamps, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, bytes);
            device.queue().submit([encoder.finish()]);
            staging.map_async(wgpu::MapMode::Read, .., |_| {});
            staging
        })?;
        device.wait(label)?;
        let failed = |error: String| Error::Device { label: label.to_owned(), message: error };
        let view = staging.get_mapped_range(..).map_err(|error| failed(error.to_string()))?;
        let period = f64::from(device.queue().get_timestamp_period()) * 1e-9;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view[..]);
        seconds.extend(ticks.windows(2).map(|two| two[1].wrapping_sub(two[0]) as f64 * period));
    }
    Ok(seconds)
}
