//! `--tuning`: which profile a device gets, when one is measured, and what is told of it.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use exlay::gpu::{Adapter, Device};
use exlay::model::{Llama, Product, Tuning};
use serde::Serialize;

use super::{GlobalArgs, cache_directory, output, units};

/// What the flag says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// No profile.
    Off,
    /// This one, as it is.
    Pinned(PathBuf),
}

impl FromStr for Wanted {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "off" { Self::Off } else { Self::Pinned(PathBuf::from(text)) })
    }
}

/// Where the geometry of products is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    /// No profile was wanted.
    Off,
    /// The adapter is software, or the profile was of no use.
    #[default]
    Default,
    /// The flag's file.
    Pinned,
    /// The cache directory's.
    Kept,
    /// The same, completed in this run.
    Measured,
}

/// The geometry of products, and where it is from.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct TuningReport {
    /// What it is from.
    source: Source,
    /// The profile's file, if one is used.
    file: Option<PathBuf>,
    /// Time that measuring took.
    seconds: f64,
    /// What the profile says, of other models too.
    products: Vec<Product>,
}

/// The file of an adapter's profile in the user's cache directory.
fn kept(adapter: &Adapter) -> Option<PathBuf> {
    cache_directory().map(|directory| directory.join(Tuning::file_name(adapter)))
}

/// Gives a device its profile, if there is one. One that is of no use is ignored, which is noted.
///
/// # Errors
/// When the file that is pinned cannot be read.
pub(super) fn apply(global: &GlobalArgs, adapter: &Adapter, device: &Device) -> exlay::Result<()> {
    let path = match &global.tuning {
        Some(Wanted::Off) => return Ok(()),
        Some(Wanted::Pinned(path)) => path.clone(),
        None => match kept(adapter).filter(|path| path.exists()) {
            Some(path) => path,
            None => return Ok(()),
        },
    };
    match Tuning::read(&path, adapter) {
        Ok(tuning) => tuning.apply(device),
        Err(error @ exlay::Error::Io { .. }) if global.tuning.is_some() => return Err(error),
        Err(error) => output::note(&format!("{error}; it is ignored")),
    }
    Ok(())
}

/// Measures what the device's profile lacks of a model, unless the flags or the kind of adapter rule it out, and keeps it.
///
/// # Errors
/// As the device reports.
pub(super) fn complete(
    global: &GlobalArgs,
    adapter: &Adapter,
    device: &Device,
    model: &mut Llama,
) -> exlay::Result<TuningReport> {
    let products = |device: &Device| Tuning::of(adapter, device).products;
    let report = |source, file| TuningReport { source, file, seconds: 0.0, products: products(device) };
    match &global.tuning {
        Some(Wanted::Off) => return Ok(report(Source::Off, None)),
        Some(Wanted::Pinned(_)) if products(device).is_empty() => return Ok(report(Source::Default, None)),
        Some(Wanted::Pinned(path)) => return Ok(report(Source::Pinned, Some(path.clone()))),
        None if device.software() => return Ok(report(Source::Default, None)),
        None => {}
    }
    let started = Instant::now();
    let measured = model.tune()?;
    let file = kept(adapter);
    if measured > 0
        && let Some(path) = &file
        && let Err(error) = Tuning::of(adapter, device).write(path)
    {
        output::note(&format!("{error}; the next start measures again"));
    }
    let source = if measured > 0 { Source::Measured } else { Source::Kept };
    Ok(TuningReport { seconds: started.elapsed().as_secs_f64(), ..report(source, file) })
}

impl TuningReport {
    /// What there is to say in one line.
    pub(crate) fn words(&self) -> String {
        let file = self.file.as_ref().map(|path| format!(", {}", path.display())).unwrap_or_default();
        let product =
            |one: &Product| format!("{}x{} {}/{}", one.k, one.columns, one.of_workgroup, one.slices);
        let products: Vec<String> = self.products.iter().map(product).collect();
        match self.source {
            Source::Measured => {
                format!("measured in {}{file}: {}", units::seconds(self.seconds), products.join(", "))
            }
            Source::Kept => format!("kept{file}: {}", products.join(", ")),
            Source::Pinned => format!("pinned{file}: {}", products.join(", ")),
            Source::Off => "off".to_owned(),
            Source::Default => "default".to_owned(),
        }
    }
}
