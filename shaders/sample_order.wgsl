// Third step of sampling: tokens in the order of their buckets, in any order within one.
//
// keys, staged, histogram: of `sample_scores` and `sample_weights`; the fourth part of the histogram counts the tokens
// of each bucket that have their place. ordered: (~key, token, weight as f32) [rows, vocabulary]; tokens of the last bucket,
// which have no weight, are left out. Greedy rows are left alone. Grid (groups, rows).
// Oracle: reference/sample.rs.
override WG: u32;
override GROUP: u32;
override BUCKETS: u32;
#import "common/sampling.wgsl"
#import "common/scan.wgsl"

struct Params { vocabulary: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> keys: array<u32>;
@group(0) @binding(1) var<storage, read> settings: array<Settings>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> staged: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> histogram: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read_write> ordered: array<u32>;

var<workgroup> starts: array<u32, BUCKETS>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = id.y;
    if (positions[row] == UNUSED || settings[row].temperature == 0.0) {
        return;
    }
    let base = row * (4u * BUCKETS + 2u);
    // Each lane has as many buckets in a row.
    let share = BUCKETS / WG;
    var count = 0u;
    for (var i = 0u; i < share; i++) {
        count += atomicLoad(&histogram[base + lane * share + i]);
    }
    var start = workgroup_scan(Mass(count, vec2<u32>(0u, 0u)), lane).count - count;
    for (var i = 0u; i < share; i++) {
        starts[lane * share + i] = start;
        start += atomicLoad(&histogram[base + lane * share + i]);
    }
    workgroupBarrier();
    let end = min((id.x + 1u) * GROUP, p.vocabulary);
    for (var token = id.x * GROUP + lane; token < end; token += WG) {
        let at = row * p.vocabulary + token;
        let one = staged[at];
        if (one.y < BUCKETS - 1u) {
            let place = starts[one.y] + atomicAdd(&histogram[base + 3u * BUCKETS + one.y], 1u);
            let to = 3u * (row * p.vocabulary + min(place, p.vocabulary - 1u));
            ordered[to] = ~keys[at];
            ordered[to + 1u] = token;
            ordered[to + 2u] = one.x;
        }
    }
}
