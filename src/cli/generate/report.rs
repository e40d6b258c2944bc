//! What `exlay generate` says of its texts: the object for `--json` and the lines for stderr.

use serde::Serialize;

use crate::cli::tuning::TuningReport;
use crate::cli::units;

/// What a generation has to say beside its text. What belongs to a text is that of the first one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GenerateReport {
    /// The first text.
    #[serde(flatten)]
    pub(crate) first: TextReport,
    /// From the first file opened to the model ready on the device.
    pub(crate) load_seconds: f64,
    /// What of that was spent on what.
    pub(crate) start: Start,
    /// Prompt tokens of all texts over the time to the first tokens.
    pub(crate) prompt_tokens_per_second: f64,
    /// Generated tokens of all texts but their first ones over the time after those; `null` in JSON if there were no
    /// others.
    pub(crate) tokens_per_second: f64,
    /// Steps submitted ahead of the token that is read, that one's included.
    pub(crate) steps_in_flight: usize,
    /// Device memory.
    pub(crate) memory: Memory,
    /// How products are shared out.
    pub(crate) tuning: TuningReport,
    /// Name of the adapter.
    pub(crate) adapter: String,
    /// Each text of a batch; not there for a single one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rows: Vec<RowReport>,
    /// The embedding is on the host.
    #[serde(skip)]
    pub(crate) host_embedding: bool,
}

/// Seconds of a start, one after the other.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Start {
    /// Tokenizer and device.
    pub(crate) open_seconds: f64,
    /// Planning, allocating and sending the weights.
    pub(crate) weights_seconds: f64,
    /// Waiting after that for kernels that are built meanwhile.
    pub(crate) kernels_seconds: f64,
    /// From then to the first tokens: the prompts.
    pub(crate) first_token_seconds: f64,
}

impl Start {
    /// The parts in words, up to the prompts.
    fn words(&self) -> String {
        let [open, weights, kernels] =
            [self.open_seconds, self.weights_seconds, self.kernels_seconds].map(units::seconds);
        format!("{open} to open, {weights} for weights, {kernels} more for kernels")
    }
}

/// One text.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TextReport {
    /// The prompt as the model saw it.
    pub(crate) prompt_token_ids: Vec<u32>,
    /// The generated tokens, an end token included.
    pub(crate) token_ids: Vec<u32>,
    /// The generated text, cut before a stop string.
    pub(crate) text: String,
}

/// One text of a batch.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RowReport {
    /// The text.
    #[serde(flatten)]
    pub(crate) text: TextReport,
    /// Seed of its random numbers.
    pub(crate) seed: u64,
    /// Its tokens but the first over the time from that to its last.
    pub(crate) tokens_per_second: f64,
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

fn speed(tokens: usize, rate: f64) -> String {
    let rate = if rate.is_finite() { format!(", {rate:.1} tokens/s") } else { String::new() };
    format!("{tokens} tokens{rate}")
}

impl GenerateReport {
    /// The lines for stderr.
    pub(crate) fn statistics(&self) -> String {
        let total = |tokens: fn(&TextReport) -> usize| -> usize {
            if self.rows.is_empty() {
                return tokens(&self.first);
            }
            self.rows.iter().map(|row| tokens(&row.text)).sum()
        };
        let rows = self.rows.iter().enumerate().map(|(index, row)| {
            format!("text {:<7}{}\n", index + 1, speed(row.text.token_ids.len(), row.tokens_per_second))
        });
        let steps = match (self.steps_in_flight, self.host_embedding) {
            (1, true) => "1 step in flight, for the embedding on the host must know each token".to_owned(),
            (1, false) => "1 step in flight".to_owned(),
            (count, _) => format!("{count} steps in flight"),
        };
        format!(
            "adapter     {}\nload        {} ({})\nprompt      {}, {} to the first token\n{}generation  {}, {steps}\n\
             memory      {}\ntuning      {}\n",
            self.adapter,
            units::seconds(self.load_seconds),
            self.start.words(),
            speed(total(|text| text.prompt_token_ids.len()), self.prompt_tokens_per_second),
            units::seconds(self.start.first_token_seconds),
            rows.collect::<String>(),
            speed(total(|text| text.token_ids.len()), self.tokens_per_second),
            self.memory.words(),
            self.tuning.words(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output;
    use insta::assert_snapshot;

    fn report() -> GenerateReport {
        GenerateReport {
            first: TextReport {
                prompt_token_ids: vec![1, 99, 7],
                token_ids: vec![12, 2],
                text: " a \"fox\"\n".into(),
            },
            load_seconds: 0.4218,
            start: Start {
                open_seconds: 0.1,
                weights_seconds: 0.3018,
                kernels_seconds: 0.02,
                first_token_seconds: 0.0625,
            },
            prompt_tokens_per_second: 1234.56,
            tokens_per_second: 88.125,
            steps_in_flight: 3,
            memory: Memory { weights: 6_832_128, cache: 2 << 20, scratch: 1_300_000, peak: 11 << 20 },
            tuning: TuningReport::default(),
            adapter: "llvmpipe".into(),
            rows: vec![],
            host_embedding: false,
        }
    }

    /// Two texts.
    fn batch() -> GenerateReport {
        let one = report();
        let row = |seed| RowReport { text: one.first.clone(), seed, tokens_per_second: 40.5 };
        GenerateReport { rows: vec![row(7), row(8)], ..one }
    }

    #[test]
    fn the_statistics_as_text() {
        assert_snapshot!(report().statistics(), @r"
        adapter     llvmpipe
        load        0.42 s (0.10 s to open, 0.30 s for weights, 0.02 s more for kernels)
        prompt      3 tokens, 1234.6 tokens/s, 0.06 s to the first token
        generation  2 tokens, 88.1 tokens/s, 3 steps in flight
        memory      weights 6.5 MiB, cache 2.0 MiB, scratch 1.2 MiB, peak 11.0 MiB
        tuning      default
        ");
        let single = GenerateReport { tokens_per_second: f64::NAN, ..report() }.statistics();
        assert!(single.contains("\ngeneration  2 tokens, 3 steps in flight\n"), "{single}");
        let host = GenerateReport { steps_in_flight: 1, host_embedding: true, ..report() }.statistics();
        assert!(host.contains(", 1 step in flight, for the embedding on the host"), "{host}");
        assert_snapshot!(batch().statistics(), @r"
        adapter     llvmpipe
        load        0.42 s (0.10 s to open, 0.30 s for weights, 0.02 s more for kernels)
        prompt      6 tokens, 1234.6 tokens/s, 0.06 s to the first token
        text 1      2 tokens, 40.5 tokens/s
        text 2      2 tokens, 40.5 tokens/s
        generation  4 tokens, 88.1 tokens/s, 3 steps in flight
        memory      weights 6.5 MiB, cache 2.0 MiB, scratch 1.2 MiB, peak 11.0 MiB
        tuning      default
        ");
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
          "start": {
            "open_seconds": 0.1,
            "weights_seconds": 0.3018,
            "kernels_seconds": 0.02,
            "first_token_seconds": 0.0625
          },
          "prompt_tokens_per_second": 1234.56,
          "tokens_per_second": 88.125,
          "steps_in_flight": 3,
          "memory": {
            "weights": 6832128,
            "cache": 2097152,
            "scratch": 1300000,
            "peak": 11534336
          },
          "tuning": {
            "source": "default",
            "file": null,
            "seconds": 0.0,
            "products": []
          },
          "adapter": "llvmpipe"
        }
        "#);
        let value = serde_json::to_value(batch()).unwrap();
        let row = &value["rows"][1];
        assert_eq!((row["seed"].as_u64(), row["token_ids"][0].as_u64()), (Some(8), Some(12)));
        assert_eq!(value["token_ids"][1].as_u64(), Some(2), "the first text stands where a single one does");
    }
}
