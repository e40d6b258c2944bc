//! Random numbers as a pure function of a counter: Philox4x32-10.
//!
//! There is no state to carry or to save. The number drawn at a step of a text depends on the seed and the step alone, so
//! neither the size of a batch nor the order of work changes a text. The function needs 32-bit products only, so
//! that a shader can compute the same numbers (`shaders/common/philox.wgsl`). Not for secrets.
//!
//! Source: Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), with
//! the known answers of its library, Random123.

/// Multipliers of the two halves of the counter.
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What is added to the key after each round: the golden ratio and the root of three less one.
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Four random words for `counter` under `key`.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let product = |i: usize| u64::from(MULTIPLIERS[i]) * u64::from(counter[2 * i]);
        let (a, b) = (product(0), product(1));
        let high = |product: u64| (product >> 32) as u32;
        counter = [high(b) ^ counter[1] ^ key[0], b as u32, high(a) ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    counter
}

/// A number in `[0, 1)` with 53 random bits for a step of a text.
pub fn uniform(seed: u64, step: u32) -> f64 {
    let words = philox([step, 0, 0, 0], [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(words[1]) << 32 | u64::from(words[0])) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // `kat_vectors` of Random123, lines "philox4x32 10".
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniform_depends_on_seed_and_step_and_is_uniform() {
        let x = uniform(1, 3);
        assert_eq!(x, uniform(1, 3));
        for other in [uniform(2, 3), uniform(1, 4), uniform(1 | 1 << 40, 3)] {
            assert_ne!(x, other);
        }
        let n = 20_000;
        let values: Vec<f64> = (0..n).map(|step| uniform(9, step)).collect();
        assert!(values.iter().all(|&x| (0.0..1.0).contains(&x)));
        let mean = values.iter().sum::<f64>() / f64::from(n);
        // The mean of n uniform numbers spreads by 0.2887/√n = 0.002; five of those.
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
