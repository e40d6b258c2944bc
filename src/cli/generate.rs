//! `exlay generate`: flags and result of a generation.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use exlay::formats::config::{GenerationConfig, LlamaConfig};
use exlay::formats::tokenizer::Tokenizer;
use exlay::generate::generator::check_prompt;
use exlay::generate::{Finish, Generator, SamplerSettings, Settings};
use exlay::model::{CachePrecision, CacheSize, Llama, LoadOptions};
use serde::Serialize;

use super::failure::Usage;
use super::progress::Steps;
use super::{Embedding, GlobalArgs, output, units};

/// Continue a prompt.
///
/// The text goes to stdout as it comes; times, speeds and memory go to stderr.
#[derive(Clone, Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Directory of the model, EXL2 or F16.
    #[arg(short = 'm', long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Text to continue.
    #[arg(short = 'p', long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: String,
    /// Most tokens to generate.
    #[arg(short = 't', long, value_name = "COUNT", default_value_t = 128)]
    pub(crate) tokens: usize,
    /// Most tokens of prompt and text together; as many as they need if not given.
    #[arg(long, value_name = "TOKENS")]
    pub(crate) context: Option<usize>,
    /// Where rows of the embedding table are looked up.
    #[arg(long, default_value = "device")]
    pub(crate) embedding: Embedding,
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
    let prompt = tokenizer.encode(&args.prompt, true)?;
    let limit = config.max_position_embeddings;
    let context = args.context.unwrap_or_else(|| default_context(prompt.len(), args.tokens, limit));
    check_prompt(prompt.len(), context)?;

    let device = global.open_device()?;
    let load = LoadOptions {
        rows: prompt.len().min(PROMPT_ROWS),
        cache: CacheSize { slots: 1, context },
        embedding: args.embedding.into(),
        precision: CachePrecision::Half,
    };
    let mut steps = Steps::new();
    let mut model =
        Llama::load(&device, &args.model, load, &mut |done, all| steps.report("loading", done, all))?;
    steps.end();
    let load_seconds = started.elapsed().as_secs_f64();

    let named = [generation.eos_token_id, config.eos_token_id].into_iter().find(|ids| !ids.is_empty());
    let settings = Settings {
        tokens: args.tokens,
        sampling,
        end_tokens: named.unwrap_or_default(),
        stop: args.stop.clone(),
    };
    let parts = model.memory();
    let mut generator = Generator::new(&mut model, &tokenizer, &prompt, &settings)?;
    let mut text = String::new();
    for piece in generator.by_ref() {
        let piece = piece?;
        if !global.json && !piece.text.is_empty() {
            output::print(&piece.text)?;
        }
        text += &piece.text;
    }
    if !global.json && !text.ends_with('\n') {
        output::print("\n")?;
    }
    if generator.finish() == Some(Finish::Context) {
        let advice =
            if context < limit { "a longer --context holds more" } else { "this is the model's limit" };
        output::note(&format!("the text ends here: the context of {context} tokens is full; {advice}"));
    }
    let generated = generator.token_ids().len();
    let report = GenerateReport {
        token_ids: generator.token_ids().to_vec(),
        text,
        load_seconds,
        prompt_tokens_per_second: prompt.len() as f64 / generator.prompt_time().as_secs_f64(),
        tokens_per_second: generated.saturating_sub(1) as f64 / generator.decode_time().as_secs_f64(),
        prompt_token_ids: prompt,
        memory: Memory {
            weights: parts.weights,
            cache: parts.cache,
            scratch: parts.scratch,
            peak: device.memory().peak,
        },
        adapter: device.name().to_owned(),
    };
    if global.json {
        output::print(&output::json(&report)?)?;
    } else {
        report.statistics().lines().for_each(output::note);
    }
    Ok(())
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

/// What a generation has to say beside its text.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GenerateReport {
    /// The prompt as the model saw it.
    pub(crate) prompt_token_ids: Vec<u32>,
    /// The generated tokens, an end token included.
    pub(crate) token_ids: Vec<u32>,
    /// The generated text, cut before a stop string.
    pub(crate) text: String,
    /// From the first file opened to the model ready on the device.
    pub(crate) load_seconds: f64,
    /// Prompt tokens over the time to the first logits.
    pub(crate) prompt_tokens_per_second: f64,
    /// Generated tokens but the first over the time after the first; `null` in JSON if there were no others.
    pub(crate) tokens_per_second: f64,
    /// Device memory.
    pub(crate) memory: Memory,
    /// Name of the adapter.
    pub(crate) adapter: String,
}

/// Bytes on the device by part.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// Weights of the model.
    pub(crate) weights: u64,
    /// Key/value cache.
    pub(crate) cache: u64,
    /// Activations and everything else.
    pub(crate) scratch: u64,
    /// Most held at once, loading included.
    pub(crate) peak: u64,
}

impl Memory {
    /// The parts in words.
    pub(crate) fn words(&self) -> String {
        let [weights, cache, scratch, peak] =
            [self.weights, self.cache, self.scratch, self.peak].map(units::bytes);
        format!("weights {weights}, cache {cache}, scratch {scratch}, peak {peak}")
    }
}

impl GenerateReport {
    /// The lines for stderr.
    pub(crate) fn statistics(&self) -> String {
        let speed = |tokens: usize, rate: f64| {
            let rate = if rate.is_finite() { format!(", {rate:.1} tokens/s") } else { String::new() };
            format!("{tokens} tokens{rate}")
        };
        format!(
            "adapter     {}\nload        {}\nprompt      {}\ngeneration  {}\n\
             memory      {}\n",
            self.adapter,
            units::seconds(self.load_seconds),
            speed(self.prompt_token_ids.len(), self.prompt_tokens_per_second),
            speed(self.token_ids.len(), self.tokens_per_second),
            self.memory.words(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{output, tests::parse};
    use insta::assert_snapshot;

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
        assert_eq!((args.prompt.as_str(), args.stop), ("-x", vec!["-".to_owned()]));
    }

    fn report() -> GenerateReport {
        GenerateReport {
            prompt_token_ids: vec![1, 99, 7],
            token_ids: vec![12, 2],
            text: " a \"fox\"\n".into(),
            load_seconds: 0.4218,
            prompt_tokens_per_second: 1234.56,
            tokens_per_second: 88.125,
            memory: Memory { weights: 6_832_128, cache: 2 << 20, scratch: 1_300_000, peak: 11 << 20 },
            adapter: "llvmpipe".into(),
        }
    }

    #[test]
    fn the_statistics_as_text() {
        assert_snapshot!(report().statistics(), @r"
        adapter     llvmpipe
        load        0.42 s
        prompt      3 tokens, 1234.6 tokens/s
        generation  2 tokens, 88.1 tokens/s
        memory      weights 6.5 MiB, cache 2.0 MiB, scratch 1.2 MiB, peak 11.0 MiB
        ");
        let single = GenerateReport { tokens_per_second: f64::NAN, ..report() }.statistics();
        assert!(single.contains("\ngeneration  2 tokens\n"), "{single}");
    }

    #[test]
    fn the_report_as_json() {
        assert_snapshot!(output::json(&report()).unwrap(), @r#"
        {
          "prompt_token_ids": [
            1,
            99,
            7
          ],
          "token_ids": [
            12,
            2
          ],
          "text": " a \"fox\"\n",
          "load_seconds": 0.4218,
          "prompt_tokens_per_second": 1234.56,
          "tokens_per_second": 88.125,
          "memory": {
            "weights": 6832128,
            "cache": 2097152,
            "scratch": 1300000,
            "peak": 11534336
          },
          "adapter": "llvmpipe"
        }
        "#);
    }
}
