//! One tensor of a safetensors file: its type, its shape, and its elements as numbers.
//!
//! That bytes and shape fit each other was checked by the file's reader; that they fit a model is
//! checked with the functions here, whose errors name the tensor.

use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::tensor::Dtype as FileDtype;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Element types that can be read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dtype {
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// IEEE single precision.
    F32,
    /// 32-bit integer; EXL2 keeps unsigned bit patterns in it.
    I32,
    /// 16-bit integer; EXL2 keeps unsigned values in it.
    I16,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
        }
    }

    /// The name used in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F32 => "F32",
            Self::I32 => "I32",
            Self::I16 => "I16",
        }
    }

    pub(super) fn from_file(dtype: FileDtype) -> Option<Self> {
        match dtype {
            FileDtype::F16 => Some(Self::F16),
            FileDtype::BF16 => Some(Self::BF16),
            FileDtype::F32 => Some(Self::F32),
            FileDtype::I32 => Some(Self::I32),
            FileDtype::I16 => Some(Self::I16),
            _ => None,
        }
    }
}

/// One tensor in a mapped file. `bytes` are little-endian elements in row-major order and need not be
/// aligned; their number fits `shape` and `dtype`.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first; none is zero.
    pub shape: &'a [usize],
    /// The elements.
    pub bytes: &'a [u8],
    /// Full name, for messages.
    pub name: &'a str,
    /// The file it lies in, for messages.
    pub path: &'a Path,
}

impl TensorView<'_> {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// An error about this tensor.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::tensor(self.path, self.name, message)
    }

    /// Refuses any other shape than `expected`.
    ///
    /// # Errors
    /// [`Error::Tensor`] with both shapes.
    pub fn expect_shape(&self, expected: &[usize]) -> Result<()> {
        if self.shape == expected {
            return Ok(());
        }
        let shapes = format!("its shape is {:?}, config.json asks for {expected:?}", self.shape);
        Err(self.error(format!("{shapes}; the two files are not of the same model")))
    }

    /// Refuses any other element type than `expected`.
    ///
    /// # Errors
    /// [`Error::Tensor`] with both types.
    pub fn expect_dtype(&self, expected: Dtype) -> Result<()> {
        if self.dtype == expected {
            return Ok(());
        }
        Err(self.error(format!("its type is {}, not {}", self.dtype.name(), expected.name())))
    }

    /// The elements of a float tensor as f32.
    ///
    /// # Errors
    /// If the tensor holds integers, or a value that is not finite.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let values = match self.dtype {
            Dtype::F16 => self.convert(|b: [u8; 2]| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => self.convert(|b: [u8; 2]| bf16::from_le_bytes(b).to_f32()),
            Dtype::F32 => self.convert(f32::from_le_bytes),
            Dtype::I32 | Dtype::I16 => return Err(self.not_float()),
        };
        match values.par_iter().position_first(|value| !value.is_finite()) {
            Some(index) => Err(self.not_finite(index, values[index])),
            None => Ok(values),
        }
    }

    /// The elements of a float tensor rounded to f16.
    ///
    /// # Errors
    /// If the tensor holds integers, a value that is not finite, or one too large for f16.
    pub fn to_f16(&self) -> Result<Vec<f16>> {
        let values = match self.dtype {
            Dtype::F16 => self.convert(f16::from_le_bytes),
            Dtype::BF16 => self.convert(|b: [u8; 2]| f16::from_f32(bf16::from_le_bytes(b).to_f32())),
            Dtype::F32 => self.convert(|b: [u8; 4]| f16::from_f32(f32::from_le_bytes(b))),
            Dtype::I32 | Dtype::I16 => return Err(self.not_float()),
        };
        match values.par_iter().position_first(|value| !value.is_finite()) {
            Some(index) => Err(self.not_finite(index, self.value(index))),
            None => Ok(values),
        }
    }

    /// The bit patterns of an I32 tensor.
    ///
    /// # Errors
    /// If it has another type.
    pub fn to_u32(&self) -> Result<Vec<u32>> {
        self.expect_dtype(Dtype::I32)?;
        Ok(self.convert(u32::from_le_bytes))
    }

    /// The bit patterns of an I16 tensor.
    ///
    /// # Errors
    /// If it has another type.
    pub fn to_u16(&self) -> Result<Vec<u16>> {
        self.expect_dtype(Dtype::I16)?;
        Ok(self.convert(u16::from_le_bytes))
    }

    fn convert<const SIZE: usize, T: Send>(&self, element: impl Fn([u8; SIZE]) -> T + Sync) -> Vec<T> {
        let elements = self.bytes.par_chunks_exact(SIZE).with_min_len(1 << 14);
        elements.map(|bytes| element(bytes.try_into().expect("chunks have this size"))).collect()
    }

    fn value(&self, index: usize) -> f32 {
        let at = &self.bytes[index * self.dtype.size()..];
        match self.dtype {
            Dtype::F16 => f16::from_le_bytes([at[0], at[1]]).to_f32(),
            Dtype::BF16 => bf16::from_le_bytes([at[0], at[1]]).to_f32(),
            _ => f32::from_le_bytes([at[0], at[1], at[2], at[3]]),
        }
    }

    fn not_float(&self) -> Error {
        self.error(format!("its type is {}; F16, BF16 or F32 is needed", self.dtype.name()))
    }

    fn not_finite(&self, index: usize, value: f32) -> Error {
        if value.is_finite() {
            let message = format!("element {index} is {value:e}, which f16 cannot hold (largest: 65504)");
            return self.error(format!("{message}; such a model cannot be used"));
        }
        self.error(format!("element {index} is {value}; the checkpoint is damaged, download it again"))
    }
}
