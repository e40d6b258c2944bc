//! Tests of the measurement file.

use super::super::options::linear_recipes;
use super::*;

fn model(fingerprint: &str) -> ModelIdentity {
    ModelIdentity { name: "tiny".into(), fingerprint: fingerprint.into() }
}

fn measurement() -> Measurement {
    let calibration = CalibrationIdentity {
        dataset: "text.parquet".into(),
        sha256: "00".into(),
        rows: 16,
        length: 128,
        probed: 6,
    };
    let mut measurement = Measurement::new(model("aa"), calibration);
    let recipes = linear_recipes();
    let linears =
        [(64, 96), (64, 96), (96, 50)].into_iter().enumerate().map(|(i, shape)| LinearMeasurement {
            name: format!("model.layers.0.mlp.{i}"),
            shape,
            options: recipes
                .iter()
                .enumerate()
                .map(|(at, recipe)| OptionMeasurement {
                    recipe: recipe.clone(),
                    bits: recipe.total_bits(shape.0, shape.1).unwrap(),
                    rfn_error: 1.0 / 3.0,
                    damage: 0.1f64.powi(at as i32) / 7.0,
                })
                .collect(),
        });
    measurement.push(BlockMeasurement { name: "model.layers.0.mlp".into(), linears: linears.collect() });
    measurement
}

/// Saves `text` and returns what loading it says.
fn refusal(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("measurement.json");
    fs::write(&path, text).unwrap();
    let message = Measurement::load(&path, &model("aa")).unwrap_err().to_string();
    assert!(message.contains("measurement.json"), "{message}");
    message
}

#[test]
fn a_file_comes_back_exactly() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("measurement.json");
    let saved = measurement();
    saved.save(&path).unwrap();
    let loaded = Measurement::load(&path, &model("aa")).unwrap();
    assert_eq!(loaded, saved);
    // The third linear's 50 columns are stored as 64 but count as 50.
    assert_eq!(loaded.weights(), 2 * 64 * 96 + 96 * 50);
    let slots = loaded.slots();
    assert_eq!((slots.len(), slots[0].len()), (3, linear_recipes().len()));
    assert_eq!(slots[0][3].error.to_bits(), saved.blocks()[0].linears[0].options[3].damage.sqrt().to_bits());
}

#[test]
fn errors_are_rounded_to_what_json_keeps() {
    let error = measurement().blocks()[0].linears[0].options[0].rfn_error;
    assert_eq!(error, 0.333333333333);
    for option in &measurement().blocks()[0].linears[1].options {
        let error = option.damage;
        let read: f64 = serde_json::from_str(&serde_json::to_string(&error).unwrap()).unwrap();
        assert_eq!(read.to_bits(), error.to_bits());
    }
}

#[test]
fn exllamav2_is_refused_by_name() {
    let theirs = r#"{ "measurement": { "model.layers.0.self_attn": [] }, "last_module_idx": 12 }"#;
    assert!(refusal(theirs).contains("ExLlamaV2"));
}

#[test]
fn other_files_are_refused() {
    assert!(refusal("{").contains("not a measurement"));
    assert!(refusal("[]").contains("not a measurement"));
    assert!(refusal(r#"{"measurement": 1}"#).contains("not a measurement"));
    assert!(refusal(r#"{"format": "exlay measurement"}"#).contains("no version"));
    assert!(refusal(r#"{"format": "exlay measurement", "version": 1}"#).contains("version 1"));
    assert!(refusal(r#"{"format": "exlay measurement", "version": 2}"#).contains("damaged"));
}

#[test]
fn another_model_is_refused_with_both_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("measurement.json");
    measurement().save(&path).unwrap();
    let other = ModelIdentity { name: "huge".into(), fingerprint: "bb".into() };
    let message = Measurement::load(&path, &other).unwrap_err().to_string();
    assert!(message.contains("`tiny`") && message.contains("`huge`"), "{message}");
}

#[test]
fn damage_inside_is_refused() {
    type Damage = fn(&mut BlockMeasurement);
    let cases: [(Damage, &str); 5] = [
        (|block| block.linears[2].options.clear(), "no options"),
        (|block| block.linears[0].options[1].rfn_error = -1.0, "1:2b 64g s4"),
        (|block| block.linears[0].options[1].damage = -1.0, "1:2b 64g s4"),
        (|block| block.linears[1].options[0].bits += 1, "1:2b 128g s4"),
        (|block| block.linears[1].shape.0 = 1 << 40, "features"),
    ];
    for (damage, expected) in cases {
        let mut bad = measurement();
        damage(&mut bad.blocks[0]);
        let message = refusal(&serde_json::to_string(&bad).unwrap());
        assert!(message.contains(expected) && message.contains("model.layers.0.mlp"), "{message}");
    }
    let mut empty = measurement();
    empty.blocks.clear();
    assert!(refusal(&serde_json::to_string(&empty).unwrap()).contains("no blocks"));
}

#[test]
fn a_block_alone_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("measured-00003.state");
    assert_eq!(BlockMeasurement::load(&path).unwrap(), None);
    let mut block = measurement().blocks()[0].clone();
    block.save(&path).unwrap();
    assert_eq!(BlockMeasurement::load(&path).unwrap(), Some(block.clone()));
    block.linears[0].options[0].bits += 1;
    block.save(&path).unwrap();
    assert_eq!(BlockMeasurement::load(&path).unwrap(), None);
}
