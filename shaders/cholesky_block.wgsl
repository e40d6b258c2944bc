// The Cholesky factor of a block M = Rᵀ·R on the diagonal of a matrix, inverted: inverse = R⁻¹, upper triangular.
//
// matrix: f32, rows of `pitch` values; the block [size, size] begins at index `at`, is read above its diagonal and becomes the
// identity. inverse: f32 [64, 64], zeros below the diagonal. pivots: f32; from `first` on, the squares of R's diagonal before
// their roots are taken; one that is not positive counts as 1 afterwards. One workgroup. Step s takes row s from the rows
// below it, in the block right of the diagonal and in L⁻¹ = inverseᵀ, which grows in the half that the block does not need.
// Rows are scaled at the end, so that a step needs one barrier.
// Oracle: reference/cholesky.rs.
const SIZE: u32 = 64u;
const PARTS: u32 = 4u;

struct Params { size: u32, pitch: u32, at: u32, first: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> matrix: array<f32>;
@group(0) @binding(1) var<storage, read_write> inverse: array<f32>;
@group(0) @binding(2) var<storage, read_write> pivots: array<f32>;

var<workgroup> block: array<f32, SIZE * SIZE>;

fn usable(pivot: f32) -> f32 {
    return select(1.0, pivot, pivot > 0.0);
}

@compute @workgroup_size(64, 4)
fn main(@builtin(local_invocation_id) lane: vec3<u32>) {
    let column = lane.x;
    for (var row = lane.y; row < p.size; row += PARTS) {
        var value = 0.0;
        if (column < p.size && column >= row) {
            value = matrix[p.at + row * p.pitch + column];
        }
        block[row * SIZE + column] = value;
    }
    workgroupBarrier();
    for (var step = 0u; step < p.size; step++) {
        let part = 1.0 / usable(block[step * SIZE + step]);
        let right = select(block[step * SIZE + column], 1.0, column == step);
        for (var row = step + 1u + lane.y; row < p.size; row += PARTS) {
            if (column <= step || column >= row) {
                block[row * SIZE + column] -= part * block[step * SIZE + row] * right;
            }
        }
        workgroupBarrier();
    }
    for (var row = lane.y; row < SIZE; row += PARTS) {
        // inverse[column, row] for a row of L⁻¹, transposed.
        var value = 0.0;
        if (row < p.size && column <= row) {
            let pivot = block[row * SIZE + row];
            let root = inverseSqrt(usable(pivot));
            value = root * select(block[row * SIZE + column], 1.0, column == row);
            if (column == row) {
                pivots[p.first + row] = pivot;
            }
        }
        inverse[column * SIZE + row] = value;
        if (row < p.size && column < p.size) {
            matrix[p.at + row * p.pitch + column] = select(0.0, 1.0, column == row);
        }
    }
}
