//! Calibration text that the model writes itself.

use std::path::Path;

use exlay::formats::tokenizer::Tokenizer;
use exlay::quant::state_file::read_state;
use serde_json::json;

use crate::{Convert, cut_model, edit_json, expect};

/// Rows of so many tokens that a job has kept.
fn rows(work: &Path, length: usize) -> Vec<Vec<u32>> {
    let bytes = read_state(work.join("text-00000.state"), "tokens").unwrap().expect("the text is kept");
    let tokens: Vec<u32> =
        bytes.chunks(4).map(|bytes| u32::from_ne_bytes(bytes.try_into().unwrap())).collect();
    tokens.chunks(length).map(<[u32]>::to_vec).collect()
}

#[test]
fn without_a_file_the_model_writes_the_same_text_each_time() {
    let home = tempfile::tempdir().unwrap();
    let model = home.path().join("model");
    cut_model(&model, 1);
    let config = model.join("tokenizer_config.json");
    edit_json(&config, &config, |config| {
        config["chat_template"] =
            json!("{% for m in messages %}Tell me: {{ m.content }} The end.{% endfor %}");
    });
    let convert = |name: &str| {
        Convert::new(&model, &home.path().join(name)).without("-c").with("-l", "48").with("-ml", "32")
    };
    let first = convert("one").with("-om", home.path().join("measurement.json")).run();
    expect(&first, 0);
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(said.contains("writes 2 rows of 32 tokens itself, every other one as a chat"), "{said}");

    // To quantize as well, more and longer rows are wanted, which begin the same.
    let whole = convert("whole").with("-b", "4").with("-cf", home.path().join("out"));
    expect(&whole.run(), 0);
    let rows = rows(&home.path().join("whole"), 48);
    let short = self::rows(&home.path().join("one"), 32);
    assert!(short.len() == 2 && rows.iter().zip(&short).all(|(row, short)| row.starts_with(short)));
    let tokenizer = Tokenizer::load(&model).unwrap();
    let chat = tokenizer.encode("Tell me: ", false).unwrap();
    let bos = tokenizer.bos_token_id().unwrap();
    assert_eq!(rows.len(), 4);
    assert!(rows[0][0] == bos && rows[2][0] == bos && rows[0] != rows[2], "{rows:?}");
    assert!(rows[1].starts_with(&chat) && rows[3].starts_with(&chat) && rows[1] != rows[3], "{rows:?}");

    // A text that is kept is not written again.
    let mut changed = rows.concat();
    changed[5] ^= 1;
    let kept = home.path().join("whole").join("text-00000.state");
    exlay::quant::state_file::write_state(&kept, "tokens", bytemuck::cast_slice(&changed)).unwrap();
    std::fs::remove_dir_all(home.path().join("out")).unwrap();
    std::fs::remove_file(home.path().join("whole").join("block-00000.state")).unwrap();
    expect(&whole.run(), 0);
    assert_eq!(self::rows(&home.path().join("whole"), 48).concat(), changed);
}
