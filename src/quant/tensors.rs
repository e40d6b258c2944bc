//! Float tensors by name, before any transform: from the files of a model, or made up.

use std::borrow::Cow;
use std::path::Path;

use crate::formats::safetensors::{Checkpoint, Dtype, TensorView};
use crate::model::{SyntheticFloats, WeightSource};
use crate::{Error, Result};

/// Where all float tensors of a model are to be had.
pub trait Tensors: WeightSource {
    /// A whole tensor.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is missing or has another shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Floats<'_>>;

    /// The rows of the table `name` [rows, columns] for tokens: [tokens, columns].
    ///
    /// # Errors
    /// As [`Tensors::tensor`]; [`Error::Argument`] for a token that the table has no row for.
    fn table(&self, name: &str, shape: [usize; 2], tokens: &[u32]) -> Result<Floats<'_>>;
}

impl Tensors for Checkpoint {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Floats<'_>> {
        let view = self.get(name)?;
        view.expect_shape(shape)?;
        Ok(Floats::stored(view))
    }

    fn table(&self, name: &str, shape: [usize; 2], tokens: &[u32]) -> Result<Floats<'_>> {
        let table = self.get(name)?;
        table.expect_shape(&shape)?;
        check_tokens(tokens, shape[0])?;
        let row_bytes = table.dtype.size() * shape[1];
        let rows = tokens.iter().flat_map(|&token| &table.bytes[token as usize * row_bytes..][..row_bytes]);
        let values = Values::Stored(table.dtype, Cow::Owned(rows.copied().collect()));
        Ok(Floats { name: table.name, path: table.path, shape: vec![tokens.len(), shape[1]], values })
    }
}

impl Tensors for SyntheticFloats {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Floats<'_>> {
        let values = match *shape {
            [rows, columns] => self.matrix(name, columns, 0..rows),
            _ => self.vector(name, shape.iter().product())?,
        };
        Ok(Floats::made(self.name_of(name)?, shape, values))
    }

    fn table(&self, name: &str, shape: [usize; 2], tokens: &[u32]) -> Result<Floats<'_>> {
        check_tokens(tokens, shape[0])?;
        let row = |&token: &u32| self.matrix(name, shape[1], token as usize..token as usize + 1);
        let values = tokens.iter().flat_map(row).collect();
        Ok(Floats::made(self.name_of(name)?, &[tokens.len(), shape[1]], values))
    }
}

fn check_tokens(tokens: &[u32], vocabulary: usize) -> Result<()> {
    match tokens.iter().find(|&&token| token as usize >= vocabulary) {
        None => Ok(()),
        Some(token) => {
            let message = format!("token id {token} where the vocabulary has {vocabulary}");
            Err(Error::argument("tokens", message))
        }
    }
}

/// A float tensor: as it is stored, without a copy, or with other values.
#[derive(Clone, Debug)]
pub struct Floats<'a> {
    name: &'a str,
    path: &'a Path,
    shape: Vec<usize>,
    values: Values<'a>,
}

#[derive(Clone, Debug)]
enum Values<'a> {
    Stored(Dtype, Cow<'a, [u8]>),
    Made(Vec<f32>),
}

impl<'a> Floats<'a> {
    /// A tensor as it is stored.
    pub fn stored(view: TensorView<'a>) -> Self {
        let TensorView { name, path, shape, dtype, bytes } = view;
        Self { name, path, shape: shape.to_vec(), values: Values::Stored(dtype, Cow::Borrowed(bytes)) }
    }

    /// A tensor that is in no file; as many values as the shape has.
    fn made(name: &'a str, shape: &[usize], values: Vec<f32>) -> Self {
        Self { name, path: Path::new("synthetic model"), shape: shape.to_vec(), values: Values::Made(values) }
    }

    /// Sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The same tensor with each value replaced by what `change` makes of all of them, row-major.
    ///
    /// # Errors
    /// As [`TensorView::to_f32`]; [`Error::Tensor`] when the number of values is another.
    pub fn map(self, change: impl FnOnce(Vec<f32>) -> Vec<f32>) -> Result<Self> {
        let (name, path, shape) = (self.name, self.path, self.shape.clone());
        let values = change(self.into_f32()?);
        let count: usize = shape.iter().product();
        if values.len() != count {
            return Err(Error::tensor(
                path,
                name,
                format!("a transform makes {} values of {count}", values.len()),
            ));
        }
        Ok(Self { name, path, shape, values: Values::Made(values) })
    }

    /// All values, row-major.
    ///
    /// # Errors
    /// As [`TensorView::to_f32`] where it is as it was stored.
    pub fn into_f32(self) -> Result<Vec<f32>> {
        match self.values {
            Values::Made(values) => Ok(values),
            Values::Stored(..) => self.view().to_f32(),
        }
    }

    /// The tensor to read: single precision once it was changed.
    pub fn view(&self) -> TensorView<'_> {
        let (dtype, bytes): (Dtype, &[u8]) = match &self.values {
            Values::Stored(dtype, bytes) => (*dtype, bytes),
            Values::Made(values) => (Dtype::F32, bytemuck::cast_slice(values)),
        };
        TensorView { dtype, shape: &self.shape, bytes, name: self.name, path: self.path }
    }
}
