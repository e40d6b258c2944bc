//! A Llama on the device.
