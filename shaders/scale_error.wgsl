// Error of a group for each of 97 multipliers m of its scales: parts[part, m] = Σ |clamp(rint(v/s), −zero, zero − 1)·s − v|^3.5
// over this workgroup's tiles, where v = w / largest and s = (code / 16)²·m, m from 0.70 to 1.20. Leaves the columns' codes.
//
// w: f32 [.., pitch], from row `first`; base: f32, from `column` on; largest: bits of f32 by group; parts: f32 [.., 97], from
// `part` on; codes: u32, from `column` on. Dividing by `largest` keeps small weights' errors from underflowing. A workgroup takes every count-th tile of 32
// rows by 32 columns; a lane has a column of it in registers, and its sums in workgroup memory, where they are added
// in the end: the order of the sum is fixed. Grid (any count).
// Oracle: reference/scale_search.rs.
#import "common/scale_code.wgsl"
const STEPS: u32 = 97u;

struct Params { first: u32, rows: u32, pitch: u32, column: u32, group: u32, part: u32, zero: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read> base: array<f32>;
@group(0) @binding(2) var<storage, read> largest: array<u32>;
@group(0) @binding(3) var<storage, read_write> parts: array<f32>;
@group(0) @binding(4) var<storage, read_write> codes: array<u32>;

var<workgroup> sums: array<f32, 3104>; // [multiplier][lane]

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let most = bitcast<f32>(largest[p.group]);
    let inverse = 1.0 / most;
    let across = p.pitch / 32u;
    for (var step = 0u; step < STEPS; step++) {
        sums[step * 32u + lane] = 0.0;
    }
    for (var t = id.x; t < across * (p.rows / 32u); t += count.x) {
        let column = t % across * 32u + lane;
        let at = (p.first + t / across * 32u) * p.pitch + column;
        let v0 = inverse * four(at);
        let v1 = inverse * four(at + 4u * p.pitch);
        let v2 = inverse * four(at + 8u * p.pitch);
        let v3 = inverse * four(at + 12u * p.pitch);
        let v4 = inverse * four(at + 16u * p.pitch);
        let v5 = inverse * four(at + 20u * p.pitch);
        let v6 = inverse * four(at + 24u * p.pitch);
        let v7 = inverse * four(at + 28u * p.pitch);
        let whole = scale_code(base[p.column + column], most);
        if (t < across) {
            codes[p.column + column] = whole;
        }
        let code = f32(whole);
        let scale = code * code * (1.0 / 256.0);
        for (var step = 0u; step < STEPS; step++) {
            let part = f32(step) * (1.0 / 96.0);
            let s = scale * (0.70 * (1.0 - part) + 1.20 * part);
            let per = 1.0 / s;
            let sum = ((error(v0, s, per) + error(v1, s, per)) + (error(v2, s, per) + error(v3, s, per)))
                + ((error(v4, s, per) + error(v5, s, per)) + (error(v6, s, per) + error(v7, s, per)));
            sums[step * 32u + lane] += (sum.x + sum.y) + (sum.z + sum.w);
        }
    }
    workgroupBarrier();
    for (var step = lane; step < STEPS; step += 32u) {
        var total = 0.0;
        for (var i = 0u; i < 32u; i++) {
            // Each lane begins elsewhere, so that they do not wait for one bank; the order is fixed all the same.
            total += sums[step * 32u + (i + lane) % 32u];
        }
        parts[(p.part + id.x) * STEPS + step] = total;
    }
}

// Weights of four rows of a column.
fn four(at: u32) -> vec4<f32> {
    return vec4<f32>(w[at], w[at + p.pitch], w[at + 2u * p.pitch], w[at + 3u * p.pitch]);
}

fn error(v: vec4<f32>, s: f32, per: f32) -> vec4<f32> {
    let e = abs(clamp(round(v * per), vec4<f32>(-p.zero), vec4<f32>(p.zero - 1.0)) * s - v);
    return e * e * e * sqrt(e);
}
