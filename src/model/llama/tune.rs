//! How a model's products are best shared out among workgroups, found by timing a token each way. Changes no result: see
//! [`crate::ops::group_geometry`].

use std::time::{Duration, Instant};

use super::Llama;
use crate::Result;
use crate::gpu::{Clock, CommandList};
use crate::model::batch::Row;
use crate::model::decode::shapes;
use crate::ops::attention_decode::OwnKeys;
use crate::ops::group_geometry::choices;

/// Work before anything is timed: an idle card runs at a part of its clock. Ways of one shape are timed in turns besides.
const WAKE_UP: Duration = Duration::from_millis(400);

/// Times that each way is timed; the least counts.
const ROUNDS: usize = 3;

/// A sample takes at least this long.
const SAMPLE: Duration = Duration::from_millis(8);

/// What another way must save of a token to be taken: what repeated samples differ by.
const MARGIN: f64 = 0.002;

/// Where tokens are timed: nothing is cached there before the first text.
const FIRST: Row = Row { token: 0, slot: 0, position: 0 };

impl Llama {
    /// Times a token with each choice for each shape of product that the device's geometry does not have, and sets the best;
    /// how many shapes that were. For a model that has just been loaded: what it was told before is lost.
    ///
    /// # Errors
    /// As the device reports.
    pub fn tune(&mut self) -> Result<usize> {
        let device = self.device.clone();
        let geometry = device.geometry();
        let Some(decode) = &self.decode else { return Ok(0) };
        let open: Vec<([usize; 2], Vec<usize>)> = shapes(&self.blocks, &self.head)
            .into_iter()
            .filter(|&shape| geometry.of_workgroup(shape).is_none())
            .map(|shape| (shape, choices(&device, shape[0], shape[1])))
            .filter(|(_, choices)| choices.len() > 1)
            .collect();
        if open.is_empty() {
            return Ok(0);
        }
        self.seat(&[FIRST], decode.embedded())?;
        let clock = device.clock()?;
        let first = self.token()?;
        let started = Instant::now();
        let mut runs = 1;
        while started.elapsed() < WAKE_UP {
            let seconds = first.seconds(runs, clock)? / f64::from(runs);
            runs = (SAMPLE.as_secs_f64() / seconds.max(1e-6)).ceil().clamp(1.0, 64.0) as u32;
        }
        for (shape, choices) in &open {
            let best = self.best(*shape, choices, runs, clock);
            geometry.set(*shape, best.as_ref().ok().copied());
            best?;
        }
        self.decode_lists.clear();
        Ok(open.len())
    }

    /// The best of the choices for a shape, the first where none saves enough.
    fn best(&self, shape: [usize; 2], choices: &[usize], runs: u32, clock: Clock) -> Result<usize> {
        let ways = choices
            .iter()
            .map(|&of_workgroup| {
                self.device.geometry().set(shape, Some(of_workgroup));
                let list = self.token()?;
                // Kernels are loaded to the device when they first run.
                list.seconds(1, clock)?;
                Ok((of_workgroup, list))
            })
            .collect::<Result<Vec<(usize, CommandList)>>>()?;
        let mut least = vec![f64::INFINITY; ways.len()];
        for _ in 0..ROUNDS {
            for (least, (_, list)) in least.iter_mut().zip(&ways) {
                *least = least.min(list.seconds(runs, clock)?);
            }
        }
        let enough = least[0] * (1.0 - MARGIN);
        let times = least.iter().zip(choices).skip(1).filter(|(time, _)| **time < enough);
        Ok(times.min_by(|a, b| a.0.total_cmp(b.0)).map_or(choices[0], |(_, &choice)| choice))
    }

    /// The list of a token as the geometry is now.
    fn token(&self) -> Result<CommandList> {
        let mut list = CommandList::new(&self.device, "a token to time");
        if let Some(decode) = &self.decode {
            self.record_decode(&mut list, decode, 1, OwnKeys::New)?;
        }
        Ok(list)
    }
}
