//! Cases of `attention_decode`, `attention_join` and `kv_write`, which a decode step runs one after the other.

mod inputs;

use half::f16;
use rayon::prelude::*;

use self::inputs::Exact;
use super::case::boxed;
use super::softmax::{Seen, gather};
use super::{Case, Comparison, Fault, POISON, Row, Shapes, fused, poisoned, run_list};
use crate::Result;
use crate::gpu::{Arithmetic, Device};
use crate::ops::PagedCache;
use crate::ops::activation::{Activation, Partial};
use crate::ops::attention_decode::{Cut, Decode, OwnKeys, Projections, attention_decode, cut};
use crate::ops::attention_join::attention_join;
use crate::ops::cache::{CachePrecision, PAGE, RowState};
use crate::ops::kv_write::kv_write;
use crate::ops::residual_norm::Left;
use crate::ops::rope::RopeTable;
use crate::reference::cache_write::Geometry;

/// Attention of some rows from the partial sums of their queries, keys and values, over a cache whose pages lie in another
/// order and which holds no numbers from the rows' positions on.
pub struct AttentionDecode {
    /// The rows. With new keys those in use are of different slots; with stored ones, a slot's are at positions in a row.
    pub rows: Vec<Row>,
    /// Slots of the cache.
    pub slots: usize,
    /// Pages of a slot.
    pub pages_per_slot: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Values in a head, a multiple of 8.
    pub dim: usize,
    /// Positions that a row sees at most.
    pub window: Option<usize>,
    /// Element format of the cache.
    pub precision: CachePrecision,
    /// Sums that the product left, a power of two.
    pub sums: usize,
    /// Whether `kv_write` stores the rows' keys and values first.
    pub own: OwnKeys,
    /// Arithmetic of the result.
    pub form: Arithmetic,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let half = CachePrecision::Half;
    let case = |rows, slots, pages_per_slot, (heads, kv_heads, dim), own| AttentionDecode {
        rows,
        slots,
        pages_per_slot,
        heads,
        kv_heads,
        dim,
        window: None,
        precision: half,
        sums: 4,
        own,
        form: Arithmetic::Single,
    };
    boxed(match shapes {
        Shapes::Small => {
            let rows = vec![Row::at(1, 300), Row::IDLE, Row::at(0, 0), Row::at(2, 255)];
            let eight =
                (0..8).map(|row| if row == 3 { Row::IDLE } else { Row::at(row, 255 - 30 * row) }).collect();
            vec![
                case(rows, 3, 2, (14, 2, 64), OwnKeys::New),
                // So many rows and heads that a context is one split.
                AttentionDecode { form: Arithmetic::Fixed, ..case(eight, 8, 1, (128, 128, 8), OwnKeys::New) },
                AttentionDecode {
                    precision: CachePrecision::Single,
                    ..case(
                        (0..7).map(|row| Row::at(0, 252 + row)).collect(),
                        1,
                        2,
                        (4, 1, 24),
                        OwnKeys::Stored,
                    )
                },
            ]
        }
        Shapes::Real => vec![
            case(vec![Row::at(0, 4095)], 1, 16, (64, 8, 128), OwnKeys::New),
            case((0..8).map(|row| Row::at(row, 2047 - row)).collect(), 8, 8, (64, 8, 128), OwnKeys::New),
            case(vec![Row::at(0, 2048)], 1, 16, (32, 32, 128), OwnKeys::New),
            case(vec![Row::at(0, 32_767)], 1, 128, (32, 8, 128), OwnKeys::New),
            case((0..7).map(|row| Row::at(0, 2041 + row)).collect(), 1, 8, (32, 4, 64), OwnKeys::Stored),
        ],
    })
}

impl AttentionDecode {
    fn cut(&self) -> Cut {
        cut(self.rows.len(), self.heads, self.kv_heads, self.pages_per_slot * PAGE)
    }

    fn splits(&self) -> usize {
        self.cut().splits
    }

    fn geometry(&self) -> Geometry {
        let &Self { pages_per_slot, kv_heads, dim, .. } = self;
        Geometry { page: PAGE, kv_heads, dim, pages_per_slot }
    }

    /// Where the values of a head at a position begin in the cache.
    fn place(&self, pages: &[u32], slot: usize, head: usize, position: usize) -> usize {
        let page = pages[slot * self.pages_per_slot + position / PAGE] as usize;
        ((page * self.kv_heads + head) * PAGE + position % PAGE) * self.dim
    }

    fn read(&self, cache: &PagedCache) -> Result<[Vec<f32>; 2]> {
        match self.precision {
            CachePrecision::Half => Ok(cache
                .read::<u16>()?
                .map(|part| part.into_par_iter().map(|bits| f16::from_bits(bits).to_f32()).collect())),
            CachePrecision::Single => cache.read(),
        }
    }

    /// The rows' own keys or values in the cache are near the exact ones, and everything else is as it was.
    fn compare_cache(
        &self,
        pages: &[u32],
        got: &[f32],
        before: &[f32],
        exact: &[f64],
        errors: &[f64],
    ) -> Comparison {
        let mut comparison = Comparison::new();
        let mut expected = before.to_vec();
        let used = self.rows.iter().enumerate().filter_map(|(row, at)| Some((row, at.slot, at.position?)));
        for (row, slot, position) in used {
            for head in 0..self.kv_heads {
                let to = self.place(pages, slot, head, position);
                for i in 0..self.dim {
                    let from = (row * self.kv_heads + head) * self.dim + i;
                    // Rounding to halves errs by half a step, which is never below that of the smallest halves.
                    let step = match self.precision {
                        CachePrecision::Half => {
                            (exact[from].abs() + errors[from]) / 2048.0 + 2.0_f64.powi(-25)
                        }
                        CachePrecision::Single => 0.0,
                    };
                    comparison.value(got[to + i], exact[from], errors[from] + step);
                    expected[to + i] = got[to + i];
                }
            }
        }
        got.iter().zip(&expected).for_each(|(&got, &expected)| comparison.exact(got, expected));
        comparison
    }
}

impl Case for AttentionDecode {
    fn kernel(&self, _: &Device) -> &'static str {
        // All that are needed run; joining is nothing but a division for a single split.
        match (self.own, self.splits()) {
            (OwnKeys::Stored, _) => "kv_write",
            (OwnKeys::New, 1) => "attention_decode",
            (OwnKeys::New, _) => "attention_join",
        }
    }

    fn shape(&self) -> String {
        let Self { rows, slots, pages_per_slot, heads, kv_heads, dim, window, precision, sums, own, form } =
            self;
        let window = window.map_or(String::new(), |window| format!(", window {window}"));
        let own = if *own == OwnKeys::Stored { ", stored before" } else { "" };
        format!(
            "{} x {heads}/{kv_heads} heads of {dim} in {sums} sums, {slots} x {} positions of {} bits, {} splits{window}{own}, {form}",
            rows.len(),
            pages_per_slot * PAGE,
            8 * precision.bytes(),
            self.splits()
        )
    }

    fn bytes(&self) -> u64 {
        let positions = (self.slots * self.pages_per_slot + 1) * PAGE;
        let cache = 2 * self.precision.bytes() * positions * self.kv_heads * self.dim;
        let table = 4 * self.pages_per_slot * PAGE * self.dim;
        let row = self.sums * self.columns().1 + self.heads * (self.dim + self.splits() * (self.dim + 2));
        (cache + table + 4 * (self.rows.len() + 1) * row) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { pages_per_slot, heads, kv_heads, dim, window, sums, own, form, .. } = self;
        let (rows, cols) = (self.rows.len(), heads * dim);
        let sound = self.inputs(seed);
        let exact = self.exact(&sound);
        let mut inputs = self.inputs(seed);
        if fault == Fault::OneWrong {
            self.spoil(&mut inputs, &exact);
        }
        let cache = self.upload(device, &inputs)?;
        let row_slots: Vec<u32> = self.rows.iter().map(|row| row.slot as u32).collect();
        let state = RowState {
            positions: device.upload("positions", &self.positions())?,
            slots: device.upload("slots", &row_slots)?,
        };
        let ([_, key, value], columns) = self.columns();
        let partial = Partial::new(device, inputs.partial.len())?;
        device.write(partial.buffer(), 0, &inputs.partial)?;
        let (group, orders) = fused::orders(device, cols, 1, seed)?;
        let rope = RopeTable::new(device, &inputs.frequencies, 1.0, pages_per_slot * PAGE)?;
        let splits = poisoned(device, "splits", rows, heads * self.splits() * (dim + 2))?;
        let x = Activation::new(device, form, (rows + 1) * form.row_words(cols))?;
        let words = form.row_words(cols);
        device.write(x.buffer(), 0, &vec![POISON; (rows + 1) * words])?;
        let decode = Decode { heads, rows, window, cache: &cache, state: &state, splits: &splits };
        let left = Left { partial: &partial, sums, columns };
        let from = Projections { left, key: key.start, value: value.start, rope: &rope };
        run_list(device, self.kernel(device), |list| {
            if own == OwnKeys::Stored {
                kv_write(list, &decode, &from)?;
            }
            attention_decode(list, &decode, &from, own)?;
            attention_join(list, &decode, &group, &x)
        })?;

        let [keys, values] = self.read(&cache)?;
        let Exact { rows: wanted, errors } = &exact;
        let pages = &inputs.pages;
        let mut comparison = self.compare_cache(pages, &keys, &inputs.caches[0], &wanted.keys, &errors.keys);
        comparison.merge(&self.compare_cache(
            pages,
            &values,
            &inputs.caches[1],
            &wanted.values,
            &errors.values,
        ));

        // The attention is to be that over the cache as the oracle has it, with the rows' own entries as they were stored.
        let seen_by = |slot: usize, position: usize| {
            [(&keys, &sound.caches[0]), (&values, &sound.caches[1])].map(|(stored, before)| {
                let mut seen = gather(self.geometry(), before, pages, slot, position);
                let stored = gather(self.geometry(), stored, pages, slot, position);
                let from = self.written_from(slot);
                for head in 0..kv_heads {
                    let own = (head * (position + 1) + from) * dim..(head + 1) * (position + 1) * dim;
                    seen[own.clone()].copy_from_slice(&stored[own]);
                }
                seen
            })
        };
        let stored: Vec<f32> = device.read(x.buffer(), 0, (rows + 1) * words)?;
        let comparisons = self.rows.par_iter().enumerate().map(|(row, &Row { slot, position })| {
            let mut comparison = Comparison::new();
            let Some(position) = position else {
                comparison.untouched(&stored[row * words..(row + 1) * words]);
                return Ok(comparison);
            };
            let [keys, values] = seen_by(slot, position);
            let seen = Seen {
                query: &wanted.queries[row * cols..(row + 1) * cols],
                slack: &errors.queries[row * cols..(row + 1) * cols],
                keys: &keys,
                values: &values,
                heads,
                kv_heads,
                position,
                window,
                splits: self.splits(),
                // At most half the positions of a tile one after the other, then the 16 groups.
                additions: self.cut().length / 2 + 16,
                stored: 0.0,
            };
            let expected = seen.expected();
            fused::compare(&mut comparison, &x, cols, row, |i| expected[orders[0][i] as usize])?;
            Ok(comparison)
        });
        for one in comparisons.collect::<Result<Vec<_>>>()? {
            comparison.merge(&one);
        }
        comparison.untouched(&stored[rows * words..]);
        let left = splits.read(rows + 1)?;
        comparison.untouched(&left[rows * heads * self.splits() * (dim + 2)..]);
        Ok(comparison)
    }
}
