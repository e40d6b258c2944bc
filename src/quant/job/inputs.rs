//! All inputs and flags that influence the bytes of a result, and how two sets of them differ.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::quant::fingerprint::hex;

/// Values by the name under which the user knows them, such as `--bits`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inputs(BTreeMap<String, String>);

impl Inputs {
    /// No inputs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The inputs with one more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Display) -> Self {
        self.0.insert(name.to_owned(), value.to_string());
        self
    }

    /// The value of an input.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// SHA-256 in hex of all names and values: whatever is made from the same inputs is the same.
    pub fn fingerprint(&self) -> String {
        let text = serde_json::to_string(self).expect("only strings");
        hex(Sha256::new_with_prefix(text))
    }

    /// Fails with every difference between these recorded inputs and those given now.
    pub(super) fn expect_same(&self, now: &Self, job: &Path) -> Result<()> {
        let names = self.0.keys().chain(now.0.keys().filter(|name| !self.0.contains_key(*name)));
        let mut differences = String::new();
        for name in names {
            let (then, now) = (self.get(name), now.get(name));
            if then != now {
                let (then, now) = (then.unwrap_or("absent"), now.unwrap_or("absent"));
                write!(differences, "\n  {name}: {then} then, {now} now").expect("a string grows");
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::file(
            job,
            format!(
                "this job was started with other inputs:{differences}\nuse the same to go on, --no-resume to start \
                 over, or another --work-dir"
            ),
        ))
    }
}
