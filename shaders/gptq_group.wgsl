// Rounds some rows of a group one after the other, each correcting those after it:
// code = clamp(rint(w/s) + zero, 0, 2·zero − 1), decoded = half((code − zero)·s), error = (w − decoded) / U[r, r],
// w[r', :] −= U[r, r']·error for the later rows r' of these. s = half(scale code² · group maximum); where it is 0,
// code = 2·zero − 1 for w ≥ 0 or NaN and 0 below, as ExLlamaV2's division has it.
//
// w: f32 [.., n], rows from `first` on (not changed); u: f32 in vec4, row r of these rows from u_first + r·u_pitch on, beginning
// with its own column of row 0; scale_codes: u32, from `column` on; picked: of `scale_pick` or
// `scale_choose`; codes: u32 [rows, n]; errors: f32 [rows, n]; decoded: halves in pairs [n, k / 2], from row `first` on;
// sums: f32, Σ error² of a workgroup at `sum` + its number.
// rows ≤ 128; rows and `first` in eights. A workgroup of eight lanes has 32 columns, a lane four of them, whose errors it keeps in
// workgroup memory that no other lane touches. It takes eight rows into registers, corrects them for all rows before,
// then rounds them; the values of U are the same for all lanes. Grid (n / 32).
// Oracle: reference/gptq.rs.
#import "common/half.wgsl"

struct Params {
    first: u32, rows: u32, n: u32, k: u32, u_first: u32, u_pitch: u32,
    column: u32, group: u32, sum: u32, zero: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> u: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> scale_codes: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> picked: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> codes: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> errors: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> decoded: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> sums: array<f32>;

var<workgroup> done: array<vec4<f32>, 960>; // errors of rows that others follow, [row][lane]
var<workgroup> squares: array<f32, 8>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let fours = p.n / 4u;
    let four = id.x * 8u + lane;
    let scale = column_scales(scale_codes[p.column / 4u + four], picked[p.group].z);
    var square = vec4<f32>(0.0);
    for (var first = 0u; first < p.rows; first += 8u) {
        let at = (p.first + first) * fours + four;
        var v0 = w[at + 0u * fours];
        var v1 = w[at + 1u * fours];
        var v2 = w[at + 2u * fours];
        var v3 = w[at + 3u * fours];
        var v4 = w[at + 4u * fours];
        var v5 = w[at + 5u * fours];
        var v6 = w[at + 6u * fours];
        var v7 = w[at + 7u * fours];
        // Four rows at a time, so that their loads are under way together.
        for (var row = 0u; row < first; row += 4u) {
            let u_at = p.u_first + row * p.u_pitch + first / 4u;
            let f0 = done[(row + 0u) * 8u + lane];
            let l0 = u[u_at + 0u * p.u_pitch];
            let h0 = u[u_at + 0u * p.u_pitch + 1u];
            let f1 = done[(row + 1u) * 8u + lane];
            let l1 = u[u_at + 1u * p.u_pitch];
            let h1 = u[u_at + 1u * p.u_pitch + 1u];
            let f2 = done[(row + 2u) * 8u + lane];
            let l2 = u[u_at + 2u * p.u_pitch];
            let h2 = u[u_at + 2u * p.u_pitch + 1u];
            let f3 = done[(row + 3u) * 8u + lane];
            let l3 = u[u_at + 3u * p.u_pitch];
            let h3 = u[u_at + 3u * p.u_pitch + 1u];
            v0 -= l0.x * f0; v1 -= l0.y * f0; v2 -= l0.z * f0; v3 -= l0.w * f0;
            v4 -= h0.x * f0; v5 -= h0.y * f0; v6 -= h0.z * f0; v7 -= h0.w * f0;
            v0 -= l1.x * f1; v1 -= l1.y * f1; v2 -= l1.z * f1; v3 -= l1.w * f1;
            v4 -= h1.x * f1; v5 -= h1.y * f1; v6 -= h1.z * f1; v7 -= h1.w * f1;
            v0 -= l2.x * f2; v1 -= l2.y * f2; v2 -= l2.z * f2; v3 -= l2.w * f2;
            v4 -= h2.x * f2; v5 -= h2.y * f2; v6 -= h2.z * f2; v7 -= h2.w * f2;
            v0 -= l3.x * f3; v1 -= l3.y * f3; v2 -= l3.z * f3; v3 -= l3.w * f3;
            v4 -= h3.x * f3; v5 -= h3.y * f3; v6 -= h3.z * f3; v7 -= h3.w * f3;
        }
        let line = p.u_first + first * p.u_pitch + first / 4u;
        var l = vec4<f32>(0.0);
        var h = vec4<f32>(0.0);
        l = u[line + 0u * p.u_pitch];
        h = u[line + 0u * p.u_pitch + 1u];
        let q0 = round_codes(v0, scale);
        let d0 = decode(q0, scale);
        let e0 = (v0 - d0) / l.x;
        v1 -= l.y * e0; v2 -= l.z * e0; v3 -= l.w * e0; v4 -= h.x * e0; v5 -= h.y * e0; v6 -= h.z * e0; v7 -= h.w * e0;
        l = u[line + 1u * p.u_pitch];
        h = u[line + 1u * p.u_pitch + 1u];
        let q1 = round_codes(v1, scale);
        let d1 = decode(q1, scale);
        let e1 = (v1 - d1) / l.y;
        v2 -= l.z * e1; v3 -= l.w * e1; v4 -= h.x * e1; v5 -= h.y * e1; v6 -= h.z * e1; v7 -= h.w * e1;
        l = u[line + 2u * p.u_pitch];
        h = u[line + 2u * p.u_pitch + 1u];
        let q2 = round_codes(v2, scale);
        let d2 = decode(q2, scale);
        let e2 = (v2 - d2) / l.z;
        v3 -= l.w * e2; v4 -= h.x * e2; v5 -= h.y * e2; v6 -= h.z * e2; v7 -= h.w * e2;
        l = u[line + 3u * p.u_pitch];
        h = u[line + 3u * p.u_pitch + 1u];
        let q3 = round_codes(v3, scale);
        let d3 = decode(q3, scale);
        let e3 = (v3 - d3) / l.w;
        v4 -= h.x * e3; v5 -= h.y * e3; v6 -= h.z * e3; v7 -= h.w * e3;
        l = u[line + 4u * p.u_pitch];
        h = u[line + 4u * p.u_pitch + 1u];
        let q4 = round_codes(v4, scale);
        let d4 = decode(q4, scale);
        let e4 = (v4 - d4) / h.x;
        v5 -= h.y * e4; v6 -= h.z * e4; v7 -= h.w * e4;
        l = u[line + 5u * p.u_pitch];
        h = u[line + 5u * p.u_pitch + 1u];
        let q5 = round_codes(v5, scale);
        let d5 = decode(q5, scale);
        let e5 = (v5 - d5) / h.y;
        v6 -= h.z * e5; v7 -= h.w * e5;
        l = u[line + 6u * p.u_pitch];
        h = u[line + 6u * p.u_pitch + 1u];
        let q6 = round_codes(v6, scale);
        let d6 = decode(q6, scale);
        let e6 = (v6 - d6) / h.z;
        v7 -= h.w * e6;
        l = u[line + 7u * p.u_pitch];
        h = u[line + 7u * p.u_pitch + 1u];
        let q7 = round_codes(v7, scale);
        let d7 = decode(q7, scale);
        let e7 = (v7 - d7) / h.w;
        let out = first * fours + four;
        codes[out + 0u * fours] = q0; errors[out + 0u * fours] = e0;
        codes[out + 1u * fours] = q1; errors[out + 1u * fours] = e1;
        codes[out + 2u * fours] = q2; errors[out + 2u * fours] = e2;
        codes[out + 3u * fours] = q3; errors[out + 3u * fours] = e3;
        codes[out + 4u * fours] = q4; errors[out + 4u * fours] = e4;
        codes[out + 5u * fours] = q5; errors[out + 5u * fours] = e5;
        codes[out + 6u * fours] = q6; errors[out + 6u * fours] = e6;
        codes[out + 7u * fours] = q7; errors[out + 7u * fours] = e7;
        if (first + 8u < p.rows) {
            done[(first + 0u) * 8u + lane] = e0;
            done[(first + 1u) * 8u + lane] = e1;
            done[(first + 2u) * 8u + lane] = e2;
            done[(first + 3u) * 8u + lane] = e3;
            done[(first + 4u) * 8u + lane] = e4;
            done[(first + 5u) * 8u + lane] = e5;
            done[(first + 6u) * 8u + lane] = e6;
            done[(first + 7u) * 8u + lane] = e7;
        }
        square += ((e0 * e0 + e1 * e1) + (e2 * e2 + e3 * e3)) + ((e4 * e4 + e5 * e5) + (e6 * e6 + e7 * e7));
        let to = (four * 4u * p.k + p.first + first) / 8u;
        decoded[to + 0u * (p.k / 8u)] = vec4<u32>(pack_halves(d0.x, d1.x), pack_halves(d2.x, d3.x),
            pack_halves(d4.x, d5.x), pack_halves(d6.x, d7.x));
        decoded[to + 1u * (p.k / 8u)] = vec4<u32>(pack_halves(d0.y, d1.y), pack_halves(d2.y, d3.y),
            pack_halves(d4.y, d5.y), pack_halves(d6.y, d7.y));
        decoded[to + 2u * (p.k / 8u)] = vec4<u32>(pack_halves(d0.z, d1.z), pack_halves(d2.z, d3.z),
            pack_halves(d4.z, d5.z), pack_halves(d6.z, d7.z));
        decoded[to + 3u * (p.k / 8u)] = vec4<u32>(pack_halves(d0.w, d1.w), pack_halves(d2.w, d3.w),
            pack_halves(d4.w, d5.w), pack_halves(d6.w, d7.w));
    }
    squares[lane] = (square.x + square.y) + (square.z + square.w);
    workgroupBarrier();
    if (lane == 0u) {
        var total = 0.0;
        for (var i = 0u; i < 8u; i++) {
            total += squares[i];
        }
        sums[p.sum + id.x] = total;
    }
}

fn column_scales(codes: vec4<u32>, maximum: u32) -> vec4<f32> {
    let code = vec4<f32>(codes);
    return halves(code * code * bitcast<f32>(maximum));
}

fn halves(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(round_to_half(x.x), round_to_half(x.y), round_to_half(x.z), round_to_half(x.w));
}

fn round_codes(value: vec4<f32>, scale: vec4<f32>) -> vec4<u32> {
    let top = 2.0 * p.zero - 1.0;
    let code = clamp(round(value / scale) + p.zero, vec4<f32>(0.0), vec4<f32>(top));
    let without = select(vec4<f32>(top), vec4<f32>(0.0), value < vec4<f32>(0.0));
    return vec4<u32>(select(code, without, scale == vec4<f32>(0.0)));
}

// (code − zero)·s rounded to half; subtracted as integers, which have no negative zero.
fn decode(code: vec4<u32>, scale: vec4<f32>) -> vec4<f32> {
    return halves(vec4<f32>(vec4<i32>(code) - vec4<i32>(i32(p.zero))) * scale);
}
