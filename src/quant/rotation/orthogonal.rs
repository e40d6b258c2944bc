//! A random orthogonal matrix that is cheap to apply: random signs, then a Hadamard matrix as large as the size allows,
//! beside a small dense matrix for the odd factor that is left. What is rotated by it is not known here.
//!
//! With size = 2^a·m, m odd: Q = D·(H ⊗ S), D the signs, H the Hadamard matrix of 2^a rows over 2^(a/2) in Sylvester's order,
//! S a random orthogonal matrix of m rows. Hadamard matrices spread outliers evenly, and better than dense random ones
//! (Ashkboos et al., "QuaRot", 2024).

use std::f64::consts::TAU;

use rayon::prelude::*;

use crate::random::Random;
use crate::{Error, Result};

/// Largest odd factor: its matrix is dense, takes m² values and m³ steps to make. Widths that EXL2 can store, multiples of 32
/// up to 65536, have no larger one.
const MOST_DENSE: usize = 2048;

/// An orthogonal matrix Q of some size, the same for the same seed and name.
#[derive(Clone, Debug)]
pub struct Orthogonal {
    /// ±2^(-a/2) for each input.
    signs: Vec<f64>,
    /// S, row-major [odd, odd]; empty where `odd` is 1.
    dense: Vec<f64>,
    odd: usize,
}

impl Orthogonal {
    /// The matrix of `size` rows called `name` of a seed.
    ///
    /// # Errors
    /// [`Error::Shape`] for a size of 0, or with an odd factor above 2048.
    pub fn new(size: usize, seed: u64, name: &str) -> Result<Self> {
        let odd = odd_factor(size);
        if size == 0 || odd > MOST_DENSE {
            let message = format!("size {size} has the odd factor {odd}; up to {MOST_DENSE} are possible");
            return Err(Error::shape("rotation", message));
        }
        let scale = ((size / odd) as f64).sqrt().recip();
        let random = Random::new(seed, &format!("{name} signs"));
        let sign = |index| if random.bits(index) >> 63 == 0 { scale } else { -scale };
        let signs = (0..size as u64).map(sign).collect();
        let dense = match odd {
            1 => Vec::new(),
            _ => random_orthogonal(odd, &Random::new(seed, &format!("{name} dense"))),
        };
        Ok(Self { signs, dense, odd })
    }

    /// Rows, and columns.
    pub fn size(&self) -> usize {
        self.signs.len()
    }

    /// How the matrix of a size is made, such as `hadamard 64 x orthogonal 9`.
    pub fn method(size: usize) -> String {
        let odd = odd_factor(size);
        match (size / odd, odd) {
            (hadamard, 1) => format!("hadamard {hadamard}"),
            (1, odd) => format!("orthogonal {odd}"),
            (hadamard, odd) => format!("hadamard {hadamard} x orthogonal {odd}"),
        }
    }

    /// x ← x·Q for a row x of [`Orthogonal::size`] values; the same as x ← Qᵀ·x for a column. Takes size·(a + m) steps.
    pub fn rotate(&self, x: &mut [f64]) {
        debug_assert_eq!(x.len(), self.size());
        x.iter_mut().zip(&self.signs).for_each(|(x, sign)| *x *= sign);
        let mut half = self.odd;
        while half < x.len() {
            for pair in x.chunks_exact_mut(2 * half) {
                let (low, high) = pair.split_at_mut(half);
                low.iter_mut().zip(high).for_each(|(low, high)| (*low, *high) = (*low + *high, *low - *high));
            }
            half *= 2;
        }
        if self.odd > 1 {
            let mut product = vec![0.0; self.odd];
            for part in x.chunks_exact_mut(self.odd) {
                product.fill(0.0);
                for (x, row) in part.iter().zip(self.dense.chunks_exact(self.odd)) {
                    product.iter_mut().zip(row).for_each(|(sum, s)| *sum += x * s);
                }
                part.copy_from_slice(&product);
            }
        }
    }
}

/// The largest odd divisor; 1 of 0.
fn odd_factor(size: usize) -> usize {
    if size == 0 { 1 } else { size >> size.trailing_zeros() }
}

/// Orthonormal rows [size, size] of normal numbers: the modified Gram-Schmidt process, twice, since once leaves an error that
/// grows with the condition of what it starts from.
fn random_orthogonal(size: usize, random: &Random) -> Vec<f64> {
    let mut rows: Vec<f64> =
        (0..(size * size) as u64).into_par_iter().map(|index| normal(random, index)).collect();
    for _ in 0..2 {
        for at in 0..size {
            let (done, rest) = rows.split_at_mut((at + 1) * size);
            let row = &mut done[at * size..];
            let length = dot(row, row).sqrt();
            row.iter_mut().for_each(|value| *value /= length);
            // Each row is changed by one thread, so that their number changes nothing.
            rest.par_chunks_exact_mut(size).with_min_len(1 + 4096 / size).for_each(|other| {
                let share = dot(row, other);
                other.iter_mut().zip(&*row).for_each(|(other, value)| *other -= share * value);
            });
        }
    }
    rows
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A normal number (Box and Muller, 1958).
fn normal(random: &Random, index: u64) -> f64 {
    // In (0, 1]: a logarithm follows.
    let uniform = |index| ((random.bits(index) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    (-2.0 * uniform(2 * index).ln()).sqrt() * (TAU * uniform(2 * index + 1)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows `wanted` of Q.
    fn rows(q: &Orthogonal, wanted: impl Iterator<Item = usize>) -> Vec<Vec<f64>> {
        let row = |at: usize| {
            let mut row = vec![0.0; q.size()];
            row[at] = 1.0;
            q.rotate(&mut row);
            row
        };
        wanted.map(row).collect()
    }

    #[test]
    fn rows_are_orthonormal_and_the_transpose_is_the_inverse() {
        for size in [1, 3, 40, 64, 96, 128, 576] {
            let q = Orthogonal::new(size, 7, "test").unwrap();
            let dense = rows(&q, 0..size);
            for (i, a) in dense.iter().enumerate() {
                for (j, b) in dense.iter().enumerate() {
                    let expected = f64::from(u8::from(i == j));
                    assert!((dot(a, b) - expected).abs() < 1e-13, "{size}: {i} {j} {}", dot(a, b));
                }
            }
            let x: Vec<f64> = (0..size as u64).map(|index| normal(&Random::new(1, "x"), index)).collect();
            let mut rotated = x.clone();
            q.rotate(&mut rotated);
            for (column, rotated) in rotated.iter().enumerate() {
                let expected: f64 = x.iter().zip(&dense).map(|(x, row)| x * row[column]).sum();
                assert!((rotated - expected).abs() < 1e-12, "{size}: linear");
            }
            for (x, row) in x.iter().zip(&dense) {
                assert!((x - dot(&rotated, row)).abs() < 1e-12, "{size}: back");
            }
        }
    }

    /// The Hadamard part by its definition: entry (i, j) is the parity of the bits that i and j share.
    #[test]
    fn a_power_of_two_is_signs_times_hadamard() {
        let q = Orthogonal::new(32, 3, "test").unwrap();
        let mut negative = 0;
        for (i, row) in rows(&q, 0..32).iter().enumerate() {
            let sign = row[0].signum();
            negative += usize::from(sign < 0.0);
            for (j, value) in row.iter().enumerate() {
                let parity = if (i & j).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
                assert!((value - sign * parity / 32_f64.sqrt()).abs() < 1e-15, "{i} {j}");
            }
        }
        assert!((4..29).contains(&negative), "{negative} of 32 rows have the other sign");
    }

    #[test]
    fn a_large_odd_factor_works_and_a_larger_one_is_refused() {
        let q = Orthogonal::new(2 * 523, 1, "test").unwrap();
        let some = rows(&q, (0..1046).step_by(61));
        for (i, a) in some.iter().enumerate() {
            for (j, b) in some.iter().enumerate() {
                assert!((dot(a, b) - f64::from(u8::from(i == j))).abs() < 1e-12, "{i} {j}");
            }
        }
        for size in [0, 2 * 2049, 65535] {
            assert!(Orthogonal::new(size, 1, "test").unwrap_err().to_string().contains("odd factor"));
        }
        for size in (32..=1 << 16).step_by(32) {
            assert!(odd_factor(size) <= MOST_DENSE, "{size}");
        }
    }

    #[test]
    fn seed_and_name_tell_matrices_apart_and_the_number_of_threads_does_not() {
        let made = |seed, name| rows(&Orthogonal::new(576, seed, name).unwrap(), [0, 5].into_iter());
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let first = one.install(|| made(1, "a"));
        assert_eq!(first, three.install(|| made(1, "a")));
        assert!(first != made(2, "a") && first != made(1, "b"));
        assert_eq!(
            [576, 64, 9].map(Orthogonal::method),
            ["hadamard 64 x orthogonal 9", "hadamard 64", "orthogonal 9"].map(str::to_owned)
        );
    }
}
