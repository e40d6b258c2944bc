//! What can be asked of the device, one operation a file.
