//! The converter.

pub mod allocate;
pub mod atomic;
pub mod options;
pub mod recipe;
pub mod snapshot;
pub mod state_file;
