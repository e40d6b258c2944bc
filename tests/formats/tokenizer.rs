//! Tokenizers of both kinds, and text as it streams.

use exlay::formats::tokenizer::Tokenizer;
use proptest::prelude::*;
use serde_json::Value;

use crate::{data, directory, refused};

fn llama2() -> Tokenizer {
    Tokenizer::load(data("tokenizer-llama2-kind")).unwrap()
}

fn byte_level() -> Tokenizer {
    Tokenizer::load(data("tiny-stories-exl2/4.0")).unwrap()
}

fn streamed(tokenizer: &Tokenizer, prompt: &[u32], ids: &[u32]) -> String {
    let mut stream = tokenizer.stream_after(prompt);
    let pieces: Vec<String> = ids.iter().filter_map(|&id| stream.push(id).unwrap()).collect();
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
    pieces.concat() + &stream.finish().unwrap()
}

#[test]
fn llama2_kind_gives_the_expected_ids_and_text() {
    let tokenizer = llama2();
    let text = std::fs::read_to_string(data("tokenizer-llama2-kind/expected.json")).unwrap();
    let expected: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 9);
    for (text, case) in &expected {
        let ids = |key: &str| -> Vec<u32> { serde_json::from_value(case[key].clone()).unwrap() };
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids("ids"), "{text}");
        let plain = tokenizer.encode(text, false).unwrap();
        assert_eq!(plain, ids("without_special"), "{text}");
        assert_eq!(tokenizer.decode(&ids("ids")).unwrap(), case["decoded"].as_str().unwrap(), "{text}");
        let pieces: Vec<String> = plain.iter().map(|&id| tokenizer.decode(&[id]).unwrap()).collect();
        assert_eq!(Value::from(pieces), case["pieces"], "{text}");
        assert_eq!(streamed(&tokenizer, &[], &plain), case["decoded"].as_str().unwrap(), "{text}");
    }
    assert_eq!(tokenizer.vocab_size(), 1500);
    assert_eq!((tokenizer.bos_token_id(), tokenizer.eos_token_id()), (Some(1), Some(2)));
}

#[test]
fn byte_level_kind_matches_the_golden_prompts() {
    let tokenizer = byte_level();
    assert_eq!(tokenizer.vocab_size(), 2048);
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(data("tiny-stories-golden.json")).unwrap()).unwrap();
    let cases = golden.as_object().unwrap();
    assert!(!cases.is_empty());
    for (prompt, case) in cases {
        let ids = |key: &str| -> Vec<u32> { serde_json::from_value(case[key].clone()).unwrap() };
        assert_eq!(tokenizer.encode(prompt, true).unwrap(), ids("ids"));
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.decode(&[ids("ids"), ids("greedy")].concat()).unwrap(), text);
        let continuation = text.strip_prefix(prompt.as_str()).unwrap();
        assert_eq!(streamed(&tokenizer, &ids("ids"), &ids("greedy")), continuation);
    }
}

#[test]
fn a_character_comes_when_it_is_whole() {
    let tokenizer = llama2();
    let mut stream = tokenizer.stream();
    let ids = tokenizer.encode("🦊日", false).unwrap();
    let pieces: Vec<Option<String>> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    let whole = |text: &str| Some(text.to_owned());
    // ▁, four bytes, three bytes.
    assert_eq!(pieces, [None, None, None, None, whole("🦊"), None, None, whole("日")]);
}

/// Bytes that never become a character are given out once it is certain, and do not lose what follows.
#[test]
fn broken_bytes_do_not_stop_the_stream() {
    let tokenizer = llama2();
    let fox = tokenizer.encode("🦊", false).unwrap();
    let word = tokenizer.encode("time", false).unwrap();
    let mut ids = vec![fox[1], fox[2]];
    ids.extend(&word);
    assert_eq!(streamed(&tokenizer, &[], &ids), tokenizer.decode(&ids).unwrap());
    let mut stream = tokenizer.stream();
    let pieces: Vec<String> = (0..1000).filter_map(|_| stream.push(fox[1]).unwrap()).collect();
    assert!(pieces.len() >= 3, "held bytes are bounded");
}

#[test]
fn the_space_after_a_prompt_is_kept() {
    for tokenizer in [llama2(), byte_level()] {
        let prompt = tokenizer.encode("Once upon", true).unwrap();
        let all = tokenizer.encode("Once upon a time", true).unwrap();
        assert!(all.starts_with(&prompt));
        assert_eq!(streamed(&tokenizer, &prompt, &all[prompt.len()..]), " a time");
    }
}

#[test]
fn an_unknown_id_is_no_text() {
    for tokenizer in [llama2(), byte_level()] {
        assert_eq!(tokenizer.decode(&[1, 2, 1_000_000]).unwrap(), "");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pieces_joined_are_the_text(text in "(\\PC|[ \n▁�é日🦊]){0,24}", cut in 0..24_usize) {
        for tokenizer in [llama2(), byte_level()] {
            let ids = tokenizer.encode(&text, false).unwrap();
            prop_assert_eq!(streamed(&tokenizer, &[], &ids), tokenizer.decode(&ids).unwrap());
            let (prompt, rest) = ids.split_at(cut.min(ids.len()));
            let before = tokenizer.decode(prompt).unwrap();
            if !before.ends_with('\u{fffd}') {
                let joined = before + &streamed(&tokenizer, prompt, rest);
                prop_assert_eq!(joined, tokenizer.decode(&ids).unwrap());
            }
        }
    }
}

#[test]
fn only_a_tokenizer_model_says_how_to_get_a_tokenizer_json() {
    let directory = directory(&[("tokenizer.model", b"sentencepiece")]);
    refused(
        Tokenizer::load(directory.path()),
        &["tokenizer.json", "tokenizer.model alone", "save_pretrained"],
    );
}

#[test]
fn missing_and_damaged_files_are_refused() {
    refused(Tokenizer::load(directory(&[]).path()), &["tokenizer.json", "is missing"]);
    for text in ["", "{}", "[1, 2", "\u{0}"] {
        let directory = directory(&[("tokenizer.json", text.as_bytes())]);
        refused(Tokenizer::load(directory.path()), &["tokenizer.json", "is no tokenizer"]);
    }
    let good = std::fs::read(data("tokenizer-llama2-kind/tokenizer.json")).unwrap();
    let directory = directory(&[("tokenizer.json", &good), ("tokenizer_config.json", b"[]")]);
    refused(Tokenizer::load(directory.path()), &["tokenizer_config.json"]);
}

/// Llama's own classes go by the flags of tokenizer_config.json, as in transformers.
#[test]
fn flags_of_llama_tokenizers_count() {
    let json = std::fs::read(data("tokenizer-llama2-kind/tokenizer.json")).unwrap();
    for (config, expected) in [
        (r#"{"tokenizer_class":"LlamaTokenizer","add_bos_token":false,"bos_token":"<s>"}"#, &[801][..]),
        (
            r#"{"tokenizer_class":"LlamaTokenizer","add_eos_token":true,"bos_token":{"content":"<s>"},
                "eos_token":"</s>"}"#,
            &[1, 801, 2],
        ),
        (r#"{"tokenizer_class":"PreTrainedTokenizerFast","add_bos_token":false}"#, &[1, 801]),
    ] {
        let directory = directory(&[("tokenizer.json", &json), ("tokenizer_config.json", config.as_bytes())]);
        let tokenizer = Tokenizer::load(directory.path()).unwrap();
        assert_eq!(tokenizer.encode("Once", true).unwrap(), expected, "{config}");
        assert_eq!(tokenizer.encode("Once", false).unwrap(), [801]);
    }
}
