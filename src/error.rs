//! Every way in which the library can fail, in one enum.
//!
//! A message names the file, tensor, flag or dispatch it is about and says what to do next. Causes
//! from other crates are turned into text or boxed, so that no dependency shows in the interface.

use std::path::{Path, PathBuf};

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is damaged, has the wrong form or contradicts another.
    #[error("{}: {message}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// A tensor is missing, has another type or shape than expected, or holds bad values.
    #[error("{}: tensor `{tensor}`: {message}", path.display())]
    Tensor {
        /// The file or directory that should hold it.
        path: PathBuf,
        /// Its full name.
        tensor: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A value given by the caller cannot be used.
    #[error("{name}: {message}")]
    Argument {
        /// The flag (`--bits`) or parameter.
        name: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// Shapes that do not fit each other, found before anything was dispatched.
    #[error("{operation}: {message}")]
    Shape {
        /// The operation that refused.
        operation: String,
        /// Both shapes.
        message: String,
    },
    /// No graphics adapter can be used.
    #[error("{0}")]
    NoAdapter(String),
    /// Device memory is exhausted, or a limit set by the user is.
    #[error(
        "out of device memory: `{label}` needs {requested} bytes, {held} bytes are held, at most {fits} more would fit; \
         use a shorter context, fewer bits or a card with more memory"
    )]
    OutOfMemory {
        /// The buffer that could not be made.
        label: String,
        /// Its size in bytes.
        requested: u64,
        /// Bytes in buffers at that moment.
        held: u64,
        /// Bytes that could still be had.
        fits: u64,
    },
    /// What is asked for needs more device memory than the user allows; found before anything is loaded.
    #[error("out of device memory: {message}")]
    Limit {
        /// What is needed, what is allowed, and what would fit.
        message: String,
    },
    /// The driver reported an error for a dispatch, a copy or a pipeline.
    #[error("device error in `{label}`: {message}")]
    Device {
        /// The command list, kernel or buffer concerned.
        label: String,
        /// The driver's or validator's text.
        message: String,
    },
    /// A numerical failure: a value that is not finite, a matrix that cannot be factored.
    #[error("{place}: {message}")]
    Numerical {
        /// The layer or tensor.
        place: String,
        /// What was found and what to do.
        message: String,
    },
}

impl Error {
    /// An [`Error::Io`] for `path`; made for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// An [`Error::File`].
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// An [`Error::Tensor`].
    pub fn tensor(path: impl AsRef<Path>, tensor: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Tensor { path: path.as_ref().to_path_buf(), tensor: tensor.into(), message: message.into() }
    }

    /// An [`Error::Argument`].
    pub fn argument(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Argument { name: name.into(), message: message.into() }
    }

    /// An [`Error::Shape`].
    pub fn shape(operation: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Shape { operation: operation.into(), message: message.into() }
    }
}
