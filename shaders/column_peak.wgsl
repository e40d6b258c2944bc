// The largest |x[r, c]·√w[r]| of each column, as the bits of a float: with all peaks zero before, the order does not matter.
//
// x: f32 [rows, cols]; weights: f32 [rows] where WEIGHTED; peaks: u32 [cols]. A workgroup of 32 columns by 8 lanes takes 64 rows.
// Grid (cols / 32, rows / 64).
// Oracle: reference/halve.rs.
override WEIGHTED: u32;
const COLUMNS: u32 = 32u;
const LANES: u32 = 8u;
const ROWS: u32 = 64u;

struct Params { rows: u32, cols: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> peaks: array<atomic<u32>>;

var<workgroup> largest: array<u32, COLUMNS * LANES>;

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    let column = id.x * COLUMNS + lane.x;
    let end = min(p.rows, (id.y + 1u) * ROWS);
    // Bits of numbers without a sign are in the order of the numbers, and those of what is no number are above all.
    var most = 0u;
    if (column < p.cols) {
        for (var row = id.y * ROWS + lane.y; row < end; row += LANES) {
            var value = x[row * p.cols + column];
            if (WEIGHTED == 1u) {
                value *= sqrt(weights[row]);
            }
            most = max(most, bitcast<u32>(abs(value)));
        }
    }
    largest[lane.y * COLUMNS + lane.x] = most;
    workgroupBarrier();
    if (lane.y == 0u && column < p.cols) {
        for (var i = 1u; i < LANES; i++) {
            most = max(most, largest[i * COLUMNS + lane.x]);
        }
        atomicMax(&peaks[column], most);
    }
}
