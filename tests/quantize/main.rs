//! The converter from outside, on tiny models: what it makes, how it survives being killed, what it refuses.

#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy exempts only test functions")]

mod bad_input;
mod fitting;
mod job;
mod kill;
mod probes;
mod result;
mod rotation;
mod streams;
mod synthetic;
mod targets;
mod transform;
mod written;

#[path = "../support/mod.rs"]
#[allow(unreachable_pub, reason = "other targets have it as their root")]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::{Value, json};

/// Calibration text of the examples.
pub(crate) fn calibration() -> PathBuf {
    support::path("examples/tiny-stories/calibration.parquet")
}

/// The example model cut to its first layers; the tensors of the others stay and are not looked at.
pub(crate) fn cut_model(directory: &Path, layers: usize) {
    std::fs::create_dir_all(directory).unwrap();
    let from = support::path("examples/tiny-stories");
    for name in ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(from.join(name), directory.join(name)).unwrap();
    }
    edit_json(&from.join("config.json"), &directory.join("config.json"), |config| {
        config["num_hidden_layers"] = json!(layers);
    });
}

/// Copies a JSON file with a change.
pub(crate) fn edit_json(from: &Path, to: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(from).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(to, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
}

/// A model of two layers and its measurement, made once for all tests.
pub(crate) struct Shared {
    pub(crate) model: PathBuf,
    pub(crate) measurement: PathBuf,
}

/// See [`Shared`].
pub(crate) fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("quantize");
        std::fs::create_dir_all(&home).unwrap();
        // nextest runs each test in a process of its own: the first makes both, the others wait.
        let lock = std::fs::File::create(home.join("lock")).unwrap();
        lock.lock().unwrap();
        let (model, measurement) = (home.join("model"), home.join("measurement.json"));
        let built = std::fs::metadata(env!("CARGO_BIN_EXE_exlay")).unwrap().modified().unwrap();
        let stamp = format!("{built:?}");
        if std::fs::read_to_string(home.join("stamp")).is_ok_and(|made| made == stamp) {
            return Shared { model, measurement };
        }
        cut_model(&model, 2);
        let work = home.join("work");
        let output = Convert::new(&model, &work).with("-om", &measurement).flag("-nr").run();
        expect(&output, 0);
        std::fs::write(home.join("stamp"), stamp).unwrap();
        Shared { model, measurement }
    })
}

/// A command line of `exlay convert` with few, short rows.
pub(crate) struct Convert(Vec<String>);

impl Convert {
    pub(crate) fn new(model: &Path, work: &Path) -> Self {
        // A processor that plays a card takes long to search scales; `result` does it all the same.
        let short = "convert -r 4 -l 64 -mr 2 -ml 64 --probe-rows 1 --scales exl2"
            .split(" ")
            .map(str::to_owned)
            .collect();
        Self(short).with("-i", model).with("-o", work).with("-c", calibration())
    }

    /// Adds a flag, replacing what it was.
    pub(crate) fn with(mut self, flag: &str, value: impl AsRef<Path>) -> Self {
        let value = value.as_ref().display().to_string();
        match self.0.iter().position(|known| known == flag) {
            Some(at) => self.0[at + 1] = value,
            None => self.0.extend([flag.to_owned(), value]),
        }
        self
    }

    /// Takes a flag and its value away.
    pub(crate) fn without(mut self, flag: &str) -> Self {
        if let Some(at) = self.0.iter().position(|known| known == flag) {
            self.0.drain(at..at + 2);
        }
        self
    }

    /// Adds a flag without a value.
    pub(crate) fn flag(mut self, flag: &str) -> Self {
        self.0.push(flag.to_owned());
        self
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_exlay"));
        // Without one the driver's window system complains on stderr.
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir()).args(&self.0);
        command
    }

    /// The words of the command line, the program first.
    pub(crate) fn words(&self) -> Vec<&str> {
        std::iter::once(env!("CARGO_BIN_EXE_exlay")).chain(self.0.iter().map(String::as_str)).collect()
    }

    pub(crate) fn run(&self) -> Output {
        self.command().output().unwrap()
    }
}

/// Checks the exit code; returns the messages.
pub(crate) fn expect(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    stderr
}

/// All files of a directory by name.
pub(crate) fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap())
        })
        .collect()
}
