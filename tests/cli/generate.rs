//! `exlay generate`: recorded texts, what goes where, and the same bytes each time.

use std::fs;

use serde_json::Value;

use crate::{exlay, path, run, stderr, stdout};

const STORIES: &str = "examples/tiny-stories";

fn generate(flags: &[&str], code: i32) -> std::process::Output {
    run(&[&["generate", "--model", path(STORIES)], flags].concat(), code)
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id")).collect()
}

#[test]
fn greedy_texts_are_those_of_transformers() {
    let golden: Value =
        serde_json::from_str(&fs::read_to_string("tests/data/tiny-stories-golden.json").unwrap()).unwrap();
    for (prompt, case) in golden.as_object().unwrap() {
        // Up to a step at which the two best tokens are nearly equal.
        let margins = case["margins"].as_array().unwrap();
        let clear = margins.iter().take_while(|margin| margin.as_f64().unwrap() >= 0.02).count().min(32);
        assert!(clear > 8);
        let count = clear.to_string();
        let output = generate(&["--prompt", prompt, "--temperature", "0", "--tokens", &count, "--json"], 0);
        let report: Value = serde_json::from_str(stdout(&output)).expect("stdout is one JSON object");
        assert_eq!(ids(&report["prompt_token_ids"]), ids(&case["ids"]));
        assert_eq!(ids(&report["token_ids"]), ids(&case["greedy"])[..clear], "{prompt}");
        let (whole, text) = (case["text"].as_str().unwrap(), report["text"].as_str().unwrap());
        assert!(text.len() > 20 && whole.starts_with(&format!("{prompt}{text}")), "{text}");
        for name in ["load_seconds", "prompt_tokens_per_second", "tokens_per_second"] {
            assert!(report[name].as_f64().unwrap() > 0.0, "{name}");
        }
        let memory = |part: &str| report["memory"][part].as_u64().unwrap();
        let parts = memory("weights") + memory("cache") + memory("scratch");
        assert!(memory("weights") > 6_000_000 && memory("peak") >= parts, "{report}");
        // Keys and values of 4 layers, one page of 256 positions, 2 heads of 64 halves.
        assert!(memory("cache") >= 2 * 4 * 256 * 2 * 64 * 2);
        assert!(!report["adapter"].as_str().unwrap().is_empty());
    }
}

#[test]
fn text_goes_to_stdout_and_the_rest_to_stderr() {
    let output =
        generate(&["-p", "The little fox", "--temperature", "0", "-t", "40", "--stop", "and the fox"], 0);
    assert_eq!(stdout(&output), " was on a train, \n");
    for word in ["adapter ", "load ", "prompt      4 tokens, ", "tokens/s", "weights ", "peak "] {
        assert!(stderr(&output).contains(word), "{word}: {}", stderr(&output));
    }
}

#[test]
fn a_seed_gives_the_same_bytes_at_any_thread_count() {
    let text = |seed: &str, threads: &str| {
        let flags = ["generate", "-m", path(STORIES), "-p", "The little fox", "-t", "16", "--seed", seed];
        let output =
            exlay(&flags).env("RAYON_NUM_THREADS", threads).env("LP_NUM_THREADS", threads).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output).to_owned()
    };
    // The model's own file asks for sampling.
    let first = text("3", "1");
    assert_eq!(first, text("3", "2"));
    assert_ne!(first, text("4", "2"));
}

#[test]
fn the_embedding_on_the_host_gives_the_same_text() {
    let text = |place: &str| {
        let flags = ["-p", "The little fox", "-t", "8", "--seed", "5", "--embedding", place];
        stdout(&generate(&flags, 0)).to_owned()
    };
    assert_eq!(text("device"), text("host"));
}

#[test]
fn texts_together_are_those_of_each_alone() {
    let alone = |seed: &str, prompt: &str| {
        let flags = ["-p", prompt, "-t", "12", "--seed", seed, "--json"];
        serde_json::from_str::<Value>(stdout(&generate(&flags, 0))).unwrap()
    };
    let flags = ["-p", "The little fox", "-t", "12", "--seed", "5", "--batch", "2"];
    let output = generate(&[&flags[..], &["--json"]].concat(), 0);
    let report: Value = serde_json::from_str(stdout(&output)).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for (row, seed) in rows.iter().zip(["5", "6"]) {
        let single = alone(seed, "The little fox");
        assert!(single.get("rows").is_none(), "{single}");
        for name in ["prompt_token_ids", "token_ids", "text"] {
            assert_eq!(row[name], single[name], "seed {seed}");
        }
        assert!(row["tokens_per_second"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(report["token_ids"], rows[0]["token_ids"]);
    assert_eq!(report["steps_in_flight"].as_u64(), Some(3));

    let output = generate(&flags, 0);
    let text = |row: usize| rows[row]["text"].as_str().unwrap();
    let expected = format!("--- text 1 of 2 ---\n{}\n--- text 2 of 2 ---\n{}\n", text(0), text(1));
    assert_eq!(stdout(&output), expected);
    for line in
        ["prompt      8 tokens", "text 1      12 tokens", "generation  24 tokens", "3 steps in flight"]
    {
        assert!(stderr(&output).contains(line), "{line}: {}", stderr(&output));
    }

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("prompts.txt");
    fs::write(&file, "The little fox\nOnce\n").unwrap();
    let flags = ["--prompts", file.to_str().unwrap(), "-t", "12", "--seed", "5", "--json"];
    let report: Value = serde_json::from_str(stdout(&generate(&flags, 0))).unwrap();
    assert_eq!(report["rows"][1]["text"], alone("5", "Once")["text"]);
}

#[test]
fn steps_in_flight_change_no_text_and_are_said() {
    let output =
        |flags: &[&str]| generate(&[&["-p", "The little fox", "-t", "10", "--seed", "5"], flags].concat(), 0);
    let one = output(&["--in-flight", "1"]);
    assert!(stderr(&one).contains(", 1 step in flight\n"), "{}", stderr(&one));
    assert_eq!(stdout(&output(&["--in-flight", "8"])), stdout(&one));
    let host = output(&["--embedding", "host"]);
    assert!(stderr(&host).contains("1 step in flight, for the embedding on the host"), "{}", stderr(&host));
    assert_eq!(stdout(&host), stdout(&one));
}

#[test]
fn a_context_that_is_full_is_said() {
    let flags = ["-p", "The little fox", "-t", "40", "--temperature", "0", "--context", "8"];
    let output = generate(&flags, 0);
    assert_eq!(stdout(&output), " was on a train\n");
    assert!(
        stderr(&output).contains("the context of 8 tokens is full; a longer --context"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_does_not_fit_is_refused_before_the_model_is_loaded() {
    let long = "fox ".repeat(600);
    for (flags, named) in [
        (
            &["-p", "The little fox", "--context", "3"][..],
            "--prompt: has 4 tokens, more than the context of 3",
        ),
        (&["-p", &long], "more than the context of 512"),
        (&["-p", "fox", "--context", "513"], "--context: 513 tokens"),
        (&["-p", "fox", "--vram", "1M"], "out of device memory"),
    ] {
        let output = generate(flags, 1);
        assert_eq!(stdout(&output), "", "{named}");
        assert!(stderr(&output).contains(named), "{named}: {}", stderr(&output));
    }
    let usage = generate(&["-p", "fox", "--temperature", "-1"], 2);
    assert!(stderr(&usage).contains("--temperature"), "{}", stderr(&usage));
    let missing = run(&["generate", "-m", "no-such-directory", "-p", "fox"], 1);
    assert!(stderr(&missing).contains("no-such-directory"), "{}", stderr(&missing));
}

#[test]
fn an_empty_prompt_begins_with_the_tokenizers_token_or_is_refused() {
    let output = generate(&["-p", "", "-t", "2", "--json"], 0);
    let report: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(ids(&report["prompt_token_ids"]), [1]);

    let directory = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(format!("{STORIES}/{file}"), directory.path().join(file)).unwrap();
    }
    let tokenizer = fs::read_to_string(format!("{STORIES}/tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&tokenizer).unwrap();
    tokenizer["post_processor"] = Value::Null;
    fs::write(directory.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let output = run(&["generate", "-m", directory.path().to_str().unwrap(), "-p", ""], 1);
    assert!(stderr(&output).contains("--prompt: is empty"), "{}", stderr(&output));
}
