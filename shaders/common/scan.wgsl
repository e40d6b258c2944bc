// Running sums of masses over the lanes of a workgroup.
#import "common/mass.wgsl"

var<workgroup> scan_counts: array<u32, WG>;
var<workgroup> scan_weights: array<vec2<u32>, WG>;

// The sum over the lanes up to and with this one.
fn workgroup_scan(mine: Mass, lane: u32) -> Mass {
    var sum = mine;
    for (var distance = 1u; distance < WG; distance *= 2u) {
        scan_counts[lane] = sum.count;
        scan_weights[lane] = sum.weight;
        workgroupBarrier();
        if (lane >= distance) {
            sum = mass_add(Mass(scan_counts[lane - distance], scan_weights[lane - distance]), sum);
        }
        workgroupBarrier();
    }
    return sum;
}
