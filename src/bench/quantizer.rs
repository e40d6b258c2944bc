//! The kernels of the quantizer, on a square matrix [k, n] of the layer's hidden size.

use std::cmp::Ordering;

use crate::Result;
use crate::gpu::{Buffer, CommandList, Device};
use crate::ops::Tensor;
use crate::ops::dot::{MOST_PARTS, dot};
use crate::ops::gather_rows::gather_rows;
use crate::ops::gptq_group::{Rounded, gptq_group};
use crate::ops::matmul_tn::{Product, Window, matmul_tn};
use crate::ops::pack::pack;
use crate::ops::scale_loss::{LossSearch, TRIED, scale_choose, scale_loss};
use crate::ops::scale_search::{GroupRows, ScaleSearch, column_max, scale_error, scale_pick};
use crate::ops::weight_error::weight_error;
use crate::reference::scale_search::STEPS;
use crate::selftest::{Case, Group, GroupStep, MatmulTn, Random};

use super::entry::{Entry, Layer};

/// Rows of a group.
const ROWS: usize = 128;

/// Width of its codes.
const BITS: u32 = 4;

/// All of them.
pub(super) fn entries(device: &Device, layer: Layer) -> Vec<Entry> {
    let size = layer.hidden;
    let mut entries = vec![hessian(device, layer.prompt, size), feedback(device, size), gathered(size)];
    entries.extend(GroupStep::ALL.map(|step| group(device, step, size)));
    entries.extend([losses(size), choice(size)]);
    entries.extend([difference(size), scalar(size)]);
    entries.extend(super::factor::entries(size));
    entries
}

fn random(list: &CommandList, name: &str, set: usize, rows: usize, cols: usize) -> Result<Tensor> {
    Tensor::upload(list.device(), name, &Random::new(set as u64, name).values(rows * cols), cols)
}

/// H += xᵀx over the rows of a prompt, above the diagonal.
fn hessian(device: &Device, rows: usize, size: usize) -> Entry {
    let case = MatmulTn { rows, m: size, n: size, weighted: false, add: true, upper: true };
    let (bytes, flops) = (4 * (rows * size + size * (size + 1)), rows * size * (size + 1));
    Entry::new(&[case.kernel(device)], case.shape(), bytes, Some(flops), move |list, sets| {
        for set in 0..sets {
            let (x, h) = (random(list, "x", set, rows, size)?, random(list, "h", set, size, size)?);
            let (x, c) = (Window::whole(&x), Window::whole(&h));
            let (m, n, alpha, beta) = (size, size, 1.0, 1.0);
            matmul_tn(list, &Product { a: x, b: x, c, rows, m, n, alpha, beta, weights: None, upper: true })?;
        }
        Ok(())
    })
}

/// The correction of a whole matrix by the errors of a group.
fn feedback(device: &Device, size: usize) -> Entry {
    let case = MatmulTn { rows: ROWS, m: size, n: size, weighted: false, add: true, upper: false };
    let (bytes, flops) = (8 * (ROWS + size) * size, 2 * ROWS * size * size);
    Entry::new(&[case.kernel(device)], case.shape(), bytes, Some(flops), move |list, sets| {
        for set in 0..sets {
            let (u, e) = (random(list, "u", set, ROWS, size)?, random(list, "errors", set, ROWS, size)?);
            let w = random(list, "w", set, size, size)?;
            let (a, b, c) = (Window::whole(&u), Window::whole(&e), Window::whole(&w));
            let (rows, m, n, alpha, beta) = (ROWS, size, size, -1.0, 1.0);
            matmul_tn(list, &Product { a, b, c, rows, m, n, alpha, beta, weights: None, upper: false })?;
        }
        Ok(())
    })
}

fn gathered(size: usize) -> Entry {
    let bytes = 8 * size * size + 4 * size;
    Entry::new(&["gather_rows"], format!("{size} x {size}"), bytes, None, move |list, sets| {
        for set in 0..sets {
            let x = random(list, "x", set, size, size)?;
            let order = list.device().upload("order", &Random::new(set as u64, "order").permutation(size))?;
            gather_rows(list, &x, &order, &Tensor::zeros(list.device(), "out", size, size)?)?;
        }
        Ok(())
    })
}

/// What the groups of one matrix share.
struct Matrix {
    weights: Tensor,
    decoded: Buffer,
    words: Buffer,
}

impl Matrix {
    fn new(device: &Device, size: usize, set: usize) -> Result<Self> {
        let values: Vec<f32> =
            Random::new(set as u64, "w").values(size * size).into_iter().map(|value| 0.05 * value).collect();
        Ok(Self {
            weights: Tensor::upload(device, "w", &values, size)?,
            decoded: device.alloc("decoded", 2 * (size * size) as u64)?,
            words: device.alloc("words", (size * size / 8 * BITS as usize) as u64)?,
        })
    }
}

/// Rows of an upper triangle with a diagonal around 1, for the group whose first row is `first`.
fn factor(device: &Device, size: usize, first: usize) -> Result<Tensor> {
    let random = Random::new(first as u64, "factor");
    let value = |at: usize| match (first + at / size).cmp(&(at % size)) {
        Ordering::Less => 0.05 * random.value(at as u64),
        Ordering::Equal => 0.7 + 0.6 * random.below(at as u64, 1000) as f32 / 1000.0,
        Ordering::Greater => 0.0,
    };
    Tensor::upload(device, "u", &(0..ROWS * size).map(value).collect::<Vec<_>>(), size)
}

/// One step for a group of a matrix; the steps before it run once, untimed.
fn group(device: &Device, step: GroupStep, size: usize) -> Entry {
    let case = Group { step, rows: ROWS, columns: size, bits: BITS };
    let (count, parts) = (ROWS * size, STEPS * (size / 32 * (ROWS / 32)).min(512));
    let (bytes, flops) = match step {
        GroupStep::ColumnMax => (4 * (count + size), None),
        GroupStep::ScaleError => (4 * (count + size + parts), None),
        GroupStep::ScalePick => (4 * (parts + STEPS + 4), None),
        // Weights, the group's triangle and scales; codes, errors and halves.
        GroupStep::GptqGroup => (14 * count + 4 * (ROWS * ROWS / 2 + size + size / 32), Some(ROWS * count)),
        GroupStep::Pack => (4 * (count + size) + count / 8 * BITS as usize + size / 2, None),
    };
    Entry::new(&[case.kernel(device)], case.shape(), bytes, flops, move |list, sets| {
        let device = list.device().clone();
        let mut before = CommandList::new(&device, "before the step that is timed");
        let groups = size / ROWS;
        let mut matrix = Matrix::new(&device, size, 0)?;
        for set in 0..sets {
            if set > 0 && set % groups == 0 {
                matrix = Matrix::new(&device, size, set)?;
            }
            let index = set % groups;
            let mut work = Work::new(&device, size, index)?;
            for earlier in GroupStep::ALL.into_iter().take_while(|&earlier| earlier != step) {
                work.add(&mut before, earlier, &matrix)?;
            }
            work.add(list, step, &matrix)?;
        }
        before.run()?;
        device.wait("the steps before")
    })
}

/// What rounding a group costs with all scales that are tried.
fn losses(size: usize) -> Entry {
    let (bytes, flops) = (4 * ROWS * (size + ROWS / 2) + 8 * TRIED * size, TRIED * 16 * ROWS * ROWS * size);
    Entry::new(&["scale_loss"], format!("[{ROWS}, {size}] {BITS}b"), bytes, Some(flops), move |list, sets| {
        let device = list.device().clone();
        let mut before = CommandList::new(&device, "before the step that is timed");
        for set in 0..sets {
            let (matrix, work) = (Matrix::new(&device, size, set)?, Work::new(&device, size, 0)?);
            let search = LossSearch::new(&device, size)?;
            column_max(&mut before, &work.search, &work.rows(&matrix))?;
            scale_loss(list, &work.search, &search, &work.rows(&matrix), (&work.factor, 0))?;
        }
        before.run()?;
        device.wait("the steps before")
    })
}

/// The choice among them.
fn choice(size: usize) -> Entry {
    let bytes = 4 * (TRIED + 2) * size;
    Entry::new(&["scale_choose"], format!("[{ROWS}, {size}] {BITS}b"), bytes, None, move |list, sets| {
        for _ in 0..sets {
            let search = ScaleSearch::new(list.device(), &[size], 1, ROWS)?;
            scale_choose(list, &search, &LossSearch::new(list.device(), size)?, 0, BITS)?;
        }
        Ok(())
    })
}

/// What a group has for itself.
struct Work {
    index: usize,
    search: ScaleSearch,
    factor: Tensor,
    codes: Buffer,
    errors: Tensor,
    sums: Buffer,
    scales: Buffer,
}

impl Work {
    fn new(device: &Device, size: usize, index: usize) -> Result<Self> {
        Ok(Self {
            index,
            search: ScaleSearch::new(device, &[size], 1, ROWS)?,
            factor: factor(device, size, index * ROWS)?,
            codes: device.alloc("codes", 4 * (ROWS * size) as u64)?,
            errors: Tensor::zeros(device, "errors", ROWS, size)?,
            sums: device.alloc("sums", (size / 8) as u64)?,
            scales: device.alloc("scales", (size / 2) as u64)?,
        })
    }

    fn rows<'a>(&self, matrix: &'a Matrix) -> GroupRows<'a> {
        let first = self.index * ROWS;
        GroupRows { weights: &matrix.weights, column: 0, first, rows: ROWS, group: 0, bits: BITS }
    }

    fn add(&mut self, list: &mut CommandList, step: GroupStep, matrix: &Matrix) -> Result<()> {
        let rows = self.rows(matrix);
        match step {
            GroupStep::ColumnMax => column_max(list, &self.search, &rows),
            GroupStep::ScaleError => scale_error(list, &mut self.search, &rows),
            GroupStep::ScalePick => scale_pick(list, &mut self.search, 0),
            GroupStep::GptqGroup => {
                let Self { codes, errors, sums, .. } = &*self;
                let out = Rounded { codes, errors, decoded: &matrix.decoded, sums, sum: 0 };
                gptq_group(list, &self.search, &rows, (&self.factor, 0), &out)
            }
            GroupStep::Pack => {
                let word = rows.first / 32 * BITS as usize;
                let scales = (&self.scales, true);
                pack(list, &self.search, &rows, &self.codes, (&matrix.words, word), scales)
            }
        }
    }
}

/// Two decoded matrices against the weights.
fn difference(size: usize) -> Entry {
    let (count, parts) = (size * size, 2 * (size / 32) * (size / 32));
    Entry::new(
        &["weight_error"],
        format!("{size} x {size}"),
        8 * count + 4 * parts,
        None,
        move |list, sets| {
            for set in 0..sets {
                let weights = random(list, "w", set, size, size)?;
                let halves = Random::new(set as u64, "decoded").weights(0..count as u64);
                let device = list.device();
                let (decoded, own) = (device.upload("decoded", &halves)?, device.upload("own", &halves)?);
                let (parts, mismatches) =
                    (device.alloc("parts", 4 * parts as u64)?, device.alloc("mismatches", 4)?);
                weight_error(list, &weights, &decoded, &own, &parts, &mismatches)?;
            }
            Ok(())
        },
    )
}

fn scalar(size: usize) -> Entry {
    let bytes = 4 * (2 * size * size + MOST_PARTS);
    Entry::new(&["dot"], format!("{size} x {size}"), bytes, Some(2 * size * size), move |list, sets| {
        for set in 0..sets {
            let (x, y) = (random(list, "x", set, size, size)?, random(list, "y", set, size, size)?);
            let parts = list.device().alloc("parts", 4 * MOST_PARTS as u64)?;
            dot(list, &x, (&y, 0), size, (&parts, 0))?;
        }
        Ok(())
    })
}
