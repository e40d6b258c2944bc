//! Where the time of a long work goes: stages with their seconds, of which the device was busy for so many.
//!
//! A stage is entered with [`Device::stage`] and left when what that returns is dropped; inside it another may be entered,
//! whose time is its own. On a device that was opened with [`super::DeviceOptions::metered`] the host waits at both ends, so that
//! work counts for the stage that asked for it, and each list carries two time stamps. On any other device nothing happens.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Instant;

use super::device::Device;
use super::timing::Stamps;
use crate::Result;

/// What a stage took.
#[derive(Clone, Debug, PartialEq)]
pub struct StageTime {
    /// Names of the stage and those around it, outermost first.
    pub path: Vec<&'static str>,
    /// Seconds in it, without the stages inside it.
    pub seconds: f64,
    /// Seconds in which the device worked on lists, where it has a clock.
    pub busy: Option<f64>,
    /// Most bytes of device memory held while in it.
    pub peak: u64,
}

/// The books of a device.
pub(super) struct Meter {
    path: Vec<&'static str>,
    since: Instant,
    stamps: Option<Stamps>,
    order: BTreeMap<Vec<&'static str>, usize>,
    stages: Vec<StageTime>,
}

impl Meter {
    pub(super) fn new(stamps: Option<Stamps>) -> Self {
        Self { path: Vec::new(), since: Instant::now(), stamps, order: BTreeMap::new(), stages: Vec::new() }
    }

    /// Sees to it that the stamps of one more list have room.
    pub(super) fn make_room(&mut self, device: &Device) -> Result<()> {
        match &self.stamps {
            Some(stamps) if !stamps.has_room(2) => self.switch(device, |_| {}),
            _ => Ok(()),
        }
    }

    /// Records the beginning or the end of a list.
    pub(super) fn stamp(&mut self, encoder: &mut wgpu::CommandEncoder) {
        if let Some(stamps) = &mut self.stamps {
            stamps.stamp(encoder);
        }
    }

    /// Notes how much memory is held.
    pub(super) fn held(&mut self, bytes: u64) {
        let stage = self.stage();
        stage.peak = stage.peak.max(bytes);
    }

    fn stage(&mut self) -> &mut StageTime {
        let next = self.stages.len();
        let at = *self.order.entry(self.path.clone()).or_insert(next);
        if at == next {
            let busy = self.stamps.as_ref().map(|_| 0.0);
            self.stages.push(StageTime { path: self.path.clone(), seconds: 0.0, busy, peak: 0 });
        }
        &mut self.stages[at]
    }

    /// Books what has passed, all work being done, and goes on with another path.
    fn switch(&mut self, device: &Device, change: impl FnOnce(&mut Vec<&'static str>)) -> Result<()> {
        let busy = self.stamps.as_mut().map(|stamps| stamps.collect(device)).transpose();
        let seconds = self.since.elapsed().as_secs_f64();
        let stage = self.stage();
        stage.seconds += seconds;
        stage.busy = stage.busy.zip(*busy.as_ref().unwrap_or(&None)).map(|(before, more)| before + more);
        self.since = Instant::now();
        change(&mut self.path);
        self.held(device.memory().held);
        busy.map(|_| ())
    }
}

/// A stage that ends when this is dropped.
#[must_use]
pub struct Stage(Option<Device>);

impl Device {
    /// Enters a stage; see the module.
    ///
    /// # Errors
    /// As [`Device::wait`].
    pub fn stage(&self, name: &'static str) -> Result<Stage> {
        let Some(meter) = self.meter() else { return Ok(Stage(None)) };
        self.wait(name)?;
        let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.switch(self, |path| path.push(name))?;
        Ok(Stage(Some(self.clone())))
    }

    /// What the stages took so far, in the order in which they were first entered; nothing where nothing is metered.
    pub fn stages(&self) -> Vec<StageTime> {
        let stages =
            self.meter().map(|meter| meter.lock().unwrap_or_else(PoisonError::into_inner).stages.clone());
        stages.unwrap_or_default()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let Some(device) = &self.0 else { return };
        let Some(meter) = device.meter() else { return };
        // A device that is lost says so to whoever uses it next.
        let _ = device.wait("the end of a stage");
        let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = meter.switch(device, |path| {
            path.pop();
        });
    }
}
