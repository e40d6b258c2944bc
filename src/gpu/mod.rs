//! The life of a dispatch.
