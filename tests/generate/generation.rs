//! Continuing a prompt: the recorded texts, where a text ends, and what is refused.

use exlay::formats::tokenizer::Tokenizer;
use exlay::generate::{Finish, Generator, SamplerSettings, Settings};
use exlay::gpu::{Device, DeviceOptions};
use exlay::model::{CachePrecision, CacheSize, Llama, LoadOptions, Placement};

use crate::{STORIES, support};

/// What a run leaves.
#[derive(Debug, PartialEq)]
struct Text {
    ids: Vec<u32>,
    text: String,
    finish: Option<Finish>,
}

fn load(device: &Device, rows: usize, context: usize, embedding: Placement) -> Llama {
    let options = LoadOptions {
        rows,
        cache: CacheSize { slots: 1, context },
        embedding,
        precision: CachePrecision::Half,
    };
    Llama::load(device, &support::path(STORIES), options, &mut |_, _| {}).expect("the model loads")
}

fn generate(model: &mut Llama, prompt: &[u32], settings: &Settings) -> exlay::Result<Text> {
    let tokenizer = Tokenizer::load(support::path(STORIES))?;
    let mut generator = Generator::new(model, &tokenizer, prompt, settings)?;
    let (mut ids, mut text) = (Vec::new(), String::new());
    for piece in generator.by_ref() {
        let piece = piece?;
        ids.push(piece.id);
        text += &piece.text;
    }
    assert_eq!(ids, generator.token_ids());
    Ok(Text { ids, text, finish: generator.finish() })
}

/// Prompt and greedy continuation of "The little fox" as transformers has them. Its margins are above 0.1 for 44 steps.
fn fox() -> (Vec<u32>, Vec<u32>) {
    let file =
        std::fs::read_to_string(support::path("tests/data/tiny-stories-golden.json")).expect("the recording");
    let golden: serde_json::Value = serde_json::from_str(&file).expect("a JSON object");
    let numbers = |key: &str| -> Vec<u32> {
        let values = golden["The little fox"][key].as_array().expect("a list");
        values.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
    };
    (numbers("ids"), numbers("greedy"))
}

fn greedy(tokens: usize) -> Settings {
    Settings { tokens, ..Default::default() }
}

#[test]
fn a_prompt_in_chunks_continues_as_one_that_runs_whole() {
    let device = support::device(DeviceOptions::default());
    let (mut prompt, golden) = fox();
    prompt.extend(&golden[..19]);
    for rows in [4, 32] {
        let mut model = load(&device, rows, 64, Placement::Device);
        // Twice: nothing of the first run is left in the cache for the second.
        for _ in 0..2 {
            let found = generate(&mut model, &prompt, &greedy(20)).unwrap();
            assert_eq!(found.ids, golden[19..39], "{rows} rows");
            assert_eq!(found.finish, Some(Finish::Tokens));
        }
    }
}

#[test]
fn the_embedding_on_the_host_changes_no_token() {
    let device = support::device(DeviceOptions::default());
    let (prompt, golden) = fox();
    let mut model = load(&device, 4, 64, Placement::Host);
    assert_eq!(generate(&mut model, &prompt, &greedy(12)).unwrap().ids, golden[..12]);
    let smaller = model.memory().weights;
    // The table: 2048 tokens by 256 values of 2 bytes.
    assert_eq!(load(&device, 4, 64, Placement::Device).memory().weights - smaller, 2048 * 256 * 2);
}

#[test]
fn a_seed_gives_its_text_each_time() {
    let device = support::device(DeviceOptions::default());
    let (prompt, _) = fox();
    let run = |rows, seed| {
        let sampling = SamplerSettings { temperature: 1.0, seed, ..Default::default() };
        let settings = Settings { tokens: 24, sampling, ..Default::default() };
        generate(&mut load(&device, rows, 64, Placement::Device), &prompt, &settings).unwrap()
    };
    let first = run(4, 1);
    assert_eq!(first, run(4, 1));
    assert_ne!(first.ids, run(4, 2).ids);
}

#[test]
fn where_a_text_ends() {
    let device = support::device(DeviceOptions::default());
    let (prompt, golden) = fox();
    let mut model = load(&device, 4, 10, Placement::Device);
    let mut run = |settings: Settings| {
        let found = generate(&mut model, &prompt, &settings).unwrap();
        assert_eq!(found.ids, golden[..found.ids.len()]);
        (found.ids.len(), found.text, found.finish.unwrap())
    };
    let text = |end: &str| end.to_owned();
    assert_eq!(run(greedy(0)), (0, text(""), Finish::Tokens));
    assert_eq!(run(greedy(5)), (5, text(" was on a train,"), Finish::Tokens));
    // Prompt and text fill the ten positions.
    assert_eq!(run(greedy(64)), (6, text(" was on a train, and"), Finish::Context));
    assert_eq!(run(greedy(6)), (6, text(" was on a train, and"), Finish::Tokens));
    // The end token counts and has no text.
    let ends = |end_tokens| Settings { end_tokens, ..greedy(64) };
    assert_eq!(run(ends(vec![9, golden[3]])), (4, text(" was on a"), Finish::EndToken));
    let stops = |stop: &str| Settings { stop: vec![text(stop)], ..greedy(64) };
    assert_eq!(run(stops("a tra")), (4, text(" was on "), Finish::StopString));
    assert_eq!(run(stops("on a train, and")), (6, text(" was "), Finish::StopString));
    // What could have been the beginning of a stop string is part of the text after all.
    assert_eq!(run(stops("train, and then")), (6, text(" was on a train, and"), Finish::Context));
}

#[test]
fn prompts_that_do_not_fit_are_refused() {
    let device = support::device(DeviceOptions::default());
    let (mut prompt, golden) = fox();
    let mut model = load(&device, 4, 5, Placement::Device);
    let mut message =
        |prompt: &[u32], settings| generate(&mut model, prompt, &settings).unwrap_err().to_string();
    let empty = message(&[], greedy(1));
    assert!(empty.starts_with("--prompt: is empty"), "{empty}");
    let foreign = message(&[2048], greedy(1));
    assert!(foreign.contains("2048"), "{foreign}");
    let stop = message(&prompt, Settings { stop: vec![String::new()], ..greedy(1) });
    assert!(stop.starts_with("--stop"), "{stop}");
    prompt.extend(&golden[..2]);
    let long = message(&prompt, greedy(1));
    assert!(long.starts_with("--prompt: has 6 tokens") && long.contains("context of 5"), "{long}");
    // One that fills the context fits, and leaves no room.
    let full = generate(&mut model, &prompt[..5], &greedy(1)).unwrap();
    assert_eq!(full, Text { ids: vec![], text: String::new(), finish: Some(Finish::Context) });
}
