//! One linear through GPTQ with adaptive group scales: all on the device, one list of dispatches, no wait inside.
//!
//! For each group, from the current weights: the scales ([`super::scales`]), rounding with feedback inside the
//! group, packing, and the correction of all later rows. Then the packed matrix is read back, uploaded as a loader would
//! do it, decoded, and must give the quantizer's own weights bit by bit (ExLlamaV2 0.3.2).

use half::f16;

use super::hessian::PreparedHessian;
use super::scales::{ScaleRule, Scales};
use super::stages;
use super::weights::PreparedWeights;
use crate::gpu::{Buffer, CommandList, Device};
use crate::ops::gptq_group::{MOST_ROWS, Rounded, gptq_group};
use crate::ops::matmul_tn::{Product, Window, matmul_tn};
use crate::ops::pack::pack;
use crate::ops::scale_search::{GroupRows, ScaleSearch};
use crate::ops::{QuantMatrix, Tensor, dequantize, weight_error};
use crate::packing::{BLOCK_ROWS, Layout, PackedMatrix};
use crate::{Error, Result};

/// A linear after quantizing.
pub struct Quantized {
    /// As it is written to a file.
    pub matrix: PackedMatrix,
    /// √(tr ΔᵀHΔ / tr WᵀHW): the error of its output relative to the output, on the calibration rows; where the weights were
    /// fitted, Δ is what rounding adds to the fitted ones, and W are those of the model.
    pub rfn_error: f64,
    /// The largest difference between a weight and its decoded value.
    pub max_error: f32,
}

/// Device memory for one slab of columns.
pub(super) struct Slab<'a> {
    pub(super) original: &'a Tensor,
    column: usize,
    work: Tensor,
    codes: Buffer,
    errors: Tensor,
    pub(super) decoded: Buffer,
    words: Buffer,
    scales: Buffer,
}

impl<'a> Slab<'a> {
    fn new(
        device: &Device,
        name: &str,
        original: &'a Tensor,
        column: usize,
        layout: &Layout,
    ) -> Result<Self> {
        let (k, n) = (original.rows(), original.cols());
        let rows = most_rows(layout).min(MOST_ROWS);
        let label = |part: &str| format!("{name}.{part}");
        Ok(Self {
            original,
            column,
            work: Tensor::zeros(device, &label("work"), k, n)?,
            codes: device.alloc(&label("codes"), (4 * rows * n) as u64)?,
            errors: Tensor::zeros(device, &label("errors"), rows, n)?,
            decoded: device.alloc(&label("decoded"), (2 * k * n) as u64)?,
            words: device.alloc(&label("words"), (4 * layout.word_rows() * n) as u64)?,
            scales: device.alloc(&label("scales"), (layout.groups().len() * n / 2) as u64)?,
        })
    }

    fn rows(&self, piece: &Piece, rows: usize, bits: u32) -> GroupRows<'_> {
        let Piece { group, first, .. } = *piece;
        GroupRows { weights: &self.work, column: self.column, first, rows, group, bits }
    }
}

/// Rows of the largest group.
fn most_rows(layout: &Layout) -> usize {
    layout.groups().iter().map(|group| group.rows).max().unwrap_or(0)
}

/// Rows that are rounded by one dispatch: a group or part of one.
struct Piece {
    group: usize,
    first: usize,
    rows: usize,
    word: usize,
    opens_group: bool,
}

/// Cuts groups at [`MOST_ROWS`] and where a slab of the factor ends.
fn pieces(layout: &Layout, slab_rows: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut first, mut word) = (0, 0);
    for (group, &crate::packing::Group { bits, rows }) in layout.groups().iter().enumerate() {
        let (start, end) = (first, first + rows);
        while first < end {
            let rows = MOST_ROWS.min(end - first).min(slab_rows - first % slab_rows);
            pieces.push(Piece { group, first, rows, word, opens_group: first == start });
            first += rows;
            word += rows / BLOCK_ROWS * bits as usize;
        }
    }
    pieces
}

/// Quantizes a linear. `layout` covers all of its k rows; `bias` has one value per output.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ or the device cannot bind a part, [`Error::Numerical`] when something overflowed
/// or the packed matrix does not decode to what was meant; as [`CommandList::run`].
pub fn quantize(
    weights: &PreparedWeights,
    hessian: &PreparedHessian,
    layout: &Layout,
    bias: Option<&[f16]>,
    rule: ScaleRule,
) -> Result<Quantized> {
    let name = weights.name();
    if let Some(bias) = bias
        && bias.len() != weights.outputs
    {
        return Err(Error::shape(name, format!("a bias of {} for {} outputs", bias.len(), weights.outputs)));
    }
    let rounding = {
        let _stage = hessian.factor().device().stage(stages::ROUNDING)?;
        let rounding = Rounding::record(weights, hessian, layout, rule, true)?;
        rounding.list.run()?;
        rounding
    };
    let device = rounding.list.device();
    let _stage = device.stage(stages::PACKING)?;
    let Rounding { slabs, scales, columns, .. } = &rounding;
    let matrix = read_matrix(device, name, &scales.search, slabs, layout, hessian, padded(bias, *columns))?;
    let (weight_squared, max_error) = check(&matrix, slabs, name, hessian)?;
    let sums: Vec<f32> = device.read(&rounding.sums.0, 0, rounding.sums.1)?;
    let rfn_error = relative_error(&sums, weights, hessian, weight_squared)?;
    Ok(Quantized { matrix, rfn_error, max_error })
}

/// The dispatches that round a linear, and where they leave it.
pub(super) struct Rounding<'a> {
    pub(super) list: CommandList,
    pub(super) slabs: Vec<Slab<'a>>,
    scales: Scales,
    /// Columns of all slabs.
    columns: usize,
    /// Sums of squared errors: their memory and number.
    pub(super) sums: (Buffer, usize),
}

impl<'a> Rounding<'a> {
    /// Records them, with the words of the packed matrix if they are wanted.
    pub(super) fn record(
        weights: &'a PreparedWeights,
        hessian: &PreparedHessian,
        layout: &Layout,
        rule: ScaleRule,
        words: bool,
    ) -> Result<Self> {
        let name = weights.name();
        if hessian.k() != weights.k || layout.rows() != weights.k {
            let message =
                format!("{} rows, a Hessian of {}, groups of {}", weights.k, hessian.k(), layout.rows());
            return Err(Error::shape(name, message));
        }
        let device = weights.slabs[0].device().clone();
        let mut slabs = Vec::with_capacity(weights.slabs.len());
        let mut columns = 0;
        for original in &weights.slabs {
            slabs.push(Slab::new(&device, name, original, columns, layout)?);
            columns += original.cols();
        }
        let pieces = pieces(layout, hessian.factor().slab_rows());
        let (blocks, count) = (columns / 32, pieces.len() * columns / 32);
        let sums = device.alloc(&format!("{name}.sums"), 4 * count as u64)?;
        let widths: Vec<usize> = slabs.iter().map(|slab| slab.work.cols()).collect();
        let groups = (layout.groups().len(), most_rows(layout));
        let mut scales = Scales::new(&device, rule, &widths, groups, hessian)?;

        let mut list = CommandList::new(&device, format!("quantizing {name}"));
        for slab in &slabs {
            let bytes = (4 * slab.work.rows() * slab.work.cols()) as u64;
            list.copy(slab.original.buffer(), 0, slab.work.buffer(), 0, bytes)?;
        }
        for (index, piece) in pieces.iter().enumerate() {
            let group = layout.groups()[piece.group];
            if piece.opens_group {
                let rows: Vec<_> =
                    slabs.iter().map(|slab| slab.rows(piece, group.rows, group.bits)).collect();
                scales.record(&mut list, &rows, hessian)?;
            }
            let search = &scales.search;
            record_rounding(&mut list, search, &slabs, layout, piece, hessian, (&sums, index * blocks))?;
            for slab in slabs.iter().filter(|_| words) {
                let rows = slab.rows(piece, piece.rows, group.bits);
                let scales = (&slab.scales, piece.opens_group);
                pack(&mut list, search, &rows, &slab.codes, (&slab.words, piece.word), scales)?;
            }
        }
        Ok(Self { list, slabs, scales, columns, sums: (sums, count) })
    }
}

/// √(tr ΔᵀHΔ / tr WᵀHW) from the `sums` that rounding left; `weight_squared` is tr ΔᵀΔ.
pub(super) fn relative_error(
    sums: &[f32],
    weights: &PreparedWeights,
    hessian: &PreparedHessian,
    weight_squared: f64,
) -> Result<f64> {
    let squared: f64 = sums.iter().map(|&sum| f64::from(sum)).sum();
    if !squared.is_finite() || !weight_squared.is_finite() {
        let message = "an error is not finite; the Hessian is too ill-conditioned, use more calibration rows";
        return Err(Error::Numerical { place: weights.name().to_owned(), message: message.into() });
    }
    // Rounding errors scaled by U's diagonal sum up to tr Δᵀ(H + damping·I)Δ.
    let own = (squared - hessian.damping().amount * weight_squared).max(0.0);
    Ok(if weights.energy > 0.0 { (own / weights.energy).sqrt() } else { 0.0 })
}

fn padded(bias: Option<&[f16]>, columns: usize) -> Option<Vec<f16>> {
    bias.map(|bias| {
        let mut bias = bias.to_vec();
        bias.resize(columns, f16::ZERO);
        bias
    })
}

fn record_rounding(
    list: &mut CommandList,
    search: &ScaleSearch,
    slabs: &[Slab<'_>],
    layout: &Layout,
    piece: &Piece,
    hessian: &PreparedHessian,
    (sums, sum): (&Buffer, usize),
) -> Result<()> {
    let bits = layout.groups()[piece.group].bits;
    let (factor, factor_row) = hessian.factor().find(piece.first);
    for slab in slabs {
        let out = Rounded {
            codes: &slab.codes,
            errors: &slab.errors,
            decoded: &slab.decoded,
            sums,
            sum: sum + slab.column / 32,
        };
        gptq_group(list, search, &slab.rows(piece, piece.rows, bits), (factor, factor_row), &out)?;
    }
    for slab in slabs {
        let end = piece.first + piece.rows;
        if end < layout.rows() {
            let product = Product {
                a: Window { matrix: factor, row: factor_row, col: end },
                b: Window::whole(&slab.errors),
                c: Window { matrix: &slab.work, row: end, col: 0 },
                rows: piece.rows,
                m: layout.rows() - end,
                n: slab.work.cols(),
                alpha: -1.0,
                beta: 1.0,
                weights: None,
                upper: false,
            };
            matmul_tn(list, &product)?;
        }
    }
    Ok(())
}

fn read_matrix(
    device: &Device,
    name: &str,
    search: &ScaleSearch,
    slabs: &[Slab<'_>],
    layout: &Layout,
    hessian: &PreparedHessian,
    bias: Option<Vec<f16>>,
) -> Result<PackedMatrix> {
    let groups = layout.groups().len();
    let picked: Vec<[u32; 4]> = device.read(&search.picked, 0, groups)?;
    let q_scale_max: Vec<f16> = picked.iter().map(|group| f16::from_bits(group[1] as u16)).collect();
    if let Some(group) = q_scale_max.iter().position(|scale| !scale.is_finite()) {
        let message = format!(
            "the scale of group {group} exceeds half precision: the weights are too large or not finite"
        );
        return Err(Error::Numerical { place: name.to_owned(), message });
    }
    let columns: usize = slabs.iter().map(|slab| slab.work.cols()).sum();
    let mut q_weight = vec![0; layout.word_rows() * columns];
    let mut q_scale = vec![0; groups * columns / 8];
    for slab in slabs {
        let n = slab.work.cols();
        let words: Vec<u32> = device.read(&slab.words, 0, layout.word_rows() * n)?;
        place(&mut q_weight, columns, &words, n, slab.column);
        let scales: Vec<u32> = device.read(&slab.scales, 0, groups * n / 8)?;
        place(&mut q_scale, columns / 8, &scales, n / 8, slab.column / 8);
    }
    let mut q_invperm = vec![0; hessian.k()];
    for (row, &feature) in hessian.order().iter().enumerate() {
        q_invperm[feature as usize] = row as u32;
    }
    PackedMatrix::new(columns, layout.clone(), q_weight, q_scale, q_scale_max, q_invperm, bias)
}

/// Copies `part` [.., width] into the columns of `whole` [.., columns] from `first` on.
fn place(whole: &mut [u32], columns: usize, part: &[u32], width: usize, first: usize) {
    for (whole, part) in whole.chunks_exact_mut(columns).zip(part.chunks_exact(width)) {
        whole[first..first + width].copy_from_slice(part);
    }
}

/// Decodes the packed matrix on the device. Returns Σ (w − decoded)² and the largest |w − decoded|.
fn check(
    matrix: &PackedMatrix,
    slabs: &[Slab<'_>],
    name: &str,
    hessian: &PreparedHessian,
) -> Result<(f64, f32)> {
    let device = slabs[0].work.device();
    let mismatches = device.alloc(&format!("{name}.mismatches"), 4)?;
    let mut list = CommandList::new(device, format!("checking {name}"));
    let mut results = Vec::with_capacity(slabs.len());
    for slab in slabs {
        let (k, n) = (slab.work.rows(), slab.work.cols());
        let part = if n == matrix.n { None } else { Some(matrix.columns(slab.column..slab.column + n)) };
        let known: Vec<_> = hessian.permutation.get().cloned().into_iter().collect();
        let packed = QuantMatrix::upload(device, name, part.as_ref().unwrap_or(matrix), n, &known)?;
        hessian.permutation.get_or_init(|| packed.permutation().clone());
        let decoded = device.alloc(&format!("{name}.unpacked"), (2 * k * n) as u64)?;
        let tiles = k / 32 * (n / 32);
        let parts = device.alloc(&format!("{name}.weight errors"), (8 * tiles) as u64)?;
        let [columns] = packed.slabs() else {
            return Err(Error::shape(name, "packed words take more room than the float weights"));
        };
        dequantize::dequantize(&mut list, &packed, columns, &decoded)?;
        weight_error::weight_error(&mut list, slab.original, &decoded, &slab.decoded, &parts, &mismatches)?;
        results.push((parts, tiles));
    }
    list.run()?;
    let wrong: Vec<u32> = device.read(&mismatches, 0, 1)?;
    if wrong[0] != 0 {
        let message = format!(
            "{} pairs of packed weights do not decode to what the quantizer meant; the adapter or its driver computes wrongly, \
             try another (--adapter)",
            wrong[0]
        );
        return Err(Error::Numerical { place: name.to_owned(), message });
    }
    weight_errors(device, results)
}

/// Sum and largest of what [`weight_error`] left for some slabs: memory and number of tiles of each.
fn weight_errors(device: &Device, parts: Vec<(Buffer, usize)>) -> Result<(f64, f32)> {
    let (mut squared, mut largest) = (0.0, 0.0_f32);
    for (parts, tiles) in parts {
        for [sum, most] in device.read::<[f32; 2]>(&parts, 0, tiles)? {
            squared += f64::from(sum);
            largest = largest.max(most);
        }
    }
    Ok((squared, largest))
}
