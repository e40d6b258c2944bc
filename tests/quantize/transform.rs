//! A transform of the model's tensors reaches everything that is measured, quantized and written.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use exlay::Result;
use exlay::formats::safetensors::{Checkpoint, Dtype, ShardWriter};
use exlay::gpu::{Device, DeviceOptions};
use exlay::model::{BlockKind, CacheSize, Llama, LoadOptions, Placement, Role, Row, WeightSource};
use exlay::ops::cache::CachePrecision;
use exlay::quant::convert::{Conversion, convert, convert_transformed};
use exlay::quant::method::Method;
use exlay::quant::report::Reporter;
use exlay::quant::source::Source;
use exlay::quant::stream::Stream;
use exlay::quant::transform::{Floats, Identity, Place, Site, Transform};
use serde_json::{Value, json};

use crate::{cut_model, edit_json, support};

/// Nothing is printed.
pub(crate) struct Silent;

impl Reporter for Silent {
    fn note(&mut self, _: &str) {}
    fn progress(&mut self, _: &str, _: usize, _: usize) {}
}

/// Halves the norm before each attention and the last one, and doubles what takes their outputs: all exact in floating
/// point. Remembers what it was shown.
#[derive(Default)]
struct Shift {
    seen: RefCell<BTreeSet<String>>,
}

impl Transform for Shift {
    fn id(&self) -> String {
        "shift".into()
    }

    fn apply<'a>(&self, place: Place<'_>, stored: Floats<'a>, _: &dyn WeightSource) -> Result<Floats<'a>> {
        self.seen.borrow_mut().insert(stored.view().name.to_owned());
        let factor = match place {
            Place::Norm(block) if block.kind == BlockKind::Attention => 0.5,
            Place::LastNorm => 0.5,
            Place::Weight(Site { block, input: Role::Normed, .. }) if block.kind == BlockKind::Attention => {
                2.0
            }
            Place::Head => 2.0,
            _ => return Ok(stored),
        };
        stored.map(|values| values.iter().map(|value| value * factor).collect())
    }

    fn tied(&self, tied: bool) -> bool {
        assert!(tied, "the source's flag is told");
        false
    }
}

/// The example's first layer, its head being the embedding.
fn tied_model(directory: &Path) {
    cut_model(directory, 1);
    let config = directory.join("config.json");
    edit_json(&config, &config, |config| config["tie_word_embeddings"] = json!(true));
    let weights = directory.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    if let Some(at) = bytes.windows(14).position(|window| window == b"lm_head.weight") {
        bytes[at] = b'_';
    }
    std::fs::write(weights, bytes).unwrap();
}

fn conversion(home: &Path, name: &str) -> Conversion {
    Conversion {
        model: home.join("model"),
        synthetic: None,
        host_memory: None,
        work: home.join(format!("{name}-work")),
        output: Some(home.join(name)),
        calibration: Some(crate::calibration()),
        column: None,
        bits: 7.0,
        head_bits: 8,
        measurement: None,
        output_measurement: None,
        rotation: None,
        rows: (2, 64),
        measurement_rows: (2, 64),
        probe_rows: 2,
        // What the others find differs with the scale of the weights by more than roundings.
        method: Method::exl2(),
        shard_bytes: u64::MAX,
        resume: true,
    }
}

pub(crate) fn logits(device: &Device, model: &Path) -> Vec<f32> {
    let options = LoadOptions {
        rows: 16,
        cache: CacheSize { slots: 1, context: 16 },
        embedding: Placement::Device,
        precision: CachePrecision::Half,
    };
    let rows: Vec<Row> = (0..16).map(|position| Row { token: 7 * position + 3, slot: 0, position }).collect();
    let wanted: Vec<usize> = (0..rows.len()).collect();
    let mut llama = Llama::load(device, model, options, &mut |_, _| {}).unwrap();
    llama.forward(&rows, &wanted).unwrap()
}

#[test]
fn an_exact_transform_changes_the_norms_and_not_the_model() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    tied_model(&home.join("model"));
    let device = support::device(DeviceOptions::default());
    convert(&device, &conversion(home, "plain"), &mut Silent).unwrap();
    let shift = Shift::default();
    convert_transformed(&device, &conversion(home, "shifted"), &shift, &mut Silent).unwrap();

    let open = |name: &str| Checkpoint::open(home.join(name)).unwrap();
    let (source, plain, shifted) = (open("model"), open("plain"), open("shifted"));
    let used = |name: &&str| {
        !name.starts_with("_m_head") && !name.starts_with("model.layers.")
            || name.starts_with("model.layers.0.")
    };
    let all: BTreeSet<String> = source.names().filter(used).map(str::to_owned).collect();
    assert_eq!(*shift.seen.borrow(), all, "each tensor passes the transform");

    let values = |checkpoint: &Checkpoint, name: &str| checkpoint.get(name).unwrap().to_f32().unwrap();
    for (name, factor) in [
        ("model.norm.weight", 0.5),
        ("model.layers.0.input_layernorm.weight", 0.5),
        ("model.layers.0.post_attention_layernorm.weight", 1.0),
        ("model.embed_tokens.weight", 1.0),
    ] {
        let expected: Vec<f32> = values(&plain, name).iter().map(|value| value * factor).collect();
        assert_eq!(values(&shifted, name), expected, "{name}");
    }
    assert_eq!(plain.names().collect::<Vec<_>>(), shifted.names().collect::<Vec<_>>());
    // Not to the bit: a constant in the search for scales, beside which almost-zero columns are not small, can change a
    // code here and there, and all that is quantized on top of it.
    for (linear, factor) in [("q_proj", 2.0), ("k_proj", 2.0), ("v_proj", 2.0), ("o_proj", 1.0)] {
        let name = format!("model.layers.0.self_attn.{linear}.q_scale_max");
        for (found, plain) in values(&shifted, &name).iter().zip(values(&plain, &name)) {
            assert!((found / plain - factor).abs() < 0.1, "{name}: {found} {plain}");
        }
    }
    let float = logits(&device, &home.join("model"));
    let from_float = |name: &str| support::kl_divergence(&float, &logits(&device, &home.join(name)), 2048);
    let (plain, shifted) = (from_float("plain"), from_float("shifted"));
    println!("KL divergence from the float model: plain {plain:.2e}, shifted {shifted:.2e}");
    assert!(plain > 1e-7 && plain < 1e-3 && shifted < 1e-3);

    let tie = |name: &str| {
        let text = std::fs::read(home.join(name).join("config.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["tie_word_embeddings"].clone()
    };
    assert_eq!((tie("plain"), tie("shifted")), (json!(true), json!(false)));

    // Neither a job nor a measurement goes on under another transform.
    let error = convert(&device, &conversion(home, "shifted"), &mut Silent).unwrap_err().to_string();
    assert!(error.contains("model fingerprint"), "{error}");
    let measured = Conversion {
        measurement: Some(home.join("shifted-work/measurement.json")),
        ..conversion(home, "other")
    };
    let error = convert(&device, &measured, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("another model"), "{error}");
}

/// Doubles everything.
struct Double;

impl Transform for Double {
    fn id(&self) -> String {
        "double".into()
    }

    fn apply<'a>(&self, _: Place<'_>, stored: Floats<'a>, _: &dyn WeightSource) -> Result<Floats<'a>> {
        stored.map(|values| values.iter().map(|value| value * 2.0).collect())
    }

    fn tied(&self, tied: bool) -> bool {
        tied
    }
}

/// A model with each float doubled in its file.
fn doubled_model(model: &Path, to: &Path) {
    std::fs::copy(model.join("config.json"), to.join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(model).unwrap();
    let mut writer = ShardWriter::create(to, u64::MAX).unwrap();
    for name in checkpoint.names().filter(|name| name.starts_with("model.") || name.starts_with("lm_head.")) {
        let view = checkpoint.get(name).unwrap();
        let doubled: Vec<f32> = view.to_f32().unwrap().iter().map(|value| value * 2.0).collect();
        writer.write(name, Dtype::F32, view.shape, bytemuck::cast_slice(&doubled)).unwrap();
    }
    writer.finish().unwrap();
}

/// With biases too: what the calibration streams and what the quantizer takes are the transformed tensors.
#[test]
fn a_transform_does_what_the_same_change_of_the_files_does() {
    let device = support::device(DeviceOptions::default());
    for variant in ["attention-bias", "mlp-bias"] {
        let model = support::path("tests/data/variants").join(variant);
        let home = tempfile::tempdir().unwrap();
        doubled_model(&model, home.path());
        let open = |model: &Path, transform| Source::open(&device, model, (32, 32), transform).unwrap();
        let (found, expected) = (open(&model, &Double), open(home.path(), &Identity));
        let tokens = [(0..32).map(|i| i * 5 + 1).collect::<Vec<u32>>()];
        let mut streams = [&found, &expected].map(|source| Stream::embed(source, &tokens).unwrap());
        let norm = |source: &Source<'_>| source.last_norm().unwrap().view().to_f32().unwrap();
        assert_eq!(norm(&found), norm(&expected));
        let mut biases = 0;
        for (index, block) in found.blocks().iter().enumerate() {
            for group in &block.groups {
                for linear in &group.linears {
                    let site = Site { block, input: group.input, linear };
                    assert_eq!(found.bias(site).unwrap(), expected.bias(site).unwrap(), "{}", linear.name);
                    biases += usize::from(linear.bias);
                }
            }
            for (stream, source) in streams.iter_mut().zip([&found, &expected]) {
                let block = source.block(index).unwrap();
                stream.advance(source, &block, &block).unwrap();
            }
            let [found, expected] = &streams;
            assert_eq!(found.rows().read().unwrap(), expected.rows().read().unwrap(), "{}", block.name);
        }
        assert!(biases > 0, "{variant}");
        let plain = Stream::embed(&open(&model, &Identity), &tokens).unwrap();
        assert_ne!(plain.rows().read().unwrap(), streams[0].rows().read().unwrap());
    }
}
