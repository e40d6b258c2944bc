// What rounding a group costs with each scale that a column can have: for each of the maxima tried (largest[group]·multiplier)
// and each scale code 1..16, Σ e² with e = (v − q) / U[r, r], v = w − Σ U[r', r]·e[r'] over the rows r' of the group before
// r, q = clamp(rint(v/s), −zero, zero − 1)·s, s = half(code²·maximum); that is the column's part of tr ΔᵀHΔ. Leaves the least
// of the 16 sums and its code, the lower code of equals. q is not rounded to half, which would add a thousandth to a sum of
// 8 bits and less to others.
//
// w: f32 [.., n], rows from `first` on (not changed); u: as `gptq_group` has it; largest: bits of f32 by group; multipliers:
// f32, 5 from p.multipliers on; losses: f32 [5, columns]; best: u32 [5, columns], both from `column` on.
// rows ≤ 128, in eights. A lane has one scale of one column: 2 columns by 16 codes are a workgroup; grid (n / 32, 16, 5).
// Eight rows are in registers, corrected for all rows before, whose errors are in workgroup memory (15 KiB) that no other
// lane touches; the values of U are the same for all lanes.
// Cost: 5·16·rows/2 multiplications and additions a weight, 5120 with 128 rows, each lane loading four values of U for
// four of them. An H100 takes 0.9 ms for [128, 4096], 6e12 operations a second (2026-11-24); that the loads of U are the limit is a guess.
// Oracle: reference/scale_loss.rs.
#import "common/group_maximum.wgsl"

struct Params {
    first: u32, rows: u32, n: u32, u_first: u32, u_pitch: u32,
    column: u32, columns: u32, group: u32, multipliers: u32, zero: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read> u: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> largest: array<u32>;
@group(0) @binding(3) var<storage, read> multipliers: array<f32>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;
@group(0) @binding(5) var<storage, read_write> best: array<u32>;

var<workgroup> done: array<f32, 3840>; // errors of rows that others follow, [row][lane]
var<workgroup> sums: array<f32, 32>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = id.x * 32u + id.y * 2u + lane / 16u;
    let code = f32(lane % 16u + 1u);
    let maximum = group_maximum(bitcast<f32>(largest[p.group]) * multipliers[p.multipliers + id.z]);
    let s = round_to_half(code * code * maximum);
    // A scale of 0 decodes every code to 0.
    let per = select(1.0 / s, 0.0, s == 0.0);
    var sum = 0.0;
    for (var first = 0u; first < p.rows; first += 8u) {
        let at = (p.first + first) * p.n + column;
        var v0 = w[at + 0u * p.n];
        var v1 = w[at + 1u * p.n];
        var v2 = w[at + 2u * p.n];
        var v3 = w[at + 3u * p.n];
        var v4 = w[at + 4u * p.n];
        var v5 = w[at + 5u * p.n];
        var v6 = w[at + 6u * p.n];
        var v7 = w[at + 7u * p.n];
        // Four rows at a time, so that their loads are under way together.
        for (var row = 0u; row < first; row += 4u) {
            let u_at = p.u_first + row * p.u_pitch + first / 4u;
            let f0 = done[(row + 0u) * 32u + lane];
            let l0 = u[u_at + 0u * p.u_pitch];
            let h0 = u[u_at + 0u * p.u_pitch + 1u];
            let f1 = done[(row + 1u) * 32u + lane];
            let l1 = u[u_at + 1u * p.u_pitch];
            let h1 = u[u_at + 1u * p.u_pitch + 1u];
            let f2 = done[(row + 2u) * 32u + lane];
            let l2 = u[u_at + 2u * p.u_pitch];
            let h2 = u[u_at + 2u * p.u_pitch + 1u];
            let f3 = done[(row + 3u) * 32u + lane];
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
        var l = u[line + 0u * p.u_pitch];
        var h = u[line + 0u * p.u_pitch + 1u];
        let e0 = rest(v0, s, per) / l.x;
        v1 -= l.y * e0; v2 -= l.z * e0; v3 -= l.w * e0; v4 -= h.x * e0; v5 -= h.y * e0; v6 -= h.z * e0; v7 -= h.w * e0;
        l = u[line + 1u * p.u_pitch];
        h = u[line + 1u * p.u_pitch + 1u];
        let e1 = rest(v1, s, per) / l.y;
        v2 -= l.z * e1; v3 -= l.w * e1; v4 -= h.x * e1; v5 -= h.y * e1; v6 -= h.z * e1; v7 -= h.w * e1;
        l = u[line + 2u * p.u_pitch];
        h = u[line + 2u * p.u_pitch + 1u];
        let e2 = rest(v2, s, per) / l.z;
        v3 -= l.w * e2; v4 -= h.x * e2; v5 -= h.y * e2; v6 -= h.z * e2; v7 -= h.w * e2;
        l = u[line + 3u * p.u_pitch];
        h = u[line + 3u * p.u_pitch + 1u];
        let e3 = rest(v3, s, per) / l.w;
        v4 -= h.x * e3; v5 -= h.y * e3; v6 -= h.z * e3; v7 -= h.w * e3;
        h = u[line + 4u * p.u_pitch + 1u];
        let e4 = rest(v4, s, per) / h.x;
        v5 -= h.y * e4; v6 -= h.z * e4; v7 -= h.w * e4;
        h = u[line + 5u * p.u_pitch + 1u];
        let e5 = rest(v5, s, per) / h.y;
        v6 -= h.z * e5; v7 -= h.w * e5;
        h = u[line + 6u * p.u_pitch + 1u];
        let e6 = rest(v6, s, per) / h.z;
        v7 -= h.w * e6;
        h = u[line + 7u * p.u_pitch + 1u];
        let e7 = rest(v7, s, per) / h.w;
        if (first + 8u < p.rows) {
            done[(first + 0u) * 32u + lane] = e0;
            done[(first + 1u) * 32u + lane] = e1;
            done[(first + 2u) * 32u + lane] = e2;
            done[(first + 3u) * 32u + lane] = e3;
            done[(first + 4u) * 32u + lane] = e4;
            done[(first + 5u) * 32u + lane] = e5;
            done[(first + 6u) * 32u + lane] = e6;
            done[(first + 7u) * 32u + lane] = e7;
        }
        sum += ((e0 * e0 + e1 * e1) + (e2 * e2 + e3 * e3)) + ((e4 * e4 + e5 * e5) + (e6 * e6 + e7 * e7));
    }
    sums[lane] = sum;
    workgroupBarrier();
    if (lane % 16u == 0u) {
        var least = sum;
        var which = 1u;
        for (var i = 1u; i < 16u; i++) {
            if (sums[lane + i] < least) {
                least = sums[lane + i];
                which = i + 1u;
            }
        }
        let to = id.z * p.columns + p.column + column;
        losses[to] = least;
        best[to] = which;
    }
}

// v less the nearest value that it can be rounded to.
fn rest(v: f32, s: f32, per: f32) -> f32 {
    return v - clamp(round(v * per), -p.zero, p.zero - 1.0) * s;
}
