//! All rows, or all columns, of a matrix changed one by one in double precision, on all cores and in place. Each is changed by
//! one thread alone, so that the result does not depend on their number.

use rayon::prelude::*;

/// Columns that are changed by one thread after another: a cache line of rows is read whole, and fits into the cache as doubles.
const COLUMNS: usize = 64;

/// Values between one column and the next, so that columns of a power of two do not compete for the same cache lines.
const GAP: usize = 8;

/// Changes each row of a matrix [.., width].
pub(super) fn each_row(values: &mut [f32], width: usize, change: impl Fn(&mut [f64]) + Sync) {
    values.par_chunks_exact_mut(width).for_each_init(Vec::new, |wide, row| {
        wide.clear();
        wide.extend(row.iter().map(|&value| f64::from(value)));
        change(wide);
        row.iter_mut().zip(wide).for_each(|(value, wide)| *value = *wide as f32);
    });
}

/// Changes each column of a matrix [.., width].
pub(super) fn each_column(values: &mut [f32], width: usize, change: impl Fn(&mut [f64]) + Sync) {
    let height = values.len() / width;
    let stride = height + GAP;
    let blocks = width.div_ceil(COLUMNS);
    let mut blocks: Vec<Vec<&mut [f32]>> = (0..blocks).map(|_| Vec::with_capacity(height)).collect();
    for row in values.chunks_exact_mut(width) {
        blocks.iter_mut().zip(row.chunks_mut(COLUMNS)).for_each(|(block, part)| block.push(part));
    }
    blocks.into_par_iter().for_each_init(Vec::new, |wide, mut block| {
        let columns = block.first().map_or(0, |part| part.len());
        wide.clear();
        wide.resize(columns * stride, 0.0);
        for (at, part) in block.iter().enumerate() {
            let column = wide.iter_mut().skip(at).step_by(stride);
            column.zip(part.iter()).for_each(|(wide, &value)| *wide = f64::from(value));
        }
        wide.chunks_exact_mut(stride).for_each(|column| change(&mut column[..height]));
        for (at, part) in block.iter_mut().enumerate() {
            let column = wide.iter().skip(at).step_by(stride);
            part.iter_mut().zip(column).for_each(|(value, wide)| *value = *wide as f32);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x[i] ← x[i] + i·x[0]
    fn shear(x: &mut [f64]) {
        let first = x[0];
        x.iter_mut().enumerate().for_each(|(i, x)| *x += i as f64 * first);
    }

    #[test]
    fn rows_and_columns_are_changed_each_on_its_own() {
        // More columns than a block, and not a multiple of it.
        let (height, width) = (3, 2 * COLUMNS + 5);
        let matrix: Vec<f32> = (0..height * width).map(|i| i as f32).collect();
        let (mut by_row, mut by_column) = (matrix.clone(), matrix.clone());
        each_row(&mut by_row, width, shear);
        each_column(&mut by_column, width, shear);
        for row in 0..height {
            for column in 0..width {
                let at = row * width + column;
                assert_eq!(by_row[at], matrix[at] + column as f32 * matrix[row * width], "{row} {column}");
                assert_eq!(by_column[at], matrix[at] + row as f32 * matrix[column], "{row} {column}");
            }
        }
    }
}
