//! Seconds of a list: warm up, then samples of as many runs as take long enough for the clock; and what memory can do.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Spread;
use crate::Result;
use crate::gpu::{Clock, CommandList, Device};
use crate::ops::read_bandwidth::{out_bytes, read_bandwidth};
use crate::random::Random;

/// Work before the first sample of a list.
const WARM_UP: Duration = Duration::from_millis(100);

/// Work before anything is timed: an idle card may run at half its clock for so long.
pub(super) const WAKE_UP: Duration = Duration::from_secs(1);

/// Most bytes that the bandwidths' buffers take together; two of them are used in turn.
const MOST_BYTES: u64 = 1 << 30;

/// The same for a processor, whose caches are smaller than its patience.
const MOST_BYTES_SOFTWARE: u64 = 32 << 20;

/// A sample takes at least this long, so that what a submission costs is a small part of it.
const SAMPLE: Duration = Duration::from_millis(50);

/// Microseconds of one operation.
pub(super) struct Timing {
    /// Times that a list holds the operation.
    pub(super) sets: usize,
    /// Runs of the list in a sample.
    pub(super) runs: u32,
    /// One of each sample.
    pub(super) microseconds: Spread,
}

/// Times a list that holds an operation `sets` times.
///
/// # Errors
/// As [`CommandList::seconds`].
pub(super) fn measure(list: &CommandList, clock: Clock, sets: usize, samples: usize) -> Result<Timing> {
    // The first run waits for uploads too.
    list.seconds(1, clock)?;
    let (least, started) = (SAMPLE.as_secs_f64(), Instant::now());
    let (mut runs, mut last) = (1, list.seconds(1, clock)?);
    while started.elapsed() < WARM_UP || last < least {
        if last < least {
            // Toward 1.2 times the least, but never in one leap from a time too short to measure.
            let wanted = 1.2 * f64::from(runs) * least / last.max(1e-9);
            runs = (wanted.ceil() as u32).clamp(runs + 1, 8 * runs);
        }
        last = list.seconds(runs, clock)?;
    }
    let operations = f64::from(runs) * sets as f64;
    let samples =
        (0..samples).map(|_| Ok(1e6 * list.seconds(runs, clock)? / operations)).collect::<Result<_>>()?;
    Ok(Timing { sets, runs, microseconds: Spread::of(samples) })
}

/// What the device's memory can do, in gigabytes (10⁹ bytes) per second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Read by a kernel that does nothing else.
    pub read_gb_per_s: Spread,
    /// Read and written, counted both, by the driver's own copies.
    pub copy_gb_per_s: Spread,
}

/// Keeps the device busy for a second, then measures its memory: two buffers are read in turn, and one copied to the
/// other, of together up to 1 GiB.
///
/// # Errors
/// As the device reports; [`crate::Error::OutOfMemory`] when there is no room.
pub fn bandwidth(device: &Device, samples: usize) -> Result<Bandwidth> {
    let clock = device.clock()?;
    let most = if device.software() { MOST_BYTES_SOFTWARE } else { MOST_BYTES };
    let bytes = (most / 2).min(device.max_slab_bytes()) / 4096 * 4096;
    let words = Random::new(0, "bandwidth").words((bytes / 4) as usize);
    let (first, second) = (device.upload("first", &words)?, device.upload("second", &words)?);
    drop(words);
    let mut read = CommandList::new(device, "read bandwidth");
    for buffer in [&first, &second] {
        read_bandwidth(&mut read, buffer, bytes, &device.alloc("out", out_bytes(bytes))?)?;
    }
    let started = Instant::now();
    while started.elapsed() < WAKE_UP {
        read.seconds(1, clock)?;
    }
    let mut copy = CommandList::new(device, "copy");
    copy.copy(&first, 0, &second, 0, bytes)?;
    let rate = |list: &CommandList, sets: usize| -> Result<Spread> {
        let microseconds = measure(list, clock, sets, samples)?.microseconds;
        Ok(microseconds.map(|one| bytes as f64 / one / 1e3))
    };
    let read_gb_per_s = rate(&read, 2)?;
    Ok(Bandwidth { read_gb_per_s, copy_gb_per_s: rate(&copy, 1)?.map(|rate| 2.0 * rate) })
}
