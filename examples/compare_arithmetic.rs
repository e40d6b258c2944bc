//! How far the arithmetics of generation are apart: the KL divergence of a whole model between them, over a text.
//!
//! `cargo run --release --example compare_arithmetic -- MODEL TEXT.(parquet|txt) [TOKENS]`, MODEL being packed. The text's first
//! tokens (512) go through the model eight rows at a time, as generation's products take them, in each arithmetic; printed
//! are the mean divergence in nats and the largest difference of a logit from single precision.

use std::path::Path;

use exlay::formats::dataset::texts;
use exlay::formats::tokenizer::Tokenizer;
use exlay::gpu::{Arithmetic, Device, DeviceOptions, select};
use exlay::model::{CachePrecision, CacheSize, Llama, LoadOptions, Placement, Row};
use exlay::reference::score::mean_divergence;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, text, count @ ..] = arguments.as_slice() else {
        return Err("usage: compare_arithmetic MODEL TEXT.(parquet|txt) [TOKENS]".into());
    };
    let count: usize = count.first().map_or(Ok(512), |count| count.parse())?;
    let tokenizer = Tokenizer::load(Path::new(model))?;
    let mut ids = Vec::new();
    for text in texts(Path::new(text), None)? {
        ids.extend(tokenizer.encode(&text?, false)?);
        if ids.len() >= count {
            break;
        }
    }
    ids.truncate(count);
    let mut reference: Option<Vec<f32>> = None;
    for arithmetic in Arithmetic::ALL {
        let options = DeviceOptions { arithmetic: Some(arithmetic), ..DeviceOptions::default() };
        let device = Device::open(&select(None)?, options)?;
        let options = LoadOptions {
            rows: 8,
            cache: CacheSize { slots: 1, context: ids.len() },
            embedding: Placement::Device,
            precision: CachePrecision::Half,
        };
        let mut llama = Llama::load(&device, Path::new(model), options, &mut |_, _| {})?;
        let used = llama.arithmetic().ok_or("the model is not packed, so its arithmetic is always f32")?;
        let rows: Vec<Row> =
            ids.iter().zip(0..).map(|(&token, position)| Row { token, slot: 0, position }).collect();
        let found = llama.forward(&rows, &(0..rows.len()).collect::<Vec<_>>())?;
        let Some(single) = &reference else {
            println!("adapter {}, tier {}, {} tokens", device.name(), device.tier(), ids.len());
            reference = Some(found);
            continue;
        };
        let divergence = mean_divergence(&found, single, llama.config().vocab_size)?;
        let worst = found.iter().zip(single).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
        println!("{used}: KL divergence {divergence:.3e}, largest difference {worst:.2e}");
    }
    Ok(())
}
