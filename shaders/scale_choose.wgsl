// The first of 5 maxima with the least loss, and a group's scales from it, in the form that `scale_pick` leaves:
// picked[group] = (bits of `largest`, half bits of scale_max = half(largest·multiplier), bits of the group maximum
// half(scale_max / 256) as f32, number of the multiplier); codes = the columns' best codes with that maximum.
//
// losses: f32 [5, columns], best: u32 [5, columns], of `scale_loss`; largest: bits of f32 by group; multipliers: f32, 5 from
// p.multipliers on; codes: u32 [columns]; all by fours. One workgroup: a lane adds every 256th four of the columns, then 16
// lanes a maximum add those sums 16 at a time, then one: the order of the sum is fixed and knows no slabs.
// Oracle: reference/scale_loss.rs.
#import "common/group_maximum.wgsl"
const TRIED: u32 = 5u;

struct Params { fours: u32, group: u32, multipliers: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> losses: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> best: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> largest: array<u32>;
@group(0) @binding(3) var<storage, read> multipliers: array<f32>;
@group(0) @binding(4) var<storage, read_write> picked: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> codes: array<vec4<u32>>;

var<workgroup> sums: array<f32, 1280>; // [maximum][lane]
var<workgroup> parts: array<f32, 80>; // [maximum][sixteenth]
var<workgroup> chosen: u32;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    for (var tried = 0u; tried < TRIED; tried++) {
        var sum = vec4<f32>(0.0);
        for (var four = lane; four < p.fours; four += 256u) {
            sum += losses[tried * p.fours + four];
        }
        sums[tried * 256u + lane] = (sum.x + sum.y) + (sum.z + sum.w);
    }
    workgroupBarrier();
    if (lane < TRIED * 16u) {
        var sum = 0.0;
        for (var i = 0u; i < 16u; i++) {
            // Each lane begins elsewhere, so that they do not wait for one bank; the order is fixed all the same.
            sum += sums[lane * 16u + (i + lane) % 16u];
        }
        parts[lane] = sum;
    }
    workgroupBarrier();
    if (lane == 0u) {
        var which = 0u;
        var least = total(0u);
        for (var tried = 1u; tried < TRIED; tried++) {
            let loss = total(tried);
            if (loss < least) {
                which = tried;
                least = loss;
            }
        }
        let most = bitcast<f32>(largest[p.group]) * multipliers[p.multipliers + which];
        picked[p.group] = vec4<u32>(largest[p.group], half_bits(most), bitcast<u32>(group_maximum(most)), which);
        chosen = which;
    }
    workgroupBarrier();
    for (var four = lane; four < p.fours; four += 256u) {
        codes[four] = best[chosen * p.fours + four];
    }
}

fn total(tried: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < 16u; i++) {
        sum += parts[tried * 16u + i];
    }
    return sum;
}
