//! Bad input: one clear error that names the file, tensor or flag, exit code 1, nothing under the final name.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

use crate::{Convert, cut_model, edit_json, expect, files, shared};

/// Where a tensor lies in the bytes of a safetensors file.
pub(crate) fn tensor_bytes(file: &[u8], name: &str) -> Range<usize> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let offset = |end: usize| 8 + length + header[name]["data_offsets"][end].as_u64().unwrap() as usize;
    offset(0)..offset(1)
}

/// A model of one layer, the place of a job and of its result.
struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        cut_model(&home.path().join("model"), 1);
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Changes the weights' file.
    fn weights(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.path("model/model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    fn convert(&self) -> Convert {
        Convert::new(&self.path("model"), &self.path("work")).with("-cf", self.path("out"))
    }

    /// Runs it and expects an error with all of `named`.
    fn refused(&self, command: &mut Command, named: &[&str]) {
        let stderr = expect(&command.output().unwrap(), 1);
        let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "{stderr}");
        for name in named {
            assert!(errors[0].contains(name), "no `{name}` in: {}", errors[0]);
        }
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(!self.path("out").exists(), "something stands under the final name");
    }
}

#[test]
fn weights_that_are_not_finite() {
    let place = Place::new();
    place.weights(|bytes| {
        let range = tensor_bytes(bytes, "model.layers.0.mlp.up_proj.weight");
        bytes[range.start + 1000..range.start + 1002].copy_from_slice(&0x7e00_u16.to_le_bytes());
    });
    place.refused(&mut place.convert().command(), &["model.layers.0.mlp.up_proj"]);
}

/// A NaN in a norm shows only in what the block makes of its input.
#[test]
fn activations_that_are_not_finite() {
    let place = Place::new();
    place.weights(|bytes| {
        let range = tensor_bytes(bytes, "model.layers.0.post_attention_layernorm.weight");
        bytes[range.start..range.start + 2].copy_from_slice(&0x7e00_u16.to_le_bytes());
    });
    place.refused(&mut place.convert().command(), &["model.layers.0"]);
}

#[test]
fn a_tensor_that_is_missing() {
    let place = Place::new();
    place.weights(|bytes| {
        let name = b"layers.0.self_attn.k_proj.weight";
        let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
        bytes[at + name.len() - 1] = b'T';
    });
    place.refused(&mut place.convert().command(), &["model.layers.0.self_attn.k_proj.weight"]);
}

#[test]
fn shapes_that_contradict_the_configuration() {
    let place = Place::new();
    let config = place.path("model/config.json");
    edit_json(&config, &config, |config| config["intermediate_size"] = json!(480));
    place.refused(&mut place.convert().command(), &["model.layers.0.mlp.", "480", "512"]);
}

#[test]
fn weights_that_are_cut_off() {
    let place = Place::new();
    place.weights(|bytes| bytes.truncate(bytes.len() - 1));
    place.refused(&mut place.convert().command(), &["model.safetensors"]);
    place.weights(|bytes| bytes.truncate(100));
    place.refused(&mut place.convert().flag("--no-resume").command(), &["model.safetensors"]);
}

/// A parquet file with one column of texts.
fn parquet(path: &Path, column: &str, texts: &[&str]) {
    let schema =
        Arc::new(parse_message_type(&format!("message m {{ required binary {column} (UTF8); }}")).unwrap());
    let mut writer =
        SerializedFileWriter::new(std::fs::File::create(path).unwrap(), schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut out = group.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
    out.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
    out.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn calibration_without_enough_text() {
    let place = Place::new();
    let file = place.path("few.parquet");
    // Each file makes another job.
    let convert = place.convert().with("-c", &file).flag("--no-resume");
    place.refused(&mut convert.command(), &["few.parquet"]);
    parquet(&file, "text", &[]);
    place.refused(&mut convert.command(), &["few.parquet"]);
    parquet(&file, "text", &["", ""]);
    place.refused(&mut convert.command(), &["few.parquet"]);
    parquet(&file, "story", &["Once upon a time."]);
    place.refused(&mut convert.command(), &["few.parquet", "text", "story"]);
    std::fs::write(&file, b"PAR1 this is not parquet PAR1").unwrap();
    place.refused(&mut convert.command(), &["few.parquet"]);
    // 4 rows of 64 tokens are asked for; the measurement's 2 of 64 would be there.
    let text = "Once upon a time there was a little girl who liked the big red ball. ".repeat(9);
    parquet(&file, "text", &[&text]);
    place.refused(&mut convert.command(), &["--calibration", "few.parquet", "4 rows of 64", "256"]);
}

#[test]
fn rows_longer_than_the_model() {
    let place = Place::new();
    place.refused(&mut place.convert().with("-l", "513").command(), &["--length", "513", "512"]);
    let convert = place.convert().with("-ml", "600").flag("--no-resume");
    place.refused(&mut convert.command(), &["--measurement-length", "600", "512"]);
}

#[test]
fn an_output_directory_with_other_content() {
    let place = Place::new();
    let taken = place.path("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("thesis.txt"), "do not lose this").unwrap();
    let before = files(&taken);
    place.refused(&mut place.convert().with("-cf", &taken).command(), &["--output", "taken"]);
    assert_eq!(files(&taken), before);
    place.refused(
        &mut place.convert().with("-cf", taken.join("thesis.txt")).command(),
        &["--output", "thesis.txt"],
    );
}

#[test]
fn measurements_of_others() {
    let place = Place::new();
    let file = place.path("measurement.json");
    let convert = place.convert().with("-m", &file);
    place.refused(&mut convert.command(), &["measurement.json"]);
    // The form of ExLlamaV2 0.3.2's.
    let theirs = json!({
        "measurement": { "model.layers.0.self_attn": [{ "accuracy": 0.98, "total_bits": 500_000, "q_proj": {} }] },
        "last_module_idx": 2
    });
    std::fs::write(&file, theirs.to_string()).unwrap();
    place.refused(&mut convert.command(), &["measurement.json", "ExLlamaV2"]);
    // Of the same architecture with one more layer.
    std::fs::copy(&shared().measurement, &file).unwrap();
    place.refused(&mut convert.command(), &["measurement.json"]);
    std::fs::write(&file, "{").unwrap();
    place.refused(&mut convert.command(), &["measurement.json"]);
}

#[test]
fn targets_out_of_reach() {
    let place = Place::new();
    let convert = || {
        Convert::new(&shared().model, &place.path("work"))
            .with("-m", &shared().measurement)
            .with("-cf", place.path("out"))
            .flag("--no-resume")
    };
    for bits in ["2.0", "9.5"] {
        // What the smallest and the largest options take on matrices of this size.
        place.refused(&mut convert().with("-b", bits).command(), &["--bits", "2.144 to 8.143"]);
    }
}

/// A file-size limit stands for a full disk. The signal that would end the process is ignored, as no disk sends one.
#[test]
fn a_full_disk() {
    let place = Place::new();
    let convert = Convert::new(&shared().model, &place.path("work"))
        .with("-m", &shared().measurement)
        .with("-cf", place.path("out"));
    let limited = |blocks: &str, convert: &Convert| {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"")).arg("sh");
        command.args(convert.words()).env("XDG_RUNTIME_DIR", std::env::temp_dir());
        command
    };
    // In 512 bytes: a block takes some 90 KiB, the head 430 KiB, the output 1.7 MiB.
    place.refused(&mut limited("64", &convert), &["block-0000"]);
    place.refused(&mut limited("1200", &convert), &["out"]);
    assert!(!files(&place.path("work")).keys().any(|name| name.ends_with(".exlay-partial")));
    // With room again the job goes on to its end.
    let stderr = expect(&convert.run(), 0);
    assert!(!stderr.contains("quantized in"), "all blocks were stored before: {stderr}");
}

#[test]
fn no_adapter() {
    let place = Place::new();
    let mut command = place.convert().command();
    command.env("VK_DRIVER_FILES", "/nonexistent.json").env("VK_ICD_FILENAMES", "/nonexistent.json");
    place.refused(&mut command, &["adapter"]);
}
