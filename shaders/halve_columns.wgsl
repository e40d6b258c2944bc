// Columns as rows of halves for products over rows on matrix units: of v = x[r, c]·√w[r] / units[c], units[c] being the power of
// two that puts the column's largest v between 2^14 and 2^15, out[c, 0, r] = half(v) and out[c, 1, r] = half(v − out[c, 0, r]),
// and zeros in both from r = rows on.
//
// x: f32 [rows, cols]; weights: f32 [rows] where WEIGHTED; peaks: u32 [cols] from `column_peak`; out: halves in pairs
// [cols, 2, pairs]; units: f32 [cols]. A workgroup turns 64 rows of 32 columns in workgroup memory.
// Grid (cols / 32, pairs / 32).
// Oracle: reference/halve.rs.
override WEIGHTED: u32;
#import "common/half.wgsl"
const COLUMNS: u32 = 32u;
const LANES: u32 = 8u;
const ROWS: u32 = 64u;

struct Params { rows: u32, cols: u32, pairs: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> peaks: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;
@group(0) @binding(4) var<storage, read_write> units: array<f32>;

// A row longer by one, so that a column lies in different banks.
var<workgroup> tile: array<f32, ROWS * (COLUMNS + 1u)>;

// The exponent of a column's largest value, at least one that leaves its unit a normal number.
fn exponent_of(column: u32) -> u32 {
    return max(peaks[column] >> 23u, 15u);
}

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    let row0 = id.y * ROWS;
    let column0 = id.x * COLUMNS;
    let column = column0 + lane.x;
    if (column < p.cols) {
        let factor = bitcast<f32>((268u - exponent_of(column)) << 23u);
        for (var r = lane.y; r < ROWS; r += LANES) {
            var value = 0.0;
            if (row0 + r < p.rows) {
                value = x[(row0 + r) * p.cols + column];
                if (WEIGHTED == 1u) {
                    value *= sqrt(weights[row0 + r]);
                }
            }
            tile[r * (COLUMNS + 1u) + lane.x] = value * factor;
        }
        if (id.y == 0u && lane.y == 0u) {
            units[column] = bitcast<f32>((exponent_of(column) - 14u) << 23u);
        }
    }
    workgroupBarrier();
    let pair = row0 / 2u + lane.x;
    for (var c = lane.y; c < COLUMNS; c += LANES) {
        if (pair < p.pairs && column0 + c < p.cols) {
            let low = tile[2u * lane.x * (COLUMNS + 1u) + c];
            let high = tile[(2u * lane.x + 1u) * (COLUMNS + 1u) + c];
            let at = 2u * (column0 + c) * p.pairs + pair;
            out[at] = pack_halves(low, high);
            out[at + p.pairs] = pack_halves(low - round_to_half(low), high - round_to_half(high));
        }
    }
}
