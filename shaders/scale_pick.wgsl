// The first multiplier with the smallest error, and a group's scales from it, with the roundings of the decoder:
// picked[group] = (bits of `largest`, half bits of scale_max = half(largest·multiplier), bits of the group maximum
// half(scale_max / 256) as f32, number of the multiplier).
//
// parts: f32 [count, 97], added in two halves, each in order. One workgroup.
// Oracle: reference/scale_search.rs.
#import "common/group_maximum.wgsl"
const STEPS: u32 = 97u;

struct Params { count: u32, group: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> parts: array<f32>;
@group(0) @binding(1) var<storage, read> largest: array<u32>;
@group(0) @binding(2) var<storage, read> multipliers: array<f32>;
@group(0) @binding(3) var<storage, read_write> picked: array<vec4<u32>>;

var<workgroup> errors: array<f32, 194>;

@compute @workgroup_size(194)
fn main(@builtin(local_invocation_index) lane: u32) {
    let middle = p.count / 2u;
    let end = select(middle, p.count, lane >= STEPS);
    var sum = 0.0;
    for (var i = select(0u, middle, lane >= STEPS); i < end; i++) {
        sum += parts[i * STEPS + lane % STEPS];
    }
    errors[lane] = sum;
    workgroupBarrier();
    if (lane == 0u) {
        var best = 0u;
        var least = errors[0] + errors[STEPS];
        for (var i = 1u; i < STEPS; i++) {
            let error = errors[i] + errors[STEPS + i];
            if (error < least) {
                best = i;
                least = error;
            }
        }
        let most = bitcast<f32>(largest[p.group]) * multipliers[best];
        picked[p.group] = vec4<u32>(largest[p.group], half_bits(most), bitcast<u32>(group_maximum(most)), best);
    }
}
