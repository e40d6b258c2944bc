//! Where the time of a conversion went, and what all layers of a model would take.

use exlay::gpu::Device;
use exlay::quant::convert::Conversion;
use exlay::quant::stages::{Share, extrapolate};
use serde::Serialize;

use crate::cli::output::{Align, Table};
use crate::cli::units;

/// A line for each stage, and what they add up to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Stages {
    /// Layers that were converted.
    layers: usize,
    /// Layers of the model.
    all_layers: usize,
    stages: Vec<Share>,
    /// Seconds of all stages.
    seconds: f64,
    /// Share of them in which the device worked, where it has a clock.
    busy: Option<f64>,
    /// Seconds for all layers.
    whole_seconds: f64,
}

impl Stages {
    /// What a metered device has to tell of a conversion.
    ///
    /// # Errors
    /// As the model's files report.
    pub(super) fn of(device: &Device, conversion: &Conversion) -> exlay::Result<Self> {
        let layers = conversion.config()?.num_hidden_layers;
        let all_layers = conversion.synthetic.as_ref().map_or(layers, |model| model.all_layers());
        Ok(Self::new(extrapolate(&device.stages(), layers, all_layers), layers, all_layers))
    }

    fn new(stages: Vec<Share>, layers: usize, all_layers: usize) -> Self {
        let sum = |of: &dyn Fn(&Share) -> f64| stages.iter().map(of).sum::<f64>();
        let (seconds, whole_seconds) = (sum(&|share| share.seconds), sum(&|share| share.whole));
        let busy: Option<f64> = stages.iter().map(|share| share.busy).sum();
        Self { layers, all_layers, seconds, busy: busy.map(|busy| busy / seconds), whole_seconds, stages }
    }
}

impl std::fmt::Display for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { layers, all_layers, stages, seconds, busy, whole_seconds } = self;
        let mut table = Table::new(&[
            ("part", Align::Left),
            ("stage", Align::Left),
            ("time", Align::Right),
            ("GPU busy", Align::Right),
            ("device memory", Align::Right),
            ("all layers", Align::Right),
        ]);
        let percent =
            |busy: Option<f64>| busy.map_or("unknown".to_owned(), |busy| format!("{:.0} %", 100.0 * busy));
        for Share { part, stage, seconds, busy, peak, whole } in stages {
            table.row(vec![
                (*part).to_owned(),
                (*stage).to_owned(),
                units::seconds(*seconds),
                percent(busy.map(|busy| busy / seconds)),
                units::bytes(*peak),
                units::seconds(*whole),
            ]);
        }
        let peak = stages.iter().map(|share| share.peak).max().unwrap_or(0);
        table.row(vec![
            "all".to_owned(),
            String::new(),
            units::seconds(*seconds),
            percent(*busy),
            units::bytes(peak),
            units::seconds(*whole_seconds),
        ]);
        write!(f, "{table}")?;
        if layers == all_layers {
            return Ok(());
        }
        writeln!(
            f,
            "Measured on {layers} of {all_layers} layers. For all of them the first counts once, each other one as the mean of \
             those after the first (of one layer, as that), files in proportion, the embedding and the head once; snapshots for \
             resuming, at most a twentieth more, are left out. Memory does not grow with layers."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let share =
            |part, stage, seconds, busy, whole| Share { part, stage, seconds, busy, peak: 3 << 20, whole };
        let stages = vec![
            share("embedding", "other", 2.0, Some(0.0), 2.0),
            share("quantizing", "factors", 6.0, Some(5.4), 240.0),
        ];
        let text = Stages::new(stages.clone(), 2, 80).to_string();
        let line = "quantizing  factors  6.00 s      90 %        3.0 MiB  4 min 00 s";
        assert!(text.contains(line) && text.contains("Measured on 2 of 80"), "{text}");
        let unknown = vec![Share { busy: None, ..stages[0].clone() }];
        let text = Stages::new(unknown, 2, 2).to_string();
        assert!(text.contains("unknown") && !text.contains("Measured on"), "{text}");
    }
}
