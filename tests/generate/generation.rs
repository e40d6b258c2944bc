//! Continuing a prompt: the recorded texts, where a text ends, and what is refused.

use exlay::formats::tokenizer::Tokenizer;
use exlay::generate::{Finish, Generator, SamplerSettings, Settings, Start};
use exlay::gpu::{Device, DeviceOptions};
use exlay::model::{CachePrecision, CacheSize, Llama, LoadOptions, Placement, Row};

use crate::{STORIES, support};

/// What a run leaves.
#[derive(Debug, PartialEq)]
struct Text {
    ids: Vec<u32>,
    text: String,
    finish: Option<Finish>,
}

fn load(device: &Device, rows: usize, context: usize, embedding: Placement) -> Llama {
    load_slots(device, rows, CacheSize { slots: 1, context }, embedding)
}

fn load_slots(device: &Device, rows: usize, cache: CacheSize, embedding: Placement) -> Llama {
    let options = LoadOptions { rows, cache, embedding, precision: CachePrecision::Half };
    Llama::load(device, &support::path(STORIES), options, &mut |_, _| {}).expect("the model loads")
}

fn generate(model: &mut Llama, prompt: &[u32], settings: &Settings) -> exlay::Result<Text> {
    let start = Start { prompt, seed: settings.sampling.seed };
    Ok(batch(model, &[start], settings)?.remove(0))
}

fn batch(model: &mut Llama, starts: &[Start<'_>], settings: &Settings) -> exlay::Result<Vec<Text>> {
    let tokenizer = Tokenizer::load(support::path(STORIES))?;
    let mut generator = Generator::batch(model, &tokenizer, starts, settings)?;
    let mut texts: Vec<Text> =
        starts.iter().map(|_| Text { ids: Vec::new(), text: String::new(), finish: None }).collect();
    for piece in generator.by_ref() {
        let piece = piece?;
        texts[piece.row].ids.push(piece.id);
        texts[piece.row].text += &piece.text;
    }
    for (text, of_generator) in texts.iter_mut().zip(generator.texts()) {
        assert_eq!(text.ids, of_generator.token_ids());
        text.finish = of_generator.finish();
    }
    Ok(texts)
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

fn sampled(tokens: usize) -> Settings {
    let sampling = SamplerSettings {
        temperature: 0.9,
        top_k: 50,
        top_p: 0.95,
        min_p: 0.01,
        repetition_penalty: 1.1,
        seed: 11,
    };
    Settings { sampling, ..greedy(tokens) }
}

#[test]
fn a_text_does_not_depend_on_how_many_steps_are_in_flight() {
    let device = support::device(DeviceOptions::default());
    let (prompt, golden) = fox();
    let mut model = load(&device, 4, 64, Placement::Device);
    let stop = vec![" and".to_owned()];
    for settings in [greedy(16), sampled(16), Settings { stop, ..greedy(16) }] {
        let mut run = |in_flight| {
            let settings = Settings { in_flight, ..settings.clone() };
            generate(&mut model, &prompt, &settings).unwrap()
        };
        let one = run(1);
        assert!(one.ids.len() > 4, "{one:?}");
        for in_flight in [3, 100] {
            assert_eq!(run(in_flight), one, "{in_flight} in flight");
        }
    }
    assert_eq!(generate(&mut model, &prompt, &greedy(16)).unwrap().ids, golden[..16]);
}

/// What ran past the end of a text leaves nothing behind for the next one, however soon that begins.
#[test]
fn a_text_after_a_stopped_one_is_the_same_as_in_a_new_model() {
    let device = support::device(DeviceOptions::default());
    let (prompt, _) = fox();
    let fresh = generate(&mut load(&device, 4, 64, Placement::Device), &prompt, &sampled(16)).unwrap();
    let mut model = load(&device, 4, 64, Placement::Device);
    let tokenizer = Tokenizer::load(support::path(STORIES)).unwrap();
    for end in 0..2 {
        let stop = if end == 0 { vec!["on a".to_owned()] } else { vec![] };
        let settings = Settings { stop, in_flight: 8, ..greedy(50) };
        let mut generator = Generator::new(&mut model, &tokenizer, &prompt, &settings).unwrap();
        // Once to a stop string, once left in the middle, with steps in flight.
        let pieces = if end == 0 { generator.by_ref().count() } else { generator.by_ref().take(3).count() };
        assert_eq!(pieces, 3);
        drop(generator);
        assert!(model.in_flight() > 0);
        assert_eq!(generate(&mut model, &prompt, &sampled(16)).unwrap(), fresh);
    }
    // The logits of a pass are its own, too.
    let rows: Vec<Row> =
        (0..).zip(&prompt).map(|(position, &token)| Row { token, slot: 0, position }).collect();
    let logits = model.forward(&rows, &[rows.len() - 1]).unwrap();
    let mut fresh_model = load(&device, 4, 64, Placement::Device);
    assert_eq!(logits, fresh_model.forward(&rows, &[rows.len() - 1]).unwrap());
}

#[test]
fn texts_together_are_those_of_each_alone() {
    let device = support::device(DeviceOptions::default());
    let (prompt, golden) = fox();
    let mut long = prompt.clone();
    long.extend(&golden[..9]);
    let prompts = [&prompt[..], &long, &prompt[..2], &prompt, &prompt[..3], &long, &prompt, &prompt];
    let mut alone = load(&device, 4, 20, Placement::Device);
    for (count, settings) in [(2, sampled(12)), (3, greedy(12)), (8, sampled(12))] {
        let cache = CacheSize { slots: count, context: 20 };
        let mut together = load_slots(&device, 4, cache, Placement::Device);
        let starts: Vec<Start<'_>> =
            (0..).zip(&prompts[..count]).map(|(seed, prompt)| Start { prompt, seed }).collect();
        let texts = batch(&mut together, &starts, &settings).unwrap();
        for (start, text) in starts.iter().zip(&texts) {
            let sampling = SamplerSettings { seed: start.seed, ..settings.sampling };
            let settings = Settings { sampling, ..settings.clone() };
            assert_eq!(*text, generate(&mut alone, start.prompt, &settings).unwrap(), "{count}: {start:?}");
        }
        // The longer prompt fills its context, the others have as many tokens as they should.
        assert_eq!((texts[0].finish, texts[1].finish), (Some(Finish::Tokens), Some(Finish::Context)));
    }
    let mut one = load(&device, 4, 20, Placement::Device);
    let starts = [Start { prompt: &prompt, seed: 1 }; 2];
    let message = batch(&mut one, &starts, &greedy(1)).unwrap_err().to_string();
    assert!(message.starts_with("--batch: 2 texts"), "{message}");
}

#[test]
fn the_embedding_on_the_host_keeps_one_step_in_flight() {
    let device = support::device(DeviceOptions::default());
    let (prompt, _) = fox();
    let cache = CacheSize { slots: 2, context: 40 };
    let starts = [Start { prompt: &prompt, seed: 1 }, Start { prompt: &prompt[..2], seed: 2 }];
    let run = |placement| {
        let mut model = load_slots(&device, 4, cache, placement);
        let tokenizer = Tokenizer::load(support::path(STORIES)).unwrap();
        let generator = Generator::batch(&mut model, &tokenizer, &starts, &sampled(12)).unwrap();
        let in_flight = generator.in_flight();
        (in_flight, batch(&mut model, &starts, &sampled(12)).unwrap())
    };
    let (device, host) = (run(Placement::Device), run(Placement::Host));
    assert_eq!((device.0, host.0), (3, 1));
    assert_eq!(device.1, host.1);
}
