// Last step of choosing tokens greedily: the row's token with the highest score, the lowest of equals, and what follows.
//
// peaks: of the groups of `sample_scores` [rows, groups]; settings, positions, tokens, seen, choices: see common/advance.wgsl.
// One workgroup a row.
// Oracle: reference/sample.rs.
override WG: u32;
#import "common/sampling.wgsl"

struct Params { rows: u32, groups: u32, seen_words: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> peaks: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> settings: array<Settings>;
@group(0) @binding(2) var<storage, read_write> positions: array<u32>;
@group(0) @binding(3) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(4) var<storage, read_write> seen: array<u32>;
@group(0) @binding(5) var<storage, read_write> choices: array<u32>;
#import "common/row_peak.wgsl"
#import "common/advance.wgsl"

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let best = row_peak(id.x, p.groups, lane);
    if (lane == 0u) {
        let chosen = select(best.token, NOT_FINITE, best.top == BAD_KEY);
        advance(id.x, select(chosen, UNUSED, positions[id.x] == UNUSED));
    }
}
