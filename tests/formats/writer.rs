//! Written files, read back by this crate's reader and by the safetensors crate.

use exlay::formats::exl2::{read_packed, write_packed};
use exlay::formats::safetensors::{Checkpoint, Dtype, ShardWriter};
use safetensors::SafeTensors;

use crate::{data, directory, refused};

fn names(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn packed_linears_round_trip() {
    let source = directory(&[]);
    std::fs::copy(data("exl2-layers.safetensors"), source.path().join("a.safetensors")).unwrap();
    let source = Checkpoint::open(source.path()).unwrap();
    let target = directory(&[]);
    let mut writer = ShardWriter::create(target.path(), u64::MAX).unwrap();
    let cases: Vec<(&str, usize, usize)> = source
        .names()
        .filter_map(|name| name.strip_suffix(".decoded"))
        .map(|case| {
            let shape = source.get(&format!("{case}.decoded")).unwrap().shape;
            (case, shape[0], shape[1])
        })
        .collect();
    for &(case, k, n) in &cases {
        write_packed(&mut writer, case, &read_packed(&source, case, k, n).unwrap()).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), [target.path().join("output.safetensors")]);
    assert_eq!(names(target.path()), ["output.safetensors"]);
    let target = Checkpoint::open(target.path()).unwrap();
    for (case, k, n) in cases {
        let (found, expected) =
            (read_packed(&target, case, k, n).unwrap(), read_packed(&source, case, k, n).unwrap());
        assert_eq!(found, expected, "{case}");
    }
    // Byte for byte what the source holds, in type and shape too.
    for name in target.names() {
        let (found, expected) = (target.get(name).unwrap(), source.get(name).unwrap());
        assert_eq!((found.dtype, found.shape, found.bytes), (expected.dtype, expected.shape, expected.bytes));
    }
}

#[test]
fn shards_are_filled_to_the_limit() {
    let target = directory(&[]);
    let mut writer = ShardWriter::create(target.path(), 100).unwrap();
    // 60 + 40 bytes fill a shard; 2 and 200 do not share one.
    for (name, dtype, elements) in [
        ("a", Dtype::F16, 30),
        ("b", Dtype::F32, 10),
        ("c", Dtype::I16, 1),
        ("d", Dtype::I32, 50),
        ("e", Dtype::BF16, 3),
    ] {
        let bytes: Vec<u8> = (0..elements * dtype.size()).map(|i| i as u8).collect();
        writer.write(name, dtype, &[elements], &bytes).unwrap();
    }
    writer.finish().unwrap();
    let expected: Vec<String> = (1..=4).map(|i| format!("output-{i:05}-of-00004.safetensors")).collect();
    assert_eq!(names(target.path()), expected);

    let first = std::fs::read(target.path().join(&expected[0])).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&first).unwrap();
    assert_eq!(header % 8, 0);
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    // Four-byte elements first, so that both are aligned.
    assert_eq!(metadata.info("b").unwrap().data_offsets, (0, 40));
    assert_eq!(metadata.info("a").unwrap().data_offsets, (40, 100));

    let checkpoint = Checkpoint::open(target.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
    let d = checkpoint.get("d").unwrap();
    assert_eq!((d.dtype, d.shape), (Dtype::I32, &[50][..]));
    assert!(d.bytes.iter().enumerate().all(|(i, &byte)| byte == i as u8));
}

#[test]
fn an_unfinished_writer_leaves_nothing() {
    let target = directory(&[]);
    let mut writer = ShardWriter::create(target.path(), 8).unwrap();
    for name in ["a", "b", "c"] {
        writer.write(name, Dtype::F32, &[2], &[0; 8]).unwrap();
    }
    assert!(!names(target.path()).is_empty());
    assert!(names(target.path()).iter().all(|name| name.ends_with(".partial")));
    drop(writer);
    assert_eq!(names(target.path()), [""; 0]);
}

#[test]
fn wrong_calls_are_refused() {
    let target = directory(&[]);
    let mut writer = ShardWriter::create(target.path(), u64::MAX).unwrap();
    writer.write("a", Dtype::F16, &[2, 3], &[0; 12]).unwrap();
    refused(writer.write("a", Dtype::F16, &[1], &[0; 2]), &["`a`", "before"]);
    refused(writer.write("b", Dtype::F16, &[2, 3], &[0; 24]), &["`b`", "24 bytes", "[2, 3]"]);
    refused(writer.write("b", Dtype::F16, &[usize::MAX, 2], &[0; 24]), &["`b`"]);
    refused(writer.write("__metadata__", Dtype::F16, &[1], &[0; 2]), &["__metadata__"]);
    drop(writer);
    refused(ShardWriter::create(target.path(), 1).unwrap().finish(), &["no tensors"]);
    let full = directory(&[("output.safetensors", b"")]);
    refused(ShardWriter::create(full.path(), 1), &["output.safetensors", "in the way"]);
    refused(ShardWriter::create(target.path().join("none"), 1), &["none"]);
}
