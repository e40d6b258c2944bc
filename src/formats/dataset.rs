//! Texts for calibration and evaluation: a string column of a parquet file, or a text file.
//!
//! Parquet is read a batch of rows at a time. How texts are joined and cut is not decided here.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::basic::Type as PhysicalType;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::error::{Error, Result};

/// The column that is read unless another is asked for.
pub const DEFAULT_COLUMN: &str = "text";

/// Rows that are decoded at once.
const BATCH: usize = 256;

/// The texts in a `.parquet` file (one per row that is not null, of `column` or [`DEFAULT_COLUMN`]) or
/// in a `.txt` file (the whole file is one).
///
/// # Errors
/// If the file cannot be read, has another ending, is empty, or lacks the column. The iterator ends
/// with an error where the file is damaged, a text is no UTF-8, or no row held any text.
pub fn texts(path: &Path, column: Option<&str>) -> Result<Box<dyn Iterator<Item = Result<String>>>> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    match ending.as_deref() {
        Some("parquet") => Ok(Box::new(ParquetTexts::open(path, column.unwrap_or(DEFAULT_COLUMN))?)),
        Some("txt") if column.is_none() => {
            let bytes = std::fs::read(path).map_err(Error::io(path))?;
            let text = String::from_utf8(bytes)
                .map_err(|error| Error::file(path, format!("is not UTF-8: {error}; convert it first")))?;
            if text.trim().is_empty() {
                return Err(Error::file(path, "holds no text"));
            }
            Ok(Box::new(std::iter::once(Ok(text))))
        }
        Some("txt") => Err(Error::argument("--column", "a .txt file has no columns; leave it out")),
        _ => Err(Error::file(path, "is neither .parquet nor .txt; give a file of one of these two kinds")),
    }
}

/// The rows of one column, row group by row group.
struct ParquetTexts {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    column: usize,
    next_group: usize,
    current: Option<ColumnReaderImpl<ByteArrayType>>,
    decoded: VecDeque<ByteArray>,
    any_text: bool,
    ended: bool,
}

impl ParquetTexts {
    fn open(path: &Path, column: &str) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let reader = SerializedFileReader::new(file).map_err(|error| damaged(path, &error))?;
        let metadata = reader.metadata().file_metadata();
        let schema = metadata.schema_descr();
        let is_it = |index: &usize| schema.column(*index).path().parts() == [column];
        let Some(index) = (0..schema.num_columns()).find(is_it) else {
            let names: Vec<&str> =
                schema.root_schema().get_fields().iter().map(|field| field.name()).collect();
            let message = format!(
                "has no column `{column}` of text; it has: {}; choose with --column",
                names.join(", ")
            );
            return Err(Error::file(path, message));
        };
        let found = schema.column(index);
        if found.physical_type() != PhysicalType::BYTE_ARRAY || found.max_rep_level() != 0 {
            return Err(Error::file(
                path,
                format!("its column `{column}` does not hold text; choose with --column"),
            ));
        }
        if metadata.num_rows() <= 0 {
            return Err(Error::file(path, "has no rows"));
        }
        Ok(Self {
            path: path.to_path_buf(),
            reader,
            column: index,
            next_group: 0,
            current: None,
            decoded: VecDeque::new(),
            any_text: false,
            ended: false,
        })
    }

    /// The next text, `None` after the last row.
    fn read(&mut self) -> Result<Option<String>> {
        while self.decoded.is_empty() {
            if !self.decode_batch().map_err(|error| damaged(&self.path, &error))? {
                return Ok(None);
            }
        }
        let Some(bytes) = self.decoded.pop_front() else { return Ok(None) };
        let text = String::from_utf8(bytes.data().to_vec())
            .map_err(|error| Error::file(&self.path, format!("a row is not UTF-8: {error}")))?;
        self.any_text |= !text.trim().is_empty();
        Ok(Some(text))
    }

    /// Decodes some rows, or moves on to the next row group; false after the last.
    fn decode_batch(&mut self) -> std::result::Result<bool, ParquetError> {
        let Some(column) = &mut self.current else {
            if self.next_group == self.reader.num_row_groups() {
                return Ok(false);
            }
            let column = self.reader.get_row_group(self.next_group)?.get_column_reader(self.column)?;
            let ColumnReader::ByteArrayColumnReader(column) = column else {
                return Err(ParquetError::General("a row group contradicts the schema".into()));
            };
            self.current = Some(column);
            self.next_group += 1;
            return Ok(true);
        };
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let (records, _, _) = column.read_records(BATCH, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            self.current = None;
        }
        self.decoded.extend(values);
        Ok(true)
    }
}

impl Iterator for ParquetTexts {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        if item.is_none() && !self.any_text {
            return Some(Err(Error::file(
                &self.path,
                "holds no text: every row is empty; choose with --column",
            )));
        }
        item
    }
}

fn damaged(path: &Path, error: &ParquetError) -> Error {
    Error::file(path, format!("cannot be read as parquet: {error}"))
}
