// Rounds some rows of a group one after the other, each correcting those after it:
// code = clamp(rint(w/s) + zero, 0, 2·zero − 1), decoded = half((code − zero)·s), error = (w − decoded) / U[r, r],
// w[r', :] −= U[r, r']·error for the later rows r' of these. s = half(scale code² · group maximum); where it is 0,
// code = 2·zero − 1 for w ≥ 0 or NaN and 0 below, as ExLlamaV2's division has it.
//
// w: f32 [.., n], rows from `first` on (not changed); u: f32 in vec4, element (r, r') of these rows at u_first + r·u_pitch + r' (in values, u_first and u_pitch in vec4);
// base: f32, from `column` on; picked: of `scale_pick`; codes: u32 [rows, n]; errors: f32 [rows, n]; decoded: halves in
// pairs [n, k / 2], from row `first` on; sums: f32, Σ error² of a workgroup at `sum` + its number. rows ≤ 128, a multiple of four.
// A lane has a column in workgroup memory, and no other lane touches it. It rounds four rows in registers, then corrects the
// later ones for all four; the values of U are the same for all lanes.
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
@group(0) @binding(1) var<storage, read> u: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> base: array<f32>;
@group(0) @binding(3) var<storage, read> picked: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> codes: array<u32>;
@group(0) @binding(5) var<storage, read_write> errors: array<f32>;
@group(0) @binding(6) var<storage, read_write> decoded: array<u32>;
@group(0) @binding(7) var<storage, read_write> sums: array<f32>;

// [row / 4][column]: weights still to be rounded, and codes of rows that are.
var<workgroup> tile: array<vec4<f32>, 1024>;
var<workgroup> scales: array<f32, 32>;
var<workgroup> squares: array<f32, 32>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = id.x * 32u + lane;
    let fours = p.rows / 4u;
    for (var i = 0u; i < fours; i++) {
        let at = (p.first + 4u * i) * p.n + column;
        tile[i * 32u + lane] = vec4<f32>(w[at], w[at + p.n], w[at + 2u * p.n], w[at + 3u * p.n]);
    }
    let group = picked[p.group];
    let code = scale_code(base[p.column + column], bitcast<f32>(group.x));
    let scale = round_to_half(f32(code * code) * bitcast<f32>(group.z));
    scales[lane] = scale;
    var square = 0.0;
    for (var i = 0u; i < fours; i++) {
        let line = p.u_first + 4u * i * p.u_pitch;
        let u0 = u[line + i];
        let u1 = u[line + p.u_pitch + i];
        let u2 = u[line + 2u * p.u_pitch + i];
        let u3 = u[line + 3u * p.u_pitch + i];
        var value = tile[i * 32u + lane];
        var rounded = vec4<u32>(0u);
        var error = vec4<f32>(0.0);
        rounded.x = round_code(value.x, scale);
        error.x = (value.x - round_to_half(centred(rounded.x) * scale)) / u0.x;
        value -= error.x * u0;
        rounded.y = round_code(value.y, scale);
        error.y = (value.y - round_to_half(centred(rounded.y) * scale)) / u1.y;
        value -= error.y * u1;
        rounded.z = round_code(value.z, scale);
        error.z = (value.z - round_to_half(centred(rounded.z) * scale)) / u2.z;
        value -= error.z * u2;
        rounded.w = round_code(value.w, scale);
        error.w = (value.w - round_to_half(centred(rounded.w) * scale)) / u3.w;
        tile[i * 32u + lane] = vec4<f32>(rounded);
        let at = 4u * i * p.n + column;
        errors[at] = error.x;
        errors[at + p.n] = error.y;
        errors[at + 2u * p.n] = error.z;
        errors[at + 3u * p.n] = error.w;
        codes[at] = rounded.x;
        codes[at + p.n] = rounded.y;
        codes[at + 2u * p.n] = rounded.z;
        codes[at + 3u * p.n] = rounded.w;
        square += dot(error, error);
        for (var later = i + 1u; later < fours; later++) {
            tile[later * 32u + lane] -= error.x * u[line + later] + error.y * u[line + p.u_pitch + later]
                + error.z * u[line + 2u * p.u_pitch + later] + error.w * u[line + 3u * p.u_pitch + later];
        }
    }
    squares[lane] = square;
    workgroupBarrier();
    let pairs = p.rows / 2u;
    for (var i = lane; i < 32u * pairs; i += 32u) {
        let pair = i % pairs;
        let c = i / pairs;
        let four = tile[pair / 2u * 32u + c];
        let two = select(four.xy, four.zw, pair % 2u == 1u);
        let halves = pack_halves(centred(u32(two.x)) * scales[c], centred(u32(two.y)) * scales[c]);
        decoded[((id.x * 32u + c) * p.k + p.first) / 2u + pair] = halves;
    }
    if (lane == 0u) {
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
