//! Safetensors that lie, and directories that are not what they should be.

use exlay::formats::safetensors::{Checkpoint, Dtype};
use half::f16;
use proptest::prelude::*;

use crate::{data, directory, refused};

/// A file of this header and that many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend((0..data).map(|i| i as u8));
    file
}

fn entry(name: &str, dtype: &str, shape: &str, start: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

fn open(file: &[u8]) -> exlay::Result<Checkpoint> {
    Checkpoint::open(directory(&[("model.safetensors", file)]).path())
}

#[track_caller]
fn lies(entries: &[String], data: usize, words: &[&str]) {
    refused(
        open(&file(&format!("{{{}}}", entries.join(",")), data)),
        &[&["model.safetensors"], words].concat(),
    );
}

#[test]
fn a_good_file_is_read() {
    let entries = [entry("b", "F16", "[2,1]", 4, 8), entry("a", "F32", "[]", 0, 4)].join(",");
    let checkpoint =
        open(&file(&format!(r#"{{"__metadata__":{{"format":"pt"}},{entries}}}   "#), 8)).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
    assert!(checkpoint.has("a") && !checkpoint.has("__metadata__"));
    let b = checkpoint.get("b").unwrap();
    assert_eq!((b.dtype, b.shape, b.bytes, b.elements()), (Dtype::F16, &[2, 1][..], &[4, 5, 6, 7][..], 2));
    refused(checkpoint.get("c"), &["`c`", "is missing"]);
}

#[test]
fn truncated_files_are_refused() {
    let good = std::fs::read(data("variants/gqa/model.safetensors")).unwrap();
    for length in [0, 1, 7, 8, 9, 100, good.len() / 2, good.len() - 1] {
        refused(open(&good[..length]), &["model.safetensors", "again"]);
    }
    let longer = [&good[..], &[0]].concat();
    refused(open(&longer), &["1 bytes after the last tensor"]);
}

#[test]
fn lying_headers_are_refused() {
    for length in [u64::MAX, 1 << 63, 100_000_001, 3] {
        let file = [&length.to_le_bytes()[..], b"{}"].concat();
        refused(open(&file), &["header", &length.to_string()]);
    }
    for header in
        ["", "[]", "{", "{\"a\":1}", "nul", "\u{0}", "{\"a\":{\"dtype\":\"F16\"}}", &"[".repeat(100_000)]
    {
        refused(open(&file(header, 0)), &["model.safetensors", "header"]);
    }
    lies(&[entry("a", "F17", "[1]", 0, 2)], 2, &["`a`", "F17"]);
    lies(&[entry("a", "F16", "[-1]", 0, 2)], 2, &["`a`"]);
    lies(&[entry("a", "F16", "[1.5]", 0, 2)], 2, &["`a`"]);
}

#[test]
fn lying_offsets_are_refused() {
    lies(&[entry("a", "F16", "[2]", 0, 4)], 2, &["`a`", "byte 4", "holds 2"]);
    lies(&[entry("a", "F16", "[2]", 4, 0)], 4, &["`a`", "4..0"]);
    lies(&[entry("a", "F16", "[2]", 2, 6)], 6, &["`a`", "gap"]);
    lies(&[entry("a", "F16", "[2]", 0, 4), entry("b", "F16", "[2]", 2, 6)], 6, &["`b`", "overlaps"]);
    lies(&[entry("a", "F16", "[2]", 0, 4), entry("b", "F16", "[2]", 0, 4)], 4, &["`b`", "overlaps"]);
    lies(&[entry("a", "F16", "[2]", 0, 4), entry("b", "F16", "[2]", 8, 12)], 12, &["`b`", "gap"]);
    lies(&[entry("a", "F16", "[2]", u64::MAX - 3, u64::MAX)], 4, &["`a`", "holds 4"]);
    lies(&[entry("a", "F16", "[2]", 0, 4), entry("a", "F16", "[2]", 4, 8)], 8, &["`a` occurs twice"]);
}

#[test]
fn lying_shapes_are_refused() {
    lies(&[entry("a", "F16", "[3]", 0, 4)], 4, &["`a`", "4 bytes", "[3]", "F16"]);
    lies(&[entry("a", "F32", "[2]", 0, 4)], 4, &["`a`", "contradicts"]);
    lies(&[entry("a", "F16", "[4294967296,4294967296]", 0, 0)], 0, &["`a`", "contradicts"]);
    lies(&[entry("a", "F16", "[9223372036854775809]", 0, 2)], 2, &["`a`", "contradicts"]);
    lies(&[entry("a", "F16", "[18446744073709551616]", 0, 2)], 2, &["`a`"]);
    lies(&[entry("a", "F16", "[]", 0, 0)], 0, &["`a`", "contradicts"]);
}

#[test]
fn empty_and_foreign_tensors_are_refused_when_asked_for() {
    let entries = [
        entry("empty", "F16", "[0,4]", 0, 0),
        entry("long", "I64", "[1]", 0, 8),
        entry("ints", "I32", "[1]", 8, 12),
    ];
    let checkpoint = open(&file(&format!("{{{}}}", entries.join(",")), 12)).unwrap();
    refused(checkpoint.get("empty"), &["`empty`", "[0, 4]", "no elements"]);
    refused(checkpoint.get("long"), &["`long`", "I64", "supported"]);
    refused(checkpoint.get("ints").unwrap().to_f32(), &["`ints`", "I32", "BF16"]);
    refused(checkpoint.get("ints").unwrap().to_f16(), &["`ints`", "I32", "BF16"]);
    refused(checkpoint.get("ints").unwrap().to_u16(), &["`ints`", "I32", "I16"]);
    refused(checkpoint.get("ints").unwrap().expect_shape(&[2]), &["`ints`", "[1]", "[2]", "config.json"]);
    assert_eq!(checkpoint.get("ints").unwrap().to_u32().unwrap(), [0x0b0a0908]);
}

/// One tensor `w` of these elements.
fn tensor(dtype: &str, elements: &[&[u8]]) -> Checkpoint {
    let bytes = elements.concat();
    let mut content = file(
        &format!("{{{}}}", entry("w", dtype, &format!("[{}]", elements.len()), 0, bytes.len() as u64)),
        0,
    );
    content.extend(bytes);
    open(&content).unwrap()
}

#[test]
fn floats_are_converted() {
    // 1.0, -2.5, and the smallest subnormal of f16, which bf16 holds exactly too.
    let tiny = 2_f32.powi(-24);
    let values = [1.0_f32, -2.5, tiny];
    let single = values.map(f32::to_le_bytes);
    let brain = values.map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes());
    let half = [0x3c00_u16, 0xc100, 1].map(u16::to_le_bytes);
    for checkpoint in [
        tensor("F32", &single.each_ref().map(|b| &b[..])),
        tensor("BF16", &brain.each_ref().map(|b| &b[..])),
        tensor("F16", &half.each_ref().map(|b| &b[..])),
    ] {
        let view = checkpoint.get("w").unwrap();
        assert_eq!(view.to_f32().unwrap(), values);
        assert_eq!(view.to_f16().unwrap(), values.map(f16::from_f32));
    }
}

#[test]
fn values_that_f16_cannot_hold_are_refused_by_name() {
    let one = 1_f32.to_le_bytes();
    for (value, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (65520.0, "6.552e4"), (-1e9, "-1e9")] {
        let checkpoint = tensor("F32", &[&one, &value.to_le_bytes()]);
        refused(checkpoint.get("w").unwrap().to_f16(), &["model.safetensors", "`w`", "element 1", word]);
    }
    for (dtype, nan) in [("F16", 0x7e00_u16), ("F16", 0xfc00), ("BF16", 0x7fc0), ("BF16", 0x7f80)] {
        let checkpoint = tensor(dtype, &[&[0, 0], &nan.to_le_bytes()]);
        refused(checkpoint.get("w").unwrap().to_f16(), &["`w`", "element 1", "damaged"]);
        refused(checkpoint.get("w").unwrap().to_f32(), &["`w`", "element 1", "damaged"]);
    }
    // The largest finite f16, and what still rounds to it.
    let checkpoint = tensor("F32", &[&65504_f32.to_le_bytes(), &65519_f32.to_le_bytes()]);
    assert_eq!(checkpoint.get("w").unwrap().to_f16().unwrap(), [f16::MAX; 2]);
}

fn one_tensor(name: &str) -> Vec<u8> {
    file(&format!("{{{}}}", entry(name, "F16", "[2]", 0, 4)), 4)
}

#[test]
fn shards_and_indices() {
    let (a, b) = (one_tensor("a"), one_tensor("b"));
    let open = |files: &[(&str, &[u8])]| {
        let directory = directory(files);
        Checkpoint::open(directory.path()).map(|found| found.names().collect::<Vec<_>>().join(" "))
    };
    let index = r#"{"metadata":{"total_size":8},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#;
    let index = ("model.safetensors.index.json", index.as_bytes());
    let (first, second) = (("1.safetensors", &a[..]), ("2.safetensors", &b[..]));
    assert_eq!(open(&[first, second]).unwrap(), "a b");
    assert_eq!(open(&[first, second, index]).unwrap(), "a b");
    // Files that the index does not name are not opened.
    assert_eq!(open(&[first, second, index, ("consolidated.safetensors", b"")]).unwrap(), "a b");
    refused(open(&[first, index]), &["index.json", "`2.safetensors`", "download"]);
    refused(
        open(&[first, ("2.safetensors", &one_tensor("c")), index]),
        &["2.safetensors", "`b`", "index.json"],
    );
    refused(open(&[("2.safetensors", &a), ("1.safetensors", &b), index]), &["not in that file"]);
    // ExLlamaV2 leaves the source's index beside its own output.
    assert_eq!(open(&[("output.safetensors", &a), index]).unwrap(), "a");
    refused(open(&[first, ("3.safetensors", &a)]), &["1.safetensors", "3.safetensors", "`a`"]);
    for text in [
        "",
        "[]",
        "{}",
        r#"{"weight_map":{}}"#,
        r#"{"weight_map":{"a":1}}"#,
        r#"{"weight_map":{"a":"../x"}}"#,
    ] {
        refused(open(&[first, ("model.safetensors.index.json", text.as_bytes())]), &["index.json"]);
    }
    refused(open(&[first, index, ("x.safetensors.index.json", b"{}")]), &["two indices"]);
    refused(open(&[("pytorch_model.bin", b"")]), &["no *.safetensors"]);
    refused(Checkpoint::open("/no/such/directory"), &["/no/such/directory"]);
}

proptest! {
    /// Whatever a header says, it is refused, or every tensor of it can be read.
    #[test]
    fn any_header_is_read_or_refused(
        tensors in prop::collection::vec((0..4_u64, 0..4_u64, 0..9_u64, 0..9_u64), 0..3),
        data in 0..12_usize,
    ) {
        let entries: Vec<String> = tensors
            .iter()
            .enumerate()
            .map(|(i, (rows, columns, start, end))| entry(&format!("t{i}"), "I16", &format!("[{rows},{columns}]"), *start, *end))
            .collect();
        if let Ok(checkpoint) = open(&file(&format!("{{{}}}", entries.join(",")), data)) {
            let mut bytes = 0;
            for (i, (rows, columns, ..)) in tensors.iter().enumerate() {
                match checkpoint.get(&format!("t{i}")) {
                    Ok(view) => {
                        prop_assert_eq!(view.to_u16().unwrap().len() as u64, rows * columns);
                        bytes += view.bytes.len();
                    }
                    Err(_) => prop_assert_eq!(rows * columns, 0),
                }
            }
            prop_assert_eq!(bytes, data);
        }
    }
}
