//! A rotated model computes what the original does, and one in which anything is left out does not.

use std::path::{Path, PathBuf};
use std::time::Instant;

use exlay::Result;
use exlay::formats::config::LlamaConfig;
use exlay::formats::safetensors::{Checkpoint, Dtype, ShardWriter};
use exlay::gpu::{DeviceOptions, Tier};
use exlay::model::{EMBEDDING_TABLE, LAST_NORM, Role, WeightSource, blocks, head_spec, head_weight};
use exlay::quant::rotation::Rotation;
use exlay::quant::transform::{Floats, Place, Site, Transform};
use exlay::random::Random;
use exlay::reference::llama::forward;
use exlay::reference::weights::Weights;
use half::f16;
use serde_json::{Value, json};

use crate::kill::through_kills;
use crate::result::divergence;
use crate::transform::logits;
use crate::{Convert, cut_model, edit_json, expect, files, support};

/// Each tensor of a model through a transform, by the name under which it is stored afterwards.
fn transformed(
    model: &Path,
    transform: &dyn Transform,
    mut each: impl FnMut(&str, &[usize], Vec<f32>),
) -> LlamaConfig {
    let mut config = LlamaConfig::load(model).unwrap();
    let source = Checkpoint::open(model).unwrap();
    let mut take = |from: &str, name: &str, place: Place<'_>| {
        let stored = Floats::stored(source.get(from).unwrap());
        let shape = stored.shape().to_vec();
        each(name, &shape, transform.apply(place, stored, &source).unwrap().into_f32().unwrap());
    };
    let mut same = |name: &str, place: Place<'_>| take(name, name, place);
    same(EMBEDDING_TABLE, Place::Embedding);
    same(&format!("{LAST_NORM}.weight"), Place::LastNorm);
    for block in &blocks(&config) {
        same(&format!("{}.weight", block.norm), Place::Norm(block));
        for group in &block.groups {
            for linear in &group.linears {
                let site = Site { block, input: group.input, linear };
                same(&format!("{}.weight", linear.name), Place::Weight(site));
                if linear.bias {
                    same(&format!("{}.bias", linear.name), Place::Bias(site));
                }
            }
        }
    }
    take(&head_weight(&source, &config), &format!("{}.weight", head_spec(&config).name), Place::Head);
    config.tie_word_embeddings = transform.tied(config.tie_word_embeddings);
    config
}

/// Token ids for a model.
fn tokens(config: &LlamaConfig) -> Vec<u32> {
    let random = Random::new(1, "tokens");
    (0..24).map(|index| random.below(index, config.vocab_size) as u32).collect()
}

/// Mean KL divergence of the transformed model from the stored one, both in double precision; the transformed weights are
/// single precision.
fn exact_divergence(model: &Path, transform: &dyn Transform) -> f64 {
    let config = LlamaConfig::load(model).unwrap();
    let ids = tokens(&config);
    let stored = Weights::load(&config, &Checkpoint::open(model).unwrap()).unwrap();
    let p = forward(&config, &stored, &ids).unwrap();
    let mut weights = Weights::new();
    let config = transformed(model, transform, |name, _, values| weights.insert(name, values));
    let q = forward(&config, &weights, &ids).unwrap();
    let log_softmax = |row: &[f64]| {
        let most = row.iter().fold(f64::MIN, |most, &x| most.max(x));
        let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
        row.iter().map(|x| x - most - sum.ln()).collect::<Vec<_>>()
    };
    let rows = p.chunks(config.vocab_size).zip(q.chunks(config.vocab_size));
    let of_row = |(p, q): (&[f64], &[f64])| -> f64 {
        let (p, q) = (log_softmax(p), log_softmax(q));
        p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
    };
    rows.map(of_row).sum::<f64>() / ids.len() as f64
}

/// Writes the transformed model without quantizing it, in half precision.
fn write_transformed(model: &Path, transform: &dyn Transform, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let mut writer = ShardWriter::create(to, u64::MAX).unwrap();
    let config = transformed(model, transform, |name, shape, values| {
        let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
        writer.write(name, Dtype::F16, shape, bytemuck::cast_slice(&halves)).unwrap();
    });
    writer.finish().unwrap();
    edit_json(&model.join("config.json"), &to.join("config.json"), |json| {
        json["tie_word_embeddings"] = config.tie_word_embeddings.into();
    });
}

/// A model of random weights with all that a rotation has to take care of: no size is a power of two, queries share keys, all
/// linears have biases, norms are not ones and the head is the embedding.
fn awkward_model(directory: &Path) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 160, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6,
        "num_key_value_heads": 3, "head_dim": 40, "vocab_size": 300, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true,
    });
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let config = LlamaConfig::load(directory).unwrap();
    let mut writer = ShardWriter::create(directory, u64::MAX).unwrap();
    let mut write = |name: &str, shape: &[usize], middle: f32, spread: f32| {
        let values = Random::new(9, name).values(shape.iter().product());
        let halves: Vec<f16> = values.iter().map(|value| f16::from_f32(middle + spread * value)).collect();
        writer.write(name, Dtype::F16, shape, bytemuck::cast_slice(&halves)).unwrap();
    };
    write(EMBEDDING_TABLE, &[config.vocab_size, config.hidden_size], 0.0, 0.05);
    write(&format!("{LAST_NORM}.weight"), &[config.hidden_size], 1.0, 0.2);
    for block in blocks(&config) {
        write(&format!("{}.weight", block.norm), &[config.hidden_size], 1.0, 0.2);
        for linear in block.linears() {
            write(&format!("{}.weight", linear.name), &[linear.n, linear.k], 0.0, 0.05);
            write(&format!("{}.bias", linear.name), &[linear.n], 0.0, 0.1);
        }
    }
    writer.finish().unwrap();
}

fn rotation(model: &Path, seed: u64) -> Rotation {
    Rotation::new(&LlamaConfig::load(model).unwrap(), seed).unwrap()
}

/// The models of the tests, one of them made in `home`.
fn models(home: &Path) -> Vec<PathBuf> {
    let mut models: Vec<PathBuf> = std::fs::read_dir(support::path("tests/data/variants"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    models.sort();
    assert_eq!(models.len(), 12);
    models.push(support::path("examples/tiny-stories"));
    awkward_model(home);
    models.push(home.to_path_buf());
    models
}

#[test]
fn a_rotated_model_computes_the_same() {
    let home = tempfile::tempdir().unwrap();
    for model in models(home.path()) {
        for seed in [0, 1] {
            let divergence = exact_divergence(&model, &rotation(&model, seed));
            println!("{}: seed {seed}: {divergence:.1e}", model.display());
            assert!(divergence.abs() < 1e-11, "{}: {divergence}", model.display());
        }
    }
}

/// A rotation with something left out.
struct Planted<'r> {
    right: &'r Rotation,
    fault: &'static str,
}

const FAULTS: [&str; 8] = [
    "embedding as stored",
    "last norm as stored",
    "norms as stored",
    "head without the norm",
    "o_proj without the rotation of values",
    "down_proj as stored",
    "bias of v_proj as stored",
    "bias of down_proj as stored",
];

impl Transform for Planted<'_> {
    fn id(&self) -> String {
        self.fault.into()
    }

    fn apply<'a>(
        &self,
        place: Place<'_>,
        stored: Floats<'a>,
        source: &dyn WeightSource,
    ) -> Result<Floats<'a>> {
        let place = match (self.fault, place) {
            ("embedding as stored", Place::Embedding)
            | ("last norm as stored", Place::LastNorm)
            | ("norms as stored", Place::Norm(_)) => return Ok(stored),
            ("head without the norm", Place::Head) => Place::Embedding,
            ("o_proj without the rotation of values", Place::Weight(site))
                if site.input == Role::Attended =>
            {
                Place::Weight(Site { input: Role::Activated, ..site })
            }
            ("down_proj as stored", Place::Weight(Site { input: Role::Activated, .. }))
            | ("bias of down_proj as stored", Place::Bias(Site { input: Role::Activated, .. })) => {
                return Ok(stored);
            }
            ("bias of v_proj as stored", Place::Bias(site)) if site.linear.output == Role::Values => {
                return Ok(stored);
            }
            (_, place) => place,
        };
        self.right.apply(place, stored, source)
    }

    fn tied(&self, tied: bool) -> bool {
        self.right.tied(tied)
    }
}

#[test]
fn what_is_left_out_of_a_rotation_is_seen() {
    let home = tempfile::tempdir().unwrap();
    awkward_model(home.path());
    let right = rotation(home.path(), 0);
    for fault in FAULTS {
        let divergence = exact_divergence(home.path(), &Planted { right: &right, fault });
        println!("{fault}: {divergence:.1e}");
        assert!(divergence > 1e-4, "{fault}: {divergence}");
    }
}

/// With weights in half precision, as the converter's streams have them; in the tier that adds least to that.
#[test]
fn a_rotated_model_runs_the_same_on_the_device() {
    let home = tempfile::tempdir().unwrap();
    let device = support::device(DeviceOptions { tier: Some(Tier::Plain), ..Default::default() });
    let made = home.path().join("made");
    std::fs::create_dir(&made).unwrap();
    for (number, model) in models(&made).iter().enumerate() {
        let rotated = home.path().join(format!("rotated-{number}"));
        write_transformed(model, &rotation(model, 0), &rotated);
        let vocabulary = LlamaConfig::load(model).unwrap().vocab_size;
        let divergence =
            support::kl_divergence(&logits(&device, model), &logits(&device, &rotated), vocabulary);
        println!("{}: {divergence:.1e}", model.display());
        assert!(divergence.abs() < 1e-5, "{}: {divergence}", model.display());
    }
}

#[test]
fn other_architectures_and_hidden_sizes_without_a_fast_rotation_are_refused() {
    let config = LlamaConfig::load(support::path("examples/tiny-stories")).unwrap();
    let other = LlamaConfig { architecture: "Gemma2ForCausalLM".into(), ..config.clone() };
    let refused = Rotation::new(&other, 0).unwrap_err().to_string();
    assert!(refused.contains("Gemma2ForCausalLM") && refused.contains("--rotation off"), "{refused}");
    let refused = Rotation::new(&LlamaConfig { hidden_size: 65535, ..config }, 0).unwrap_err().to_string();
    assert!(refused.contains("65535") && refused.contains("--rotation off"), "{refused}");
}

/// The result loads, is near the model, writes text and says what was done; killed, it ends in the same bytes; and a job or a
/// measurement of one rotation does not go on under another.
#[test]
fn a_rotated_conversion_is_a_model_and_survives_kills() {
    let home = tempfile::tempdir().unwrap();
    let model = home.path().join("model");
    cut_model(&model, 1);
    let place = |name: &str| (home.path().join(name).join("work"), home.path().join(name).join("out"));
    let convert = |(work, output): &(PathBuf, PathBuf), seed: &str| {
        let convert = Convert::new(&model, work).with("-cf", output).with("-b", "7").with("-hb", "8");
        convert.with("--rotation", "on").with("--rotation-seed", seed)
    };
    let whole = place("whole");
    let started = Instant::now();
    let stderr = expect(&convert(&whole, "5").run(), 0);
    let time = started.elapsed();
    assert!(stderr.contains("Rotation: on, seed 5 (residual hadamard 256, values hadamard 64)"), "{stderr}");

    let config: Value = serde_json::from_slice(&std::fs::read(whole.1.join("config.json")).unwrap()).unwrap();
    let expected = json!({ "method": "residual hadamard 256, values hadamard 64", "seed": 5 });
    assert_eq!(config["quantization_config"]["rotation"], expected);
    assert_eq!(config["tie_word_embeddings"], false);
    let written = Checkpoint::open(&whole.1).unwrap();
    let values = |name: &str| written.get(name).unwrap().to_f32().unwrap();
    for name in ["model.norm.weight", "model.layers.0.input_layernorm.weight"] {
        assert!(values(name).iter().all(|&value| value == 1.0), "{name}");
    }
    let divergence = divergence(&whole.1, &model, 2);
    assert!(divergence > 1e-7 && divergence < 1e-3, "{divergence}");
    let mut generate = std::process::Command::new(env!("CARGO_BIN_EXE_exlay"));
    let generate = generate.args(["generate", "--prompt", "Once upon a time", "--tokens", "8", "--model"]);
    let output = generate.arg(&whole.1).output().unwrap();
    expect(&output, 0);
    assert!(!output.stdout.is_empty());

    let killed = place("killed");
    through_kills(&convert(&killed, "5"), &killed.0, &killed.1, 6, time, 1);
    assert!(files(&killed.1) == files(&whole.1), "other bytes");

    let stderr = expect(&convert(&whole, "6").run(), 1);
    assert!(stderr.contains("--rotation-seed: 5 then, 6 now"), "{stderr}");
    let stderr = expect(&convert(&whole, "5").with("--rotation", "off").run(), 2);
    assert!(stderr.contains("--rotation on"), "{stderr}");
    let other = convert(&place("other"), "6").with("-m", whole.0.join("measurement.json"));
    let stderr = expect(&other.run(), 1);
    assert!(stderr.contains("--rotation"), "{stderr}");
}
