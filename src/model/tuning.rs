//! A tuning profile: how products are shared out among workgroups on one adapter, and the file that keeps it.
//!
//! A profile is an offer: whatever is wrong with its file, the numbers without measurement are as right. It also holds how K is cut,
//! which depends on the shape alone: where that differs, the file is of another exlay.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::gpu::{Adapter, Device};
use crate::ops::group_geometry::slices;
use crate::{Error, Result};

/// A file larger than this is not read: nothing that exlay wrote.
const MOST_BYTES: u64 = 1 << 20;

/// How products of a shape are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Rows of the weights.
    pub k: usize,
    /// Columns of all of a group's weights.
    pub columns: usize,
    /// Slices that K is cut into.
    pub slices: usize,
    /// How many of them a workgroup makes.
    pub of_workgroup: usize,
}

/// What was measured on an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Name of the adapter.
    pub adapter: String,
    /// Its interface, driver and version.
    pub driver: String,
    /// exlay's version.
    pub version: String,
    /// By shape.
    pub products: Vec<Product>,
}

fn driver(adapter: &Adapter) -> String {
    format!("{} {}", adapter.backend(), adapter.driver())
}

impl Tuning {
    /// What a device of `adapter` has now.
    pub fn of(adapter: &Adapter, device: &Device) -> Self {
        let product = |([k, columns], of_workgroup): ([usize; 2], usize)| Product {
            k,
            columns,
            slices: slices(k, columns),
            of_workgroup,
        };
        Self {
            adapter: adapter.name().to_owned(),
            driver: driver(adapter),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            products: device.geometry().entries().into_iter().map(product).collect(),
        }
    }

    /// The name under which an adapter's profile is kept.
    pub fn file_name(adapter: &Adapter) -> String {
        let name = format!("{} {} {}", adapter.name(), driver(adapter), env!("CARGO_PKG_VERSION"));
        let words: Vec<&str> = name
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        format!("tuning-{}.json", words.join("-").chars().take(160).collect::<String>())
    }

    /// Reads a profile of `adapter`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] when it is damaged, or of another adapter, driver or version of exlay.
    pub fn read(path: &Path, adapter: &Adapter) -> Result<Self> {
        let mut text = String::new();
        let file = File::open(path).map_err(Error::io(path))?;
        file.take(MOST_BYTES).read_to_string(&mut text).map_err(Error::io(path))?;
        let tuning: Self = serde_json::from_str(&text)
            .map_err(|error| Error::file(path, format!("is no tuning profile: {error}")))?;
        let of = |what: &str, theirs: &str, ours: &str| {
            let message = format!("is a tuning profile for {what} `{theirs}`, not `{ours}`");
            if theirs == ours { Ok(()) } else { Err(Error::file(path, message)) }
        };
        of("adapter", &tuning.adapter, adapter.name())?;
        of("driver", &tuning.driver, &driver(adapter))?;
        of("exlay", &tuning.version, env!("CARGO_PKG_VERSION"))?;
        if let Some(other) = tuning.products.iter().find(|one| slices(one.k, one.columns) != one.slices) {
            let Product { k, columns, slices, .. } = other;
            let message = format!("cuts {k} x {columns} into {slices} slices, as this exlay does not");
            return Err(Error::file(path, message));
        }
        Ok(tuning)
    }

    /// Sets a device's geometry. What it cannot do, it does as without a profile.
    pub fn apply(&self, device: &Device) {
        for one in &self.products {
            device.geometry().set([one.k, one.columns], Some(one.of_workgroup));
        }
    }

    /// Writes the profile; it appears under its name only when complete.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let text =
            serde_json::to_string_pretty(self).map_err(|error| Error::file(path, error.to_string()))?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(Error::io(directory))?;
        }
        let aside = path.with_extension(format!("{}.partial", std::process::id()));
        let written = fs::write(&aside, text + "\n").and_then(|()| fs::rename(&aside, path));
        written.map_err(|error| {
            let _ = fs::remove_file(&aside);
            Error::io(path)(error)
        })
    }
}
