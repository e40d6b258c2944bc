//! Choosing tokens: every way of cutting, equal scores, and what no row chooses.

use exlay::gpu::{CommandList, Tier};
use exlay::ops::sample::{Choice, Logits, RowStart, SampleState, SamplerSettings, choice_offset, sample};
use exlay::selftest::{Case, Fault, Sample};

use crate::support::{check, device};

fn hot(temperature: f32) -> SamplerSettings {
    SamplerSettings { temperature, seed: 3, ..Default::default() }
}

fn case(vocabulary: usize, settings: SamplerSettings, spread: f32) -> Sample {
    Sample { vocabulary, rows: 1, ks: 1, steps: 3, settings, spread }
}

#[test]
fn all_sizes_and_parts() {
    let greedy = SamplerSettings::default();
    for (vocabulary, rows, ks) in
        [(1, 1, 1), (2, 2, 2), (31, 3, 4), (2047, 1, 8), (2048, 2, 16), (2049, 5, 1)]
    {
        for settings in [greedy, hot(0.7), SamplerSettings { top_k: 5, top_p: 0.81, ..hot(1.0) }] {
            let case = Sample { vocabulary, rows, ks, steps: 3, settings, spread: 1.0 };
            if vocabulary > 2 {
                check(&case);
            } else {
                assert!(case.run(&device(Tier::Plain, true), 1, Fault::None).unwrap().passed());
            }
        }
    }
}

/// The same choices as the oracle's over many settings, scores and seeds; nearly none is left to rounding.
#[test]
fn every_way_of_choosing() {
    let device = device(Tier::Plain, false);
    let mut compared = 0;
    let mut choices = 0;
    for (index, temperature) in [0.05, 0.5, 1.0, 1.7, 30.0].into_iter().enumerate() {
        for top_k in [0, 1, 2, 50, 4000, 100_000] {
            for (top_p, min_p) in
                [(1.0, 0.0), (0.1003, 0.0), (0.9007, 0.0), (0.9993, 0.05), (1.0, 0.3), (1.0, 1.0)]
            {
                for spread in [3.0, 0.01, -1.0, -0.001] {
                    let penalty = if top_k == 50 { 1.2 } else { 1.0 };
                    let seed = (index * 1000 + choices) as u64;
                    let settings = SamplerSettings {
                        temperature,
                        top_k,
                        top_p,
                        min_p,
                        repetition_penalty: penalty,
                        seed,
                    };
                    let comparison = case(6007, settings, spread).run(&device, seed, Fault::None).unwrap();
                    assert!(comparison.passed(), "{settings:?}, spread {spread}: {comparison:?}");
                    // Of three steps the row is in use for two: two values each, one for the third, one for the position.
                    choices += 2;
                    compared += comparison.compared() as usize - 2;
                }
            }
        }
    }
    assert!(compared > 2 * choices * 97 / 100, "{compared} of {}", 2 * choices);
}

#[test]
fn real_vocabularies_and_equal_scores() {
    for settings in [hot(1.0), SamplerSettings { top_k: 1000, top_p: 0.8995, min_p: 0.01, ..hot(0.9) }] {
        for spread in [2.5, -0.001] {
            let case = case(128_256, settings, spread);
            let comparison = case.run(&device(Tier::Plain, false), 1, Fault::None).unwrap();
            assert!(comparison.passed() && comparison.compared() >= 4, "{comparison:?}");
        }
    }
}

/// Scores, how they are chosen from, and what is.
fn choose(scores: &[f32], settings: SamplerSettings) -> Choice {
    let device = device(Tier::Plain, false);
    let state = SampleState::new(&device, 1, scores.len()).unwrap();
    state.set(&[RowStart { settings, history: &[], context: 8 }]).unwrap();
    let partial = device.upload("scores", scores).unwrap();
    let positions = device.upload("positions", &[3_u32]).unwrap();
    let tokens = device.upload("tokens", &[0_u32]).unwrap();
    let mut list = CommandList::new(&device, "test");
    let logits = Logits { partial: &partial, ks: 1, cols: scores.len() };
    let greedy = settings.temperature == 0.0;
    sample(&mut list, logits, &state, &positions, &tokens, 1, greedy).unwrap();
    list.run().unwrap();
    let choice = Choice::from_word(device.read(state.choices(), choice_offset(1, 0), 1).unwrap()[0]);
    let position: u32 = device.read(&positions, 0, 1).unwrap()[0];
    assert_eq!(position, if choice == Choice::NotFinite { u32::MAX } else { 4 });
    choice
}

#[test]
fn ties_go_to_the_lowest_token_and_zeros_are_equal() {
    let greedy = SamplerSettings::default();
    assert_eq!(choose(&[1.0, 3.0, 3.0, 2.0], greedy), Choice::Token(1));
    assert_eq!(choose(&[-1.0, -0.0, 0.0], greedy), Choice::Token(1));
    let first = SamplerSettings { top_k: 1, ..hot(1.0) };
    assert_eq!(choose(&[-1.0, -0.0, 0.0], first), Choice::Token(1));
    let mut long = vec![-2.0; 5000];
    (long[4999], long[2500]) = (7.5, 7.5);
    assert_eq!(choose(&long, greedy), Choice::Token(2500));
    assert_eq!(choose(&long, first), Choice::Token(2500));
}

#[test]
fn extreme_scores_do_not_break_the_arithmetic() {
    for temperature in [f32::MIN_POSITIVE, 1.0, 1e30] {
        assert_eq!(
            choose(&[-f32::MAX, f32::MAX], SamplerSettings { top_k: 1, ..hot(temperature) }),
            Choice::Token(1)
        );
    }
    assert_eq!(choose(&[-f32::MAX, f32::MAX], hot(1e-3)), Choice::Token(1));
    let strict = SamplerSettings { top_p: f32::MIN_POSITIVE, min_p: 1.0, ..hot(1.0) };
    assert_eq!(choose(&[1.0, 2.0, 2.0], strict), Choice::Token(1));
}

#[test]
fn scores_that_are_not_finite_choose_nothing() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for settings in [SamplerSettings::default(), hot(1.0)] {
            assert_eq!(choose(&[0.0, bad, 1.0], settings), Choice::NotFinite, "{bad}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = device(Tier::Plain, false);
    assert!(SampleState::new(&device, 9, 10).is_err());
    assert!(SampleState::new(&device, 1, 1 << 22).is_err());
    let state = SampleState::new(&device, 1, 10).unwrap();
    let start = |history| RowStart { settings: SamplerSettings::default(), history, context: 8 };
    assert!(state.set(&[start(&[10])]).unwrap_err().to_string().contains("10"));
    assert!(state.set(&[start(&[]), start(&[])]).is_err());
    let [partial, positions, tokens] = [("scores", 10), ("positions", 1), ("tokens", 1)]
        .map(|(label, n)| device.alloc(label, 4 * n).unwrap());
    let mut list = CommandList::new(&device, "test");
    for (ks, cols, rows) in [(3, 10, 1), (1, 9, 1), (1, 10, 2), (2, 10, 1)] {
        let logits = Logits { partial: &partial, ks, cols };
        assert!(sample(&mut list, logits, &state, &positions, &tokens, rows, true).is_err());
    }
    assert!(list.is_empty());
}
