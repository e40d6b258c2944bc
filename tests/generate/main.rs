//! Texts continued and scored on a device.

#[path = "../support/mod.rs"]
mod support;

mod eval;
mod generation;

/// A trained model in halves.
const STORIES: &str = "examples/tiny-stories";
