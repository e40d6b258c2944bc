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

/// Six tensors of two widths, the fifth larger than a shard of 800 bytes.
fn tensors() -> Vec<(String, Dtype, usize)> {
    let sizes = [
        (Dtype::F32, 100),
        (Dtype::F16, 51),
        (Dtype::I32, 60),
        (Dtype::F16, 7),
        (Dtype::F32, 300),
        (Dtype::I16, 4),
    ];
    sizes.iter().enumerate().map(|(at, &(dtype, elements))| (format!("t{at}"), dtype, elements)).collect()
}

/// Writes tensors from `first` on, the work being kept after each, until the writer is to die before number `until`.
fn write_from(writer: &mut ShardWriter, first: usize, until: usize) {
    for (at, (name, dtype, elements)) in tensors().into_iter().enumerate().take(until).skip(first) {
        let bytes: Vec<u8> = (0..elements * dtype.size()).map(|i| (i * 7 + at) as u8).collect();
        writer.write(&name, dtype, &[elements], &bytes).unwrap();
        if at % 2 == 1 {
            writer.keep(at + 1).unwrap();
        }
    }
}

#[test]
fn a_writer_goes_on_where_another_was_killed() {
    let whole = directory(&[]);
    let mut writer = ShardWriter::create(whole.path(), 800).unwrap();
    write_from(&mut writer, 0, 6);
    let expected: Vec<_> = writer.finish().unwrap().iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert_eq!(expected.len(), 3);
    for first in 0..=6 {
        for second in first..=6 {
            let target = directory(&[]);
            let mut writer = ShardWriter::create(target.path(), 800).unwrap();
            writer.keep(0).unwrap();
            write_from(&mut writer, 0, first);
            // Dropped as a kill leaves it but for the buffers, which are to be cut off.
            drop(writer);
            let (mut writer, mark) = ShardWriter::resume(target.path(), 800).unwrap().unwrap();
            assert_eq!(mark, first / 2 * 2);
            write_from(&mut writer, mark, second);
            drop(writer);
            let (mut writer, mark) = ShardWriter::resume(target.path(), 800).unwrap().unwrap();
            assert_eq!(mark, second / 2 * 2);
            write_from(&mut writer, mark, 6);
            let paths = writer.finish().unwrap();
            assert_eq!(paths.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>(), expected);
            // Once more after the files have their names.
            let (mut writer, mark) = ShardWriter::resume(target.path(), 800).unwrap().unwrap();
            write_from(&mut writer, mark, 6);
            assert_eq!(writer.finish().unwrap(), paths);
            assert_eq!(names(target.path()).iter().filter(|name| name.ends_with(".partial")).count(), 1);
        }
    }
}

/// A shard of many gigabytes is joined in steps, each of which is noted.
#[test]
fn joining_goes_on_where_it_was() {
    let whole = directory(&[]);
    let mut writer = ShardWriter::create(whole.path(), 800).unwrap();
    write_from(&mut writer, 0, 6);
    let expected: Vec<_> = writer.finish().unwrap().iter().map(|path| std::fs::read(path).unwrap()).collect();
    let size = expected[0].len();
    for joined in [1, 8, size / 3, size - 757, size - 756, size - 300, size - 116, size - 115, size - 1, size]
    {
        let target = directory(&[]);
        let mut writer = ShardWriter::create(target.path(), 800).unwrap();
        write_from(&mut writer, 0, 4);
        drop(writer);
        let journal = target.path().join("writer.partial");
        let mut text: serde_json::Value = serde_json::from_slice(&std::fs::read(&journal).unwrap()).unwrap();
        text["current"]["joined"] = joined.into();
        std::fs::write(&journal, text.to_string()).unwrap();
        // What was written after the last note does not count.
        let there = [&expected[0][..joined], &[0; 50]].concat();
        std::fs::write(target.path().join("shard-00001.partial"), there).unwrap();
        let (mut writer, mark) = ShardWriter::resume(target.path(), 800).unwrap().unwrap();
        write_from(&mut writer, mark, 6);
        let paths = writer.finish().unwrap();
        let found: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        assert!(found == expected, "{joined} of {size} bytes");
    }
}

#[test]
fn a_writer_does_not_go_on_with_what_has_changed() {
    let kept = || {
        let target = directory(&[]);
        let mut writer = ShardWriter::create(target.path(), 800).unwrap();
        write_from(&mut writer, 0, 6);
        target
    };
    let resumes =
        |target: &tempfile::TempDir, limit| ShardWriter::resume(target.path(), limit).unwrap().is_some();
    assert!(resumes(&kept(), 800));
    assert!(!resumes(&kept(), 801), "another limit");
    assert!(!resumes(&directory(&[]), 800), "nothing was kept");
    for name in ["narrow.partial", "shard-00001.partial", "writer.partial"] {
        let target = kept();
        let path = target.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(!resumes(&target, 800), "{name} is cut short");
        std::fs::remove_file(&path).unwrap();
        assert!(!resumes(&target, 800), "{name} is gone");
    }
}
