// Rounds some rows of a group one after the other, each correcting those after it:
// code = clamp(rint(w/s) + zero, 0, 2·zero − 1), decoded = half((code − zero)·s), error = (w − decoded) / U[r, r],
// w[r', :] −= U[r, r']·error for the later rows r' of these. s = half(scale code² · group maximum); where it is 0,
// code = 2·zero − 1 for w ≥ 0 or NaN and 0 below, as ExLlamaV2's division has it.
//
// w: f32 [.., n], rows from `first` on (not changed); u: f32, element (r, r') of these rows at u_first + r·u_pitch + r';
// base: f32, from `column` on; picked: of `scale_pick`; codes: u32 [rows, n]; errors: f32 [rows, n]; decoded: halves in
// pairs [n, k / 2], from row `first` on; sums: f32, Σ error² of a workgroup at `sum` + its number. rows ≤ 128, even.
// A workgroup of 32 × 8 lanes has 32 columns in workgroup memory; eight lanes share a column and its later rows.
// Grid (n / 32).
// Oracle: reference/gptq.rs.
#import "common/half.wgsl"
#import "common/scale_code.wgsl"

struct Params {
    first: u32, rows: u32, n: u32, k: u32, u_first: u32, u_pitch: u32,
    column: u32, group: u32, sum: u32, zero: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read> u: array<f32>;
@group(0) @binding(2) var<storage, read> base: array<f32>;
@group(0) @binding(3) var<storage, read> picked: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> codes: array<u32>;
@group(0) @binding(5) var<storage, read_write> errors: array<f32>;
@group(0) @binding(6) var<storage, read_write> decoded: array<u32>;
@group(0) @binding(7) var<storage, read_write> sums: array<f32>;

// [row][column]: weights still to be rounded, and codes of rows that are.
var<workgroup> tile: array<f32, 4096>;
var<workgroup> scales: array<f32, 32>;
var<workgroup> squares: array<f32, 32>;

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
    let column = id.x * 32u + lane.x;
    for (var row = lane.y; row < p.rows; row += 8u) {
        tile[row * 32u + lane.x] = w[(p.first + row) * p.n + column];
    }
    let group = picked[p.group];
    let code = scale_code(base[p.column + column], bitcast<f32>(group.x));
    let scale = round_to_half(f32(code * code) * bitcast<f32>(group.z));
    if (lane.y == 0u) {
        scales[lane.x] = scale;
    }
    workgroupBarrier();
    var square = 0.0;
    var rounded = 0u;
    for (var row = 0u; row < p.rows; row++) {
        let value = tile[row * 32u + lane.x];
        if (lane.y == 0u && row > 0u) {
            // Nobody reads the row before any more.
            tile[(row - 1u) * 32u + lane.x] = f32(rounded);
        }
        rounded = round_code(value, scale);
        let line = p.u_first + row * p.u_pitch;
        let error = (value - round_to_half(centred(rounded) * scale)) / u[line + row];
        if (lane.y == 0u) {
            errors[row * p.n + column] = error;
            square += error * error;
        }
        for (var later = row + 1u + lane.y; later < p.rows; later += 8u) {
            tile[later * 32u + lane.x] -= u[line + later] * error;
        }
        workgroupBarrier();
    }
    if (lane.y == 0u) {
        tile[(p.rows - 1u) * 32u + lane.x] = f32(rounded);
        squares[lane.x] = square;
    }
    workgroupBarrier();
    for (var row = lane.y; row < p.rows; row += 8u) {
        codes[row * p.n + column] = u32(tile[row * 32u + lane.x]);
    }
    let pairs = p.rows / 2u;
    for (var i = index; i < 32u * pairs; i += 256u) {
        let pair = i % pairs;
        let c = i / pairs;
        let low = centred(u32(tile[pair * 64u + c])) * scales[c];
        let high = centred(u32(tile[pair * 64u + 32u + c])) * scales[c];
        decoded[((id.x * 32u + c) * p.k + p.first) / 2u + pair] = pack_halves(low, high);
    }
    if (index == 0u) {
        var total = 0.0;
        for (var c = 0u; c < 32u; c++) {
            total += squares[c];
        }
        sums[p.sum + id.x] = total;
    }
}

fn round_code(value: f32, scale: f32) -> u32 {
    if (scale == 0.0) {
        return select(u32(2.0 * p.zero) - 1u, 0u, value < 0.0);
    }
    return u32(clamp(round(value / scale) + p.zero, 0.0, 2.0 * p.zero - 1.0));
}

// code − zero, subtracted as integers, which have no negative zero.
fn centred(code: u32) -> f32 {
    return f32(i32(code) - i32(p.zero));
}
