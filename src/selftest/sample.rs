//! Cases of `sample_*`: several steps of several rows, each choice against the oracle's.

use super::case::boxed;
use super::compare::ROUNDOFF;
use super::{Case, Comparison, Fault, POISON, Random, Shapes, run_list};
use crate::Result;
use crate::gpu::Device;
use crate::ops::sample::{
    Choice, Logits, RING, RowStart, SampleState, SamplerSettings, choice_offset, sample,
};
use crate::reference::sample::{Chosen, Sampler};

/// Choices of `rows` rows, the second of which is not in use, at some steps over the same scores.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Tokens to choose from.
    pub vocabulary: usize,
    /// Rows of the batch.
    pub rows: usize,
    /// Parts that the scores come in.
    pub ks: usize,
    /// Steps.
    pub steps: u32,
    /// How to choose; row r's seed is r more.
    pub settings: SamplerSettings,
    /// Deviation of the scores; below 0 they are multiples of 0.5 too, with many equal ones.
    pub spread: f32,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let hot = SamplerSettings { temperature: 0.8, seed: 5, ..Default::default() };
    let cuts = SamplerSettings { top_k: 40, top_p: 0.9, min_p: 0.02, ..hot };
    let penalty = 1.3;
    let case = |vocabulary, rows, ks, settings| {
        let steps = if rows > 4 { 5 } else { 9 };
        Sample { vocabulary, rows, ks, steps, settings, spread: 2.0 }
    };
    let greedy = SamplerSettings::default();
    boxed(match shapes {
        Shapes::Small => vec![
            case(5003, 3, 1, SamplerSettings { repetition_penalty: penalty, ..greedy }),
            case(5003, 3, 4, SamplerSettings { repetition_penalty: penalty, ..hot }),
            case(2048, 1, 2, SamplerSettings { min_p: 0.1, ..hot }),
            case(4097, 2, 1, SamplerSettings { top_k: 3, ..hot }),
            case(3001, 8, 1, cuts),
        ],
        Shapes::Real => vec![
            case(128_256, 8, 1, greedy),
            case(128_256, 8, 2, SamplerSettings { repetition_penalty: penalty, ..hot }),
            case(256_000, 1, 16, SamplerSettings { top_p: 0.95, ..hot }),
            case(128_256, 8, 1, cuts),
        ],
    })
}

impl Sample {
    /// Scores [ks, rows, vocabulary + 3] and their sums [rows, vocabulary].
    fn scores(&self, seed: u64) -> (Vec<f32>, Vec<f32>) {
        let (vocabulary, cols) = (self.vocabulary, self.vocabulary + 3);
        let random = Random::new(seed, "scores");
        let step = if self.spread < 0.0 { 0.5 } else { 0.0 };
        let parts: Vec<f32> = (0..(self.ks * self.rows * cols) as u64)
            .map(|index| {
                let value = self.spread.abs() * random.value(index).clamp(-6.0, 6.0);
                if step > 0.0 { (value / step).round() * step } else { value }
            })
            .collect();
        let stride = self.rows * cols;
        let sums = (0..self.rows).flat_map(|row| (0..vocabulary).map(move |token| row * cols + token));
        let sums = sums.map(|at| {
            let mut level: Vec<f32> = (0..self.ks).map(|part| parts[part * stride + at]).collect();
            while level.len() > 1 {
                level = level.chunks(2).map(|pair| pair[0] + pair[1]).collect();
            }
            level[0]
        });
        let sums = sums.collect();
        (parts, sums)
    }

    fn in_use(&self, row: usize) -> bool {
        row != 1 || self.rows == 1
    }

    fn sampler(&self, row: usize) -> Sampler {
        let SamplerSettings { temperature, top_k, top_p, min_p, repetition_penalty, seed } = self.settings;
        Sampler { temperature, top_k, top_p, min_p, repetition_penalty, seed: seed + row as u64 }
    }

    /// False where rounding may decide. A weight e^−x errs by (6 + 7x)·2^-24 of itself: three roundings of x, and 3 + 2x
    /// units in the last place by WGSL's table for the exponential; sums are shares of two of those and of steps of
    /// 2^-42. The limit of min-p is rounded twice.
    fn clear(&self, chosen: &Chosen) -> bool {
        let steps = self.vocabulary as f64 * 2.0_f64.powi(-40);
        let share = 2.0 * (6.0 + 7.0 * chosen.mean_distance) * ROUNDOFF + steps;
        let limit = f64::from(self.settings.min_p).max(1e-30);
        chosen.share_margin > share && chosen.min_p_margin > 8.0 * (1.0 - limit.ln()) * ROUNDOFF
    }
}

impl Case for Sample {
    fn kernel(&self, _: &Device) -> &'static str {
        match self.settings {
            SamplerSettings { temperature: 0.0, .. } => "sample_greedy",
            SamplerSettings { repetition_penalty, .. } if repetition_penalty > 1.0 => "sample_scores",
            SamplerSettings { top_k: 0, min_p, .. } if min_p > 0.0 => "sample_weights",
            SamplerSettings { top_k, top_p: 1.0, .. } if top_k > 0 => "sample_order",
            _ => "sample_choose",
        }
    }

    fn shape(&self) -> String {
        format!("{} rows of {} x {}", self.rows, self.ks, self.vocabulary)
    }

    fn bytes(&self) -> u64 {
        (4 * self.rows * self.vocabulary * (self.ks + 7)) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { vocabulary, rows, ks, steps, settings, .. } = self;
        let cols = vocabulary + 3;
        let (mut parts, sums) = self.scores(seed);
        if fault == Fault::OneWrong {
            parts[vocabulary / 2] += 200.0;
        }
        let partial = device.upload("scores", &parts)?;
        let prompt: Vec<u32> =
            (0..7).map(|i| Random::new(seed, "prompt").below(i, vocabulary) as u32).collect();
        // Room for all steps but the last of the first row.
        let context = |row: usize| 100 + steps as usize - if row == 0 && steps > 2 { 2 } else { 0 };
        let starts: Vec<RowStart<'_>> = (0..rows)
            .map(|row| RowStart {
                settings: SamplerSettings { seed: settings.seed + row as u64, ..settings },
                history: &prompt,
                context: context(row),
            })
            .collect();
        let state = SampleState::new(device, rows, vocabulary)?;
        state.set(&starts)?;
        let begin: Vec<u32> = (0..rows).map(|row| if self.in_use(row) { 99 } else { u32::MAX }).collect();
        let positions = device.upload("positions", &begin)?;
        let tokens = device.upload("tokens", &vec![POISON; rows])?;

        let mut comparison = Comparison::new();
        let mut histories = vec![prompt; rows];
        let logits = Logits { partial: &partial, ks, cols };
        let greedy = settings.temperature == 0.0;
        for step in 0..steps {
            run_list(device, self.kernel(device), |list| {
                sample(list, logits, &state, &positions, &tokens, rows, greedy)
            })?;
            let words: Vec<u32> =
                device.read(state.choices(), choice_offset(rows, u64::from(step % RING)), rows)?;
            let inputs: Vec<u32> = device.read(&tokens, 0, rows)?;
            for row in 0..rows {
                let used = self.in_use(row) && 99 + (step as usize) < context(row);
                let (true, Choice::Token(token)) = (used, Choice::from_word(words[row])) else {
                    let expected = if used { Choice::NotFinite } else { Choice::Unused };
                    let found = Choice::from_word(words[row]);
                    comparison.value(if found == expected && !used { 0.0 } else { f32::NAN }, 0.0, 0.0);
                    continue;
                };
                let scores = &sums[row * vocabulary..(row + 1) * vocabulary];
                let chosen = self.sampler(row).choose(scores, &histories[row], step);
                if self.clear(&chosen) {
                    comparison.value(token as f32, f64::from(chosen.token), 0.0);
                    comparison.value(inputs[row] as f32, f64::from(chosen.token), 0.0);
                }
                histories[row].push(token.min(vocabulary as u32 - 1));
            }
        }
        let end: Vec<u32> = device.read(&positions, 0, rows)?;
        for (row, &position) in end.iter().enumerate() {
            let last = 99 + steps;
            let expected = if self.in_use(row) && (last as usize) < context(row) { last } else { u32::MAX };
            comparison.value(if position == expected { 0.0 } else { f32::NAN }, 0.0, 0.0);
            if !self.in_use(row) {
                comparison.untouched(&device.read::<f32>(&tokens, 4 * row as u64, 1)?);
            }
        }
        Ok(comparison)
    }
}
