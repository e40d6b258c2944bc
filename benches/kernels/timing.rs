//! Seconds of a list: warm up, then samples of as many runs as take long enough for the host's clock.

use std::time::{Duration, Instant};

use exlay::Result;
use exlay::gpu::{CommandList, Device};
use exlay::selftest::Random;

/// Work before the first sample, which brings clocks up to speed.
const WARM_UP: Duration = Duration::from_millis(100);

/// A sample takes at least this long, so that submitting and waiting are a small part of it.
const SAMPLE: Duration = Duration::from_millis(50);

/// Microseconds of one operation.
pub(crate) struct Timing {
    /// Times that a list holds the operation.
    pub(crate) sets: usize,
    /// Runs of the list in a sample.
    pub(crate) runs: u32,
    /// One of each sample, in the order of time.
    pub(crate) samples: Vec<f64>,
}

impl Timing {
    /// The sample in the middle, and the least and the largest.
    pub(crate) fn summary(&self) -> (f64, f64, f64) {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        (median, sorted[0], sorted[sorted.len() - 1])
    }
}

/// Times a list that holds an operation `sets` times.
///
/// # Errors
/// As [`CommandList::run`] and [`Device::wait`].
pub(crate) fn measure(list: &CommandList, sets: usize, samples: usize) -> Result<Timing> {
    let time = |runs: u32| -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..runs {
            list.run()?;
        }
        list.device().wait("a benchmark")?;
        Ok(start.elapsed())
    };
    // The first run waits for uploads too.
    time(1)?;
    let (mut runs, mut last, mut warmed) = (1, time(1)?, Duration::ZERO);
    while warmed < WARM_UP || last < SAMPLE {
        if last < SAMPLE {
            // Toward 1.2 times the least, but never in one leap from a time too short to measure.
            let wanted = 1.2 * f64::from(runs) * SAMPLE.as_secs_f64() / last.as_secs_f64().max(1e-9);
            runs = (wanted.ceil() as u32).clamp(runs + 1, 8 * runs);
        }
        last = time(runs)?;
        warmed += last;
    }
    let operations = f64::from(runs) * sets as f64;
    let samples =
        (0..samples).map(|_| Ok(1e6 * time(runs)?.as_secs_f64() / operations)).collect::<Result<_>>()?;
    Ok(Timing { sets, runs, samples })
}

/// Gigabytes per second, read and written, of the driver's own copies of `bytes` / 2: what memory can do at best.
///
/// # Errors
/// As [`measure`].
pub(crate) fn copy(device: &Device, bytes: u64, samples: usize) -> Result<f64> {
    let half = bytes / 2;
    let from = device.upload("copied", &Random::new(0, "copied").words((half / 4) as usize))?;
    let to = device.alloc("copy", half)?;
    let mut list = CommandList::new(device, "copy");
    list.copy(&from, 0, &to, 0, half)?;
    let (median, _, _) = measure(&list, 1, samples)?.summary();
    Ok(2.0 * half as f64 / median / 1e3)
}
