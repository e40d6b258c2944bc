// Makes a symmetric matrix whole, in place, of what is on and above its diagonal: both h[i, j] and h[j, i] become
// factor·h[i, j] for i <= j.
//
// above, below: f32 [rows, k], slabs of rows of h from above_first and below_first on (multiples of 32); they may be one
// buffer. diagonal: f32 [k]. bad: not zero if a value is not finite. A workgroup of 32 × 8 lanes takes 32 × 32 values of
// `above` through workgroup memory, so that both sides are written along rows. Grid (rows of below / 32, rows of above / 32).
// Oracle: reference/cholesky.rs.
const TILE: u32 = 32u;
const STEP: u32 = 8u;
const EXPONENT: u32 = 0x7f800000u;

struct Params { k: u32, above_first: u32, above_rows: u32, below_first: u32, below_rows: u32, factor: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> above: array<f32>;
@group(0) @binding(1) var<storage, read_write> below: array<f32>;
@group(0) @binding(2) var<storage, read_write> diagonal: array<f32>;
@group(0) @binding(3) var<storage, read_write> bad: atomic<u32>;

// A row longer by one, so that a column lies in different banks.
var<workgroup> tile: array<f32, TILE * (TILE + 1u)>;

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    let i0 = p.above_first + id.y * TILE;
    let j0 = p.below_first + id.x * TILE;
    if (j0 < i0) {
        return;
    }
    let i_end = p.above_first + p.above_rows;
    let j_end = p.below_first + p.below_rows;
    let j = j0 + lane.x;
    for (var r = lane.y; r < TILE; r += STEP) {
        let i = i0 + r;
        if (i < i_end && j < j_end && i <= j) {
            let at = (i - p.above_first) * p.k + j;
            let value = p.factor * above[at];
            above[at] = value;
            tile[r * (TILE + 1u) + lane.x] = value;
            if (i == j) {
                diagonal[i] = value;
            }
            if ((bitcast<u32>(value) & EXPONENT) == EXPONENT) {
                atomicOr(&bad, 1u);
            }
        }
    }
    workgroupBarrier();
    let column = i0 + lane.x;
    for (var r = lane.y; r < TILE; r += STEP) {
        let row = j0 + r;
        if (column < i_end && row < j_end && row > column) {
            below[(row - p.below_first) * p.k + column] = tile[lane.x * (TILE + 1u) + r];
        }
    }
}
