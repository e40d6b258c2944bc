//! Calibration and evaluation texts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use exlay::formats::dataset::texts;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::{data, directory, refused};

type Row<'a> = Option<&'a str>;

/// Writes columns `id` and `text`; one row group for each element of `groups`.
fn write(path: &Path, groups: &[&[Row]], compression: Compression) {
    let schema = "message m { required int32 id; optional binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    for rows in groups {
        let mut group = writer.next_row_group().unwrap();
        let mut ids = group.next_column().unwrap().unwrap();
        let numbers: Vec<i32> = (0..rows.len() as i32).collect();
        ids.typed::<Int32Type>().write_batch(&numbers, None, None).unwrap();
        ids.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = rows.iter().flatten().map(|text| ByteArray::from(*text)).collect();
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn file(groups: &[&[Row]]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.parquet");
    write(&path, groups, Compression::UNCOMPRESSED);
    (directory, path)
}

#[test]
fn all_compressions_are_read_across_row_groups() {
    let many: Vec<String> = (0..1000).map(|i| format!("text number {i}")).collect();
    let rows: Vec<Row> = many.iter().map(|text| Some(text.as_str())).collect();
    let directory = directory(&[]);
    for (index, compression) in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::default()),
        Compression::GZIP(GzipLevel::default()),
    ]
    .into_iter()
    .enumerate()
    {
        let path = directory.path().join(format!("{index}.parquet"));
        write(&path, &[&rows[..301], &[], &rows[301..]], compression);
        let found: Vec<String> = texts(&path, None).unwrap().map(Result::unwrap).collect();
        assert_eq!(found, many, "{compression:?}");
    }
}

#[test]
fn null_rows_are_left_out_and_empty_ones_kept() {
    let (_directory, path) = file(&[&[None, Some("a"), Some(""), None, Some("b")]]);
    let found: Vec<String> = texts(&path, Some("text")).unwrap().map(Result::unwrap).collect();
    assert_eq!(found, ["a", "", "b"]);
}

#[test]
fn stories_are_read() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/tiny-stories/heldout.parquet");
    let found: Vec<String> = texts(&path, None).unwrap().map(Result::unwrap).collect();
    assert_eq!(found.len(), 400);
    assert!(found.iter().all(|text| text.len() > 100));
}

#[test]
fn text_files_are_one_text() {
    let directory =
        directory(&[("a.txt", "zwei\nZeilen\n".as_bytes()), ("b.TXT", b"x"), ("empty.txt", b" \n")]);
    let read = |name: &str| texts(&directory.path().join(name), None).map(|texts| texts.map(Result::unwrap));
    assert_eq!(read("a.txt").unwrap().collect::<Vec<_>>(), ["zwei\nZeilen\n"]);
    assert_eq!(read("b.TXT").unwrap().count(), 1);
    refused(read("empty.txt"), &["empty.txt", "holds no text"]);
    refused(read("none.txt"), &["none.txt"]);
    refused(texts(&directory.path().join("a.txt"), Some("text")), &["--column"]);
}

#[test]
fn bad_files_are_refused() {
    let (_directory, path) = file(&[&[Some("a")]]);
    refused(texts(&path, Some("story")), &["rows.parquet", "`story`", "id, text", "--column"]);
    refused(texts(&path, Some("id")), &["`id`", "--column"]);
    let (_directory, path) = file(&[]);
    refused(texts(&path, None), &["rows.parquet", "no rows"]);
    let (_directory, path) = file(&[&[Some(" "), None, Some("")]]);
    let last = texts(&path, None).unwrap().last().unwrap();
    refused(last, &["rows.parquet", "no text", "--column"]);

    let directory =
        directory(&[("a.csv", b"text"), ("a", b"text"), ("bad.parquet", b"PAR1"), ("latin.txt", b"caf\xe9")]);
    let read = |name: &str| texts(&directory.path().join(name), None);
    refused(read("a.csv"), &["a.csv", ".parquet nor .txt"]);
    refused(read("a"), &[".parquet nor .txt"]);
    refused(read("bad.parquet"), &["bad.parquet", "parquet"]);
    refused(read("latin.txt"), &["latin.txt", "UTF-8"]);
    refused(read("none.parquet"), &["none.parquet"]);
}

/// A file cut anywhere, or with a byte changed, gives texts or an error, and ends.
#[test]
fn damaged_parquet_is_an_error() {
    let good = std::fs::read(data("../../examples/tiny-stories/heldout.parquet")).unwrap();
    let directory = directory(&[]);
    let path = directory.path().join("bad.parquet");
    for cut in (0..good.len()).step_by(good.len() / 40) {
        std::fs::write(&path, &good[..cut]).unwrap();
        refused(texts(&path, None), &["bad.parquet"]);
    }
    let mut failed = 0;
    for step in 0..60 {
        let mut bad = good.clone();
        let at = if step < 30 { step * 37 + 4 } else { good.len() - 9 - (step - 30) * 11 };
        bad[at] ^= 0x55;
        std::fs::write(&path, &bad).unwrap();
        failed += usize::from(texts(&path, None).map_or(true, |mut texts| texts.any(|text| text.is_err())));
    }
    assert!(failed > 20, "only {failed} of 60 were noticed");
}
