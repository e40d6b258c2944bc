//! The stages calibrate and measure of a run.

use std::time::Instant;

use super::Run;
use crate::model::Block;
use crate::quant::job::{Stage, block_name};
use crate::quant::measure::{Measuring, measure_block};
use crate::quant::measurement::{BlockMeasurement, CalibrationIdentity, Measurement};
use crate::quant::probe::Probe;
use crate::quant::report::Reporter;
use crate::quant::stages;
use crate::quant::stream::Stream;
use crate::{Error, Result};

impl Run<'_> {
    /// Stages calibrate and measure.
    pub(super) fn measurement(&mut self, reporter: &mut dyn Reporter) -> Result<Measurement> {
        let specs = self.source.blocks().to_vec();
        let (rows, length) = self.conversion.measurement_rows;
        let dataset = self.conversion.dataset();
        let probed = self.conversion.probe_rows.min(rows);
        let calibration = CalibrationIdentity { dataset, sha256: self.digest.clone(), rows, length, probed };
        let mut measurement = Measurement::new(self.identity.clone(), calibration);
        if self.job.stage() == Stage::Calibrate {
            self.job.advance(Stage::Measure, 0)?;
        }
        let done = if self.job.stage() == Stage::Measure { self.job.next_block() } else { specs.len() };
        let mut finished = Vec::new();
        for index in 0..done {
            match BlockMeasurement::load(self.job.path(&block_name("measure", index)))? {
                Some(block) => finished.push(block),
                None => break,
            }
        }
        if finished.len() < specs.len() {
            let device = self.source.device();
            let mut stream = {
                let _stage = device.stage(stages::EMBEDDING)?;
                Stream::embed(self.source, &self.text.measuring)?
            };
            reporter.progress("Measuring", finished.len(), specs.len());
            let resident: Vec<Block> = match probed {
                0 => Vec::new(),
                _ => {
                    let blocks =
                        (0..specs.len()).map(|index| self.source.block(index)).collect::<Result<_>>();
                    blocks.map_err(not_resident)?
                }
            };
            let probe = match probed {
                0 => None,
                rows => Some(Probe::new(self.source, &resident, &stream, rows).map_err(not_resident)?),
            };
            self.catch_up(&mut stream, "measure-rows.state", finished.len(), &mut |_, _, _| Ok(()))?;
            let method = self.conversion.method;
            let measuring = Measuring { source: self.source, probe: probe.as_ref(), method };
            for (index, spec) in specs.iter().enumerate().skip(finished.len()) {
                let started = Instant::now();
                let _stage = device.stage(stages::MEASURING.of(spec.layer))?;
                let block = match resident.get(index) {
                    Some(block) => block.clone(),
                    None => self.source.block(index)?,
                };
                let result = measure_block(&measuring, (index, &block), &mut stream, reporter)?;
                stream.advance(self.source, &block, &block)?;
                result.save(self.job.claim(&block_name("measure", index))?)?;
                finished.push(result);
                self.job.advance(Stage::Measure, index + 1)?;
                self.snapshot(&stream, "measure-rows.state", index + 1)?;
                reporter.note(&format!(
                    "-- {}: measured in {:.1} s",
                    spec.name,
                    started.elapsed().as_secs_f64()
                ));
                reporter.progress("Measuring", index + 1, specs.len());
            }
            self.job.advance(Stage::Allocate, 0)?;
        }
        finished.into_iter().for_each(|block| measurement.push(block));
        measurement.save(self.job.claim("measurement.json")?)?;
        Ok(measurement)
    }
}

/// Says what to do when a model does not fit on the device as a whole.
fn not_resident(error: Error) -> Error {
    match error {
        Error::OutOfMemory { .. } | Error::Limit { .. } => {
            let message = format!(
                "to probe a model all of it must be on the device, in halves: {error}; --probe-rows 0 measures one block at a time"
            );
            Error::argument("--probe-rows", message)
        }
        other => other,
    }
}
