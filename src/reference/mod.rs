//! Oracles: plain loops in double precision.
