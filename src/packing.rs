//! How EXL2 codes, scales and groups lie in 32-bit words.
