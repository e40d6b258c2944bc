// `matmul` on matrix units: y[r, first + n] = units[r] · Σ_k x[r, k]·w[n, k] (+ bias[n]) (+ y[r, first + n]).
//
// x and units come from `halve`: halves [rows, X_PLANES, k], a second plane holding what the first leaves; w: halves
// [n, W_PLANES, k], with two of which `bias` has the units of its rows, and second planes meet first ones only; k a multiple of 8;
// bias, y and immediates as in `gemv`; UPPER leaves tiles out whose columns all lie left of the diagonal. `generated/coop.wgsl` (src/ops/coop_text.rs) has the
// tile: SUBGROUPS subgroups of LANES lanes make ROWS × COLUMNS outputs, each a block of fragments that stays in registers.
// STEP values of k lie in workgroup memory while the next are on their way to registers. A workgroup's tile follows its
// number in bands of BAND tile rows, so that those at work at a time share what they read. Rows past the last are the last
// again and are not stored; k past the end is zeros. Grid (n / COLUMNS, rows / ROWS).
// Oracle: reference/matmul.rs.
override X_PLANES: u32;
override W_PLANES: u32;
override TAIL: u32; // 0 where STEP divides k

#import "common/product.wgsl"
#import "generated/coop.wgsl"

// Only read. But a driver may load what is bound for reading as late as it likes, which was after the products that the loads
// are meant to overlap (216 instead of 275 TFLOP/s on an H100); across a barrier it may not move these.
@group(0) @binding(0) var<storage, read_write> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> w: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> units: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const BAND: u32 = 8u;
const EIGHTS: u32 = STEP / 8u; // loads of 16 bytes for a row of a step

var<workgroup> sums: array<f32, SUBGROUPS * STRIP_ROWS * STRIP_PITCH>;

@compute @workgroup_size(LANES * SUBGROUPS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) index: u32, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
    let number = id.y * count.x + id.x;
    let band = BAND * count.x;
    let top = (number / band) * BAND;
    let height = min(BAND, count.y - top);
    let row0 = (top + (number % band) % height) * ROWS;
    let column0 = ((number % band) / height) * COLUMNS;
    // A tile that is left out takes no steps and lies where nothing is stored: naga wants no return before products.
    let left_out = (p.flags & UPPER) != 0u && p.w_first + column0 + COLUMNS <= p.x_first + row0;
    let n0 = select(column0, p.n, left_out);
    let block_row = block_of(subgroup).x;
    let block_n = block_of(subgroup).y;

    let row_eights = p.k / 8u;
    let padded = (row_eights + EIGHTS - 1u) / EIGHTS * EIGHTS;
    let end = select((X_PLANES + W_PLANES - 1u) * padded, 0u, left_out);
    let start = places(index, row0, n0);
    var pieces = fetch(start, 0u, 0u, index % EIGHTS < row_eights);
#import "generated/coop_zero.wgsl"
    for (var at = 0u; at < end; at += EIGHTS) {
        stage(index, pieces);
        workgroupBarrier();
        let next = min(at + EIGHTS, end - EIGHTS);
        // First planes, then the second of x with the first of w, then the first with the second.
        let planes = next / padded;
        let inside = next - planes * padded;
        let next_x = inside + select(0u, row_eights, planes == 1u);
        let next_w = inside + select(0u, row_eights, planes == 2u);
        pieces = fetch(start, next_x, next_w, inside + index % EIGHTS < row_eights);
#import "generated/coop_multiply.wgsl"
        workgroupBarrier();
    }
#import "generated/coop_store.wgsl"
}

// Stores a subgroup's strip of sums. Its rows are counted at run time, which keeps the text short: this happens once.
fn store_strip(subgroup: u32, lane: u32, row: u32, n: u32) {
    let rows = min(STRIP_ROWS, max(p.rows, row) - row);
    let column = lane % STRIP_COLUMNS;
    if (n + column < p.n) {
        for (var r = lane / STRIP_COLUMNS; r < rows; r += LANES / STRIP_COLUMNS) {
            let sum = sums[(subgroup * STRIP_ROWS + r) * STRIP_PITCH + column];
            var unit = units[p.x_first + row + r];
            if (W_PLANES == 2u) {
                unit *= bias[p.w_first + n + column];
            }
            store_output(row + r, n + column, sum * unit);
        }
    }
}
