//! Cases of `embed`.

use half::f16;

use super::case::boxed;
use super::{Case, Comparison, Fault, Random, Shapes, poisoned, run_list};
use crate::gpu::Device;
use crate::ops::{self, DenseMatrix};
use crate::{Result, reference};

/// A lookup of `rows` tokens in a table of [vocabulary, cols].
pub struct Embed {
    /// Rows of the table.
    pub vocabulary: usize,
    /// Values in a row, an even number.
    pub cols: usize,
    /// Tokens.
    pub rows: usize,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![Embed { vocabulary: 301, cols: 66, rows: 5 }],
        Shapes::Real => vec![
            Embed { vocabulary: 32000, cols: 4096, rows: 513 },
            // Past 4 GiB.
            Embed { vocabulary: 270_336, cols: 8192, rows: 513 },
        ],
    })
}

impl Case for Embed {
    fn kernel(&self, _: &Device) -> &'static str {
        "embed"
    }

    fn shape(&self) -> String {
        format!("{} of {} x {}", self.rows, self.vocabulary, self.cols)
    }

    fn bytes(&self) -> u64 {
        (2 * self.vocabulary * self.cols + 4 * (self.rows + 1) * self.cols) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { vocabulary, cols, rows } = self;
        let weights = Random::new(seed, "table");
        let row_of = |token: usize| weights.weights((token * cols) as u64..((token + 1) * cols) as u64);
        let table = DenseMatrix::upload(
            device,
            "table",
            vocabulary,
            cols,
            |range| {
                let mut halves = weights.weights((range.start * cols) as u64..(range.end * cols) as u64);
                if fault == Fault::OneWrong && range.start == 0 {
                    halves[cols / 2] = f16::from_bits(halves[cols / 2].to_bits() ^ 1);
                }
                Ok(halves)
            },
            None,
        )?;
        // Token 0 first (the fault's), the last, both sides of each cut, and others.
        let edges = table.slabs().iter().flat_map(|slab| [slab.first, slab.first + slab.rows - 1]);
        let others = Random::new(seed, "token");
        let tokens: Vec<u32> = [0, vocabulary - 1]
            .into_iter()
            .chain(edges)
            .chain((0..).map(|index| others.below(index, vocabulary)))
            .take(rows)
            .map(|token| token as u32)
            .collect();
        let token_buffer = device.upload("tokens", &tokens)?;
        let out = poisoned(device, "out", rows, cols)?;
        run_list(device, "embed", |list| ops::embed::embed(list, &table, &token_buffer, &out, rows))?;

        let got = out.read(rows + 1)?;
        let mut comparison = Comparison::new();
        for (&token, got) in tokens.iter().zip(got.chunks_exact(cols)) {
            let expected = reference::embed::embed(&row_of(token as usize), cols, &[0]);
            for (&got, &expected) in got.iter().zip(&expected) {
                comparison.exact(got, expected as f32);
            }
        }
        comparison.untouched(&got[rows * cols..]);
        Ok(comparison)
    }
}
