//! The `exlay` command.

fn main() {}
