//! `exlay generate`: flags and texts of a generation.

pub(crate) mod report;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use exlay::Error;
use exlay::formats::config::{GenerationConfig, LlamaConfig};
use exlay::formats::safetensors::Checkpoint;
use exlay::formats::tokenizer::Tokenizer;
use exlay::generate::generator::{IN_FLIGHT, check_prompt};
use exlay::generate::{Finish, Generator, SamplerSettings, Settings, Start};
use exlay::model::{CachePrecision, CacheSize, Llama, LoadOptions, MOST_IN_FLIGHT, MOST_ROWS};

use super::failure::Usage;
use super::progress::Steps;
use super::{Embedding, GlobalArgs, output, tuning};
use report::{GenerateReport, Memory, RowReport, TextReport};

/// Continue a prompt, or several together.
///
/// The text goes to stdout, a single one as it comes; times, speeds and memory go to stderr.
#[derive(Clone, Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Directory of the model, EXL2 or F16.
    #[arg(short = 'm', long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Text to continue.
    #[arg(short = 'p', long, value_name = "TEXT", allow_hyphen_values = true)]
    #[arg(required_unless_present = "prompts")]
    pub(crate) prompt: Option<String>,
    /// Continue each line of this file (at most 8), all of them together.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "batch"])]
    pub(crate) prompts: Option<PathBuf>,
    /// Continue the prompt so many times (at most 8) together; the seed goes up by one from text to text.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MOST_ROWS as u64))]
    pub(crate) batch: u64,
    /// Most tokens to generate.
    #[arg(short = 't', long, value_name = "COUNT", default_value_t = 128)]
    pub(crate) tokens: usize,
    /// Most tokens of prompt and text together; as many as they need if not given.
    #[arg(long, value_name = "TOKENS")]
    pub(crate) context: Option<usize>,
    /// Where rows of the embedding table are looked up.
    #[arg(long, default_value = "device")]
    pub(crate) embedding: Embedding,
    /// Steps submitted before the token of the first of them is read, 1 to 8; changes no text.
    #[arg(long, value_name = "COUNT", default_value_t = IN_FLIGHT as u64)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MOST_IN_FLIGHT as u64))]
    pub(crate) in_flight: u64,
    /// End the text before this string; can be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// How to choose tokens. What is not given comes from the model's generation_config.json, else is off.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sampling, in this order")]
pub(crate) struct SamplingArgs {
    /// Make tokens that occurred less likely by this factor; 1 is off.
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    pub(crate) repetition_penalty: Option<f32>,
    /// Flatten (above 1) or sharpen (below 1) the probabilities; 0 takes the most likely token.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,
    /// Keep this many of the most likely tokens; 0 is off.
    #[arg(long, value_name = "COUNT")]
    pub(crate) top_k: Option<usize>,
    /// Keep the most likely tokens that reach this probability together; 1 is off.
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,
    /// Keep tokens at least this likely, as a share of the most likely one; 0 is off.
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(crate) min_p: Option<f32>,
    /// Choose another text: same seed, same text.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
}

impl SamplingArgs {
    /// These flags over `model`, the settings that the model's own files ask for.
    ///
    /// # Errors
    /// [`Usage`] with the flag whose value is out of range.
    pub(crate) fn settings(&self, model: SamplerSettings) -> Result<SamplerSettings, Usage> {
        let settings = SamplerSettings {
            temperature: self.temperature.unwrap_or(model.temperature),
            top_k: self.top_k.unwrap_or(model.top_k),
            top_p: self.top_p.unwrap_or(model.top_p),
            min_p: self.min_p.unwrap_or(model.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(model.repetition_penalty),
            seed: self.seed,
        };
        settings.validate().map_err(|error| Usage(error.to_string()))?;
        Ok(settings)
    }
}

/// Most rows of a pass over a prompt.
pub(crate) const PROMPT_ROWS: usize = 512;

/// A context that is not asked for is a multiple of this, a page of the cache.
const CONTEXT_STEP: usize = 256;

pub(crate) fn run(args: &GenerateArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let config = LlamaConfig::load(&args.model)?;
    let generation = GenerationConfig::load(&args.model)?;
    let sampling = args.sampling.settings(model_settings(&generation))?;
    let tokenizer = Tokenizer::load(&args.model)?;
    let prompts = prompts(args)?;
    let encode = |(text, seed): &(String, u64)| Ok((tokenizer.encode(text, true)?, *seed));
    let prompts = prompts.iter().map(encode).collect::<exlay::Result<Vec<(Vec<u32>, u64)>>>()?;
    let longest = prompts.iter().map(|(prompt, _)| prompt.len()).max().unwrap_or(0);
    let limit = config.max_position_embeddings;
    let context = args.context.unwrap_or_else(|| default_context(longest, args.tokens, limit));
    prompts.iter().try_for_each(|(prompt, _)| check_prompt(prompt.len(), context))?;

    let (adapter, device) = global.open()?;
    let load = LoadOptions {
        rows: longest.min(PROMPT_ROWS),
        cache: CacheSize { slots: prompts.len(), context },
        embedding: args.embedding.into(),
        precision: CachePrecision::Half,
    };
    let opened = started.elapsed().as_secs_f64();
    let mut sent = opened;
    let mut steps = Steps::new();
    let ahead = Box::new(Checkpoint::open(&args.model)?);
    let greedy = sampling.temperature == 0.0;
    let mut model = std::thread::scope(|scope| {
        // What is wrong is found by the loading as well, which then tells of it.
        scope.spawn(|| Llama::compile_ahead(&device, config.clone(), ahead, load, greedy));
        let model =
            Llama::load(&device, &args.model, load, &mut |done, all| steps.report("loading", done, all));
        sent = started.elapsed().as_secs_f64();
        model
    })?;
    steps.end();
    let load_seconds = started.elapsed().as_secs_f64();
    let tuning = tuning::complete(global, &adapter, &device, &mut model)?;

    let named = [generation.eos_token_id, config.eos_token_id].into_iter().find(|ids| !ids.is_empty());
    let settings = Settings {
        tokens: args.tokens,
        sampling,
        end_tokens: named.unwrap_or_default(),
        stop: args.stop.clone(),
        in_flight: args.in_flight as usize,
    };
    let parts = model.memory();
    let starts: Vec<_> = prompts.iter().map(|(prompt, seed)| Start { prompt, seed: *seed }).collect();
    let mut generator = Generator::batch(&mut model, &tokenizer, &starts, &settings)?;
    let texts = print_texts(&mut generator, prompts.len(), global.json)?;
    if generator.texts().iter().any(|text| text.finish() == Some(Finish::Context)) {
        let advice =
            if context < limit { "a longer --context holds more" } else { "this is the model's limit" };
        output::note(&format!("the text ends here: the context of {context} tokens is full; {advice}"));
    }
    let later = |tokens: usize| tokens.saturating_sub(1) as f64;
    let rows: Vec<RowReport> = (prompts.iter().zip(generator.texts()).zip(texts))
        .map(|(((prompt, seed), row), text)| RowReport {
            text: TextReport { prompt_token_ids: prompt.clone(), token_ids: row.token_ids().to_vec(), text },
            seed: *seed,
            tokens_per_second: later(row.token_ids().len()) / row.decode_time().as_secs_f64(),
        })
        .collect();
    let prompt_tokens: usize = prompts.iter().map(|(prompt, _)| prompt.len()).sum();
    let generated: f64 = rows.iter().map(|row| later(row.text.token_ids.len())).sum();
    let report = GenerateReport {
        first: rows[0].text.clone(),
        load_seconds,
        start: report::Start {
            open_seconds: opened,
            weights_seconds: sent - opened,
            kernels_seconds: load_seconds - sent,
            first_token_seconds: generator.prompt_time().as_secs_f64(),
        },
        prompt_tokens_per_second: prompt_tokens as f64 / generator.prompt_time().as_secs_f64(),
        tokens_per_second: if generated > 0.0 {
            generated / generator.decode_time().as_secs_f64()
        } else {
            f64::NAN
        },
        steps_in_flight: generator.in_flight(),
        memory: Memory {
            weights: parts.weights,
            cache: parts.cache,
            scratch: parts.scratch,
            peak: device.memory().peak,
        },
        tuning,
        adapter: device.name().to_owned(),
        rows: if rows.len() > 1 { rows } else { Vec::new() },
        host_embedding: args.embedding == Embedding::Host,
    };
    if global.json {
        output::print(&output::json(&report)?)?;
    } else {
        report.statistics().lines().for_each(output::note);
    }
    Ok(())
}

/// Each text to continue, with its seed.
fn prompts(args: &GenerateArgs) -> anyhow::Result<Vec<(String, u64)>> {
    let seed = args.sampling.seed;
    let Some(file) = &args.prompts else {
        let prompt = args.prompt.clone().unwrap_or_default();
        return Ok((0..args.batch).map(|row| (prompt.clone(), seed.wrapping_add(row))).collect());
    };
    Ok(lines(file)?.into_iter().map(|line| (line, seed)).collect())
}

/// The lines of a file that are not empty, 1 to 8 of them.
fn lines(file: &Path) -> exlay::Result<Vec<String>> {
    let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
    let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() || lines.len() > MOST_ROWS {
        let message = format!("{} prompts, one a line; 1 to {MOST_ROWS} run together", lines.len());
        return Err(Error::file(file, message));
    }
    Ok(lines)
}

/// Prints a single text as it comes, or several one after the other when all have ended; nothing with `json`.
fn print_texts(generator: &mut Generator<'_>, count: usize, json: bool) -> anyhow::Result<Vec<String>> {
    let mut texts = vec![String::new(); count];
    let streams = !json && count == 1;
    for piece in generator.by_ref() {
        let piece = piece?;
        if streams && !piece.text.is_empty() {
            output::print(&piece.text)?;
        }
        texts[piece.row] += &piece.text;
    }
    if json {
        return Ok(texts);
    }
    for (row, text) in texts.iter().enumerate() {
        if !streams {
            output::print(&format!("--- text {} of {count} ---\n{text}", row + 1))?;
        }
        if !text.ends_with('\n') {
            output::print("\n")?;
        }
    }
    Ok(texts)
}

/// What the model's own file asks for; greedy unless it says to sample, as in transformers.
fn model_settings(file: &GenerationConfig) -> SamplerSettings {
    let off = SamplerSettings::default();
    SamplerSettings {
        temperature: if file.do_sample == Some(true) { file.temperature.unwrap_or(1.0) } else { 0.0 },
        top_k: file.top_k.map_or(off.top_k, |count| count as usize),
        top_p: file.top_p.unwrap_or(off.top_p),
        min_p: file.min_p.unwrap_or(off.min_p),
        repetition_penalty: file.repetition_penalty.unwrap_or(off.repetition_penalty),
        seed: off.seed,
    }
}

/// Room for prompt and text, as far as the model goes.
pub(crate) fn default_context(prompt: usize, tokens: usize, limit: usize) -> usize {
    let needed = prompt.saturating_add(tokens).max(1).min(limit);
    needed.next_multiple_of(CONTEXT_STEP).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::parse;

    #[test]
    fn flags_win_over_the_model_and_are_checked() {
        let model = SamplerSettings { temperature: 0.8, top_k: 40, ..Default::default() };
        let settings = |flags: &str| {
            let args = parse::<GenerateArgs>(&format!("generate -m dir -p text{flags}")).unwrap();
            args.sampling.settings(model)
        };
        assert_eq!(settings("").unwrap(), model);
        let own = settings(" --temperature 0 --top-p 0.9 --seed 7").unwrap();
        assert_eq!(own, SamplerSettings { temperature: 0.0, top_k: 40, top_p: 0.9, seed: 7, ..model });
        for (flag, value) in [("--temperature", "-1"), ("--top-p", "1.5"), ("--min-p", "nan")] {
            let message = settings(&format!(" {flag} {value}")).unwrap_err().to_string();
            assert!(message.starts_with(flag), "{message}");
        }
    }

    #[test]
    fn a_model_samples_only_where_its_file_says_so() {
        let mut file = GenerationConfig { temperature: Some(0.6), top_k: Some(40), ..Default::default() };
        let greedy = SamplerSettings { temperature: 0.0, top_k: 40, ..Default::default() };
        assert_eq!(model_settings(&file), greedy);
        file.do_sample = Some(true);
        assert_eq!(model_settings(&file), SamplerSettings { temperature: 0.6, ..greedy });
        file.temperature = None;
        assert_eq!(model_settings(&file), SamplerSettings { temperature: 1.0, ..greedy });
    }

    #[test]
    fn a_context_holds_prompt_and_text_up_to_the_limit() {
        for ((prompt, tokens, limit), context) in [
            ((6, 64, 2048), 256),
            ((200, 57, 2048), 512),
            ((200, 56, 2048), 256),
            ((6, 64, 200), 200),
            ((6, usize::MAX, 512), 512),
            ((0, 0, 512), 256),
        ] {
            assert_eq!(default_context(prompt, tokens, limit), context, "{prompt} {tokens} {limit}");
        }
    }

    #[test]
    fn texts_may_begin_with_a_hyphen() {
        let args = parse::<GenerateArgs>("generate -m dir -p -x --stop -").unwrap();
        assert_eq!((args.prompt.as_deref(), args.stop), (Some("-x"), vec!["-".to_owned()]));
    }

    #[test]
    fn batches_count_seeds_up_and_files_of_prompts_do_not() {
        let args =
            parse::<GenerateArgs>("generate -m dir -p x --batch 3 --seed 18446744073709551615").unwrap();
        let seeds: Vec<u64> = prompts(&args).unwrap().into_iter().map(|(_, seed)| seed).collect();
        assert_eq!(seeds, [u64::MAX, 0, 1]);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("prompts.txt");
        std::fs::write(&file, "One\n\n two\r\n").unwrap();
        let args = GenerateArgs { prompts: Some(file.clone()), prompt: None, batch: 1, ..args };
        let expected = [("One".to_owned(), u64::MAX), (" two".to_owned(), u64::MAX)];
        assert_eq!(prompts(&args).unwrap(), expected);
        for text in ["", "a\n".repeat(9).as_str()] {
            std::fs::write(&file, text).unwrap();
            let message = prompts(&args).unwrap_err().to_string();
            assert!(message.contains("prompts.txt") && message.contains("1 to 8"), "{message}");
        }
        for line in ["generate -m dir", "generate -m dir -p x --prompts f", "generate -m dir -p x --batch 9"]
        {
            assert!(parse::<GenerateArgs>(line).is_err(), "{line}");
        }
    }
}
