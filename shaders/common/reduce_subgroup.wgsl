// Sum and maximum over a workgroup of WG lanes with subgroup operations, at any subgroup size of four
// and more. Every lane adds the subgroups' results in the same order.
struct Lane {
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(num_subgroups) subgroups: u32,
}

var<workgroup> reduce_scratch: array<f32, WG / 4u>;

fn workgroup_sum(x: f32, lane: Lane) -> f32 {
    let part = subgroupAdd(x);
    if (lane.lane == 0u) {
        reduce_scratch[lane.subgroup] = part;
    }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < lane.subgroups; i++) {
        total += reduce_scratch[i];
    }
    workgroupBarrier();
    return total;
}

fn workgroup_max(x: f32, lane: Lane) -> f32 {
    let part = subgroupMax(x);
    if (lane.lane == 0u) {
        reduce_scratch[lane.subgroup] = part;
    }
    workgroupBarrier();
    var largest = reduce_scratch[0];
    for (var i = 1u; i < lane.subgroups; i++) {
        largest = max(largest, reduce_scratch[i]);
    }
    workgroupBarrier();
    return largest;
}
