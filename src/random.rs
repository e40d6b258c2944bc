//! Random numbers from a counter, for inputs of tests, synthetic models and rotations: the value at an index depends on the seed,
//! the stream's name and the index only, so that an oracle can make again the few rows it needs of a matrix too large
//! to keep. Not for sampling text, which `generate` has its own numbers for.

use std::ops::Range;

use half::f16;
use rayon::prelude::*;

/// A stream of numbers.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    key: u64,
}

/// The finalizer of splitmix64 (Steele, Lea and Flood, 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A bell-shaped number with deviation 1 from 64 bits.
fn bell(bits: u64) -> f32 {
    let sum: u64 = [0, 16, 32, 48].iter().map(|shift| (bits >> shift) & 0xffff).sum();
    // Four uniform numbers have the deviation √(4/12) of one's width.
    (sum as f32 / 65536.0 - 2.0) * 3.0_f32.sqrt()
}

impl Random {
    /// The stream called `name` of a seed.
    pub fn new(seed: u64, name: &str) -> Self {
        Self { key: name.bytes().fold(mix(seed ^ 0x5eed), |key, byte| mix(key ^ u64::from(byte))) }
    }

    /// 64 bits.
    pub fn bits(&self, index: u64) -> u64 {
        mix(self.key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number below `limit`, which is above 0.
    pub fn below(&self, index: u64, limit: usize) -> usize {
        (self.bits(index) % limit as u64) as usize
    }

    /// Bell-shaped around 0 with deviation 1.
    pub fn bell(&self, index: u64) -> f32 {
        bell(self.bits(index))
    }

    /// Bell-shaped around 0 with deviation 1; one in 64 is 16 times as large.
    pub fn value(&self, index: u64) -> f32 {
        let bits = self.bits(index);
        let value = bell(bits);
        if bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58 == 0 { 16.0 * value } else { value }
    }

    /// The first `count` values.
    pub fn values(&self, count: usize) -> Vec<f32> {
        (0..count as u64).into_par_iter().map(|index| self.value(index)).collect()
    }

    /// A weight: as [`Random::value`] with deviation 0.05, in half precision; one in 256 is subnormal.
    pub fn weight(&self, index: u64) -> f16 {
        let bits = self.bits(index);
        if bits >> 24 & 0xff == 0 {
            return f16::from_bits((bits as u16 & 0x83ff) | 1);
        }
        f16::from_f32(0.05 * self.value(index))
    }

    /// The weights of a range of indices.
    pub fn weights(&self, range: Range<u64>) -> Vec<f16> {
        range.into_par_iter().map(|index| self.weight(index)).collect()
    }

    /// The first `count` words.
    pub fn words(&self, count: usize) -> Vec<u32> {
        (0..count as u64).into_par_iter().map(|index| self.bits(index) as u32).collect()
    }

    /// 0 .. count in another order.
    pub fn permutation(&self, count: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count as u32).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last as u64, last + 1));
        }
        order
    }

    /// At most `most` of 0 .. count in ascending order: all, or the first, the last, each of `edges` that is
    /// below `count`, and others.
    pub fn sample(&self, count: usize, most: usize, edges: &[usize]) -> Vec<usize> {
        if count <= most {
            return (0..count).collect();
        }
        let mut chosen = vec![0, count - 1];
        chosen.extend(edges.iter().copied().filter(|&edge| edge < count));
        chosen.truncate(most);
        let others = most - chosen.len();
        chosen.extend((0..others as u64).map(|index| self.below(index, count)));
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_promised_spread() {
        let values = Random::new(1, "test").values(10_000);
        let outliers = values.iter().filter(|value| value.abs() > 4.0).count();
        assert!((50..300).contains(&outliers), "{outliers} of about 150");
        let usual: Vec<_> = values.iter().filter(|value| value.abs() <= 4.0).collect();
        let variance = usual.iter().map(|&&value| value * value).sum::<f32>() / usual.len() as f32;
        assert!((0.9..1.2).contains(&variance), "{variance}");
        assert_ne!(Random::new(2, "test").values(4), values[..4]);
        assert_ne!(Random::new(1, "other").values(4), values[..4]);
    }

    #[test]
    fn weights_are_finite_and_some_are_subnormal() {
        let weights = Random::new(1, "test").weights(0..4096);
        assert!(weights.iter().all(|weight| weight.is_finite()));
        assert!(weights.iter().any(|weight| weight.is_normal()));
        let subnormal = weights.iter().filter(|weight| !weight.is_normal()).count();
        assert!((4..40).contains(&subnormal), "{subnormal} of about 16");
    }

    #[test]
    fn samples_hold_both_ends_and_the_edges() {
        let random = Random::new(3, "sample");
        assert_eq!(random.sample(5, 64, &[]), [0, 1, 2, 3, 4]);
        let chosen = random.sample(1000, 64, &[127, 128]);
        assert!([0, 127, 128, 999].iter().all(|column| chosen.contains(column)));
        let mut order = random.permutation(33);
        order.sort_unstable();
        assert_eq!(order, (0..33).collect::<Vec<u32>>());
    }
}
