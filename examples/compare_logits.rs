//! Holds exlay's logits against those that another engine recorded for the same tokens.
//!
//! `cargo run --release --example compare_logits -- MODEL RECORDED_DIR [f32|fx16]` where RECORDED_DIR holds a safetensors file with
//! `ids.N` (I32 [N]) and `logits.N` (F32 [N, vocabulary]) for some lengths N. Prints the largest difference and the mean KL
//! divergence in nats for each length.

use std::path::Path;

use exlay::formats::safetensors::Checkpoint;
use exlay::gpu::{Arithmetic, Device, DeviceOptions, select};
use exlay::model::{CachePrecision, CacheSize, Llama, LoadOptions, Placement, Row};
use exlay::reference::score::score;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, recorded, arithmetic @ ..] = arguments.as_slice() else {
        return Err("usage: compare_logits MODEL RECORDED_DIR [f32|fx16]".into());
    };
    let arithmetic = arithmetic.first().map(|text| text.parse::<Arithmetic>()).transpose()?;
    let recorded = Checkpoint::open(recorded)?;
    let mut lengths: Vec<usize> =
        recorded.names().filter_map(|name| name.strip_prefix("logits.")?.parse().ok()).collect();
    lengths.sort_unstable();
    let context = lengths.last().copied().ok_or("no tensor is named logits.N")?;
    let device = Device::open(&select(None)?, DeviceOptions { arithmetic, ..DeviceOptions::default() })?;
    let options = LoadOptions {
        rows: 512,
        cache: CacheSize { slots: 1, context },
        embedding: Placement::Device,
        precision: CachePrecision::Half,
    };
    let mut llama = Llama::load(&device, Path::new(model), options, &mut |_, _| {})?;
    println!("adapter {}, tier {}", device.name(), device.tier());
    for length in lengths {
        let ids = recorded.get(&format!("ids.{length}"))?.to_u32()?;
        let view = recorded.get(&format!("logits.{length}"))?;
        let columns = view.shape.last().copied().unwrap_or(0);
        let reference = view.to_f32()?;
        let rows: Vec<Row> =
            ids.iter().zip(0..).map(|(&token, position)| Row { token, slot: 0, position }).collect();
        let found = llama.forward(&rows, &(0..rows.len()).collect::<Vec<_>>())?;
        let vocabulary = llama.config().vocab_size.min(columns);
        let pairs = found.chunks(llama.config().vocab_size).zip(reference.chunks(columns));
        let pairs: Vec<_> = pairs.map(|(a, b)| (&a[..vocabulary], &b[..vocabulary])).collect();
        let worst = pairs
            .iter()
            .flat_map(|(a, b)| a.iter().zip(*b))
            .fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
        let scores = pairs.iter().map(|(a, b)| score(a, Some(b), None)).collect::<Result<Vec<_>, _>>()?;
        let divergence = scores.iter().map(|score| score.divergence).sum::<f64>() / scores.len() as f64;
        println!("{length:>6} tokens: largest difference {worst:.4}, KL divergence {divergence:.3e}");
    }
    Ok(())
}
