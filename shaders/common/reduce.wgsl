// Sum and maximum over a workgroup of WG lanes (a power of two), through workgroup memory.
// `common/reduce_subgroup.wgsl` has the same functions with subgroup operations.
struct Lane {
    @builtin(local_invocation_index) index: u32,
}

var<workgroup> reduce_scratch: array<f32, WG>;

fn workgroup_sum(x: f32, lane: Lane) -> f32 {
    reduce_scratch[lane.index] = x;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half = half / 2u) {
        if (lane.index < half) {
            reduce_scratch[lane.index] += reduce_scratch[lane.index + half];
        }
        workgroupBarrier();
    }
    let total = reduce_scratch[0];
    workgroupBarrier();
    return total;
}

fn workgroup_max(x: f32, lane: Lane) -> f32 {
    reduce_scratch[lane.index] = x;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half = half / 2u) {
        if (lane.index < half) {
            reduce_scratch[lane.index] = max(reduce_scratch[lane.index], reduce_scratch[lane.index + half]);
        }
        workgroupBarrier();
    }
    let largest = reduce_scratch[0];
    workgroupBarrier();
    return largest;
}
