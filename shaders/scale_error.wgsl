// Error of a group for each of 97 multipliers m of its scales: parts[part, m] = Σ |clamp(rint(v/s), −zero, zero − 1)·s − v|^3.5
// over this workgroup's tiles, where v = w / largest and s = (code / 16)²·multipliers[m].
//
// w: f32 [.., pitch], from row `first`; base: f32, from `column` on; largest: bits of f32 by group; multipliers:
// f32 [97]; parts: f32 [.., 97], from `part` on. Dividing by `largest` keeps small weights' errors from underflowing. A
// workgroup takes every count-th tile of 32 rows by 32 columns, a lane one multiplier: all lanes read the same weight at a
// time, and the order of the sum is fixed. Grid (any count).
// Oracle: reference/scale_search.rs.
#import "common/scale_code.wgsl"
const STEPS: u32 = 97u;

struct Params { first: u32, rows: u32, pitch: u32, column: u32, group: u32, part: u32, zero: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read> base: array<f32>;
@group(0) @binding(2) var<storage, read> largest: array<u32>;
@group(0) @binding(3) var<storage, read> multipliers: array<f32>;
@group(0) @binding(4) var<storage, read_write> parts: array<f32>;

// [column][row / 4]
var<workgroup> tile: array<vec4<f32>, 256>;
var<workgroup> scales: array<f32, 32>;

@compute @workgroup_size(97)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let most = bitcast<f32>(largest[p.group]);
    let inverse = 1.0 / most;
    let multiplier = multipliers[lane];
    let across = p.pitch / 32u;
    var total = 0.0;
    for (var t = id.x; t < across * (p.rows / 32u); t += count.x) {
        let column = t % across * 32u;
        let row = p.first + t / across * 32u;
        workgroupBarrier();
        for (var i = lane; i < 256u; i += STEPS) {
            let at = (row + i / 32u * 4u) * p.pitch + column + i % 32u;
            tile[i % 32u * 8u + i / 32u] =
                inverse * vec4<f32>(w[at], w[at + p.pitch], w[at + 2u * p.pitch], w[at + 3u * p.pitch]);
        }
        if (lane < 32u) {
            let code = f32(scale_code(base[p.column + column + lane], most));
            scales[lane] = code * code * (1.0 / 256.0);
        }
        workgroupBarrier();
        var sum = vec4<f32>(0.0);
        for (var c = 0u; c < 32u; c++) {
            let s = scales[c] * multiplier;
            let per = 1.0 / s;
            for (var i = c * 8u; i < c * 8u + 8u; i++) {
                let v = tile[i];
                let e = abs(clamp(round(v * per), vec4<f32>(-p.zero), vec4<f32>(p.zero - 1.0)) * s - v);
                sum += e * e * e * sqrt(e);
            }
        }
        total += (sum.x + sum.y) + (sum.z + sum.w);
    }
    parts[(p.part + id.x) * STEPS + lane] = total;
}
