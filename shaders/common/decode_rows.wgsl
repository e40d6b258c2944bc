// The queries of a workgroup and the row's own key and value, summed, rotated and kept in workgroup memory.
// For `attention_decode`, whose constants and immediates it uses.
#import "common/turned.wgsl"

// Per head first the low halves of all units of eight, then the high ones: neighbouring lanes read neighbouring words.
var<workgroup> query: array<vec4<f32>, HEADS * FOURS>;
var<workgroup> own_key: array<Four, FOURS>;
var<workgroup> own_value: array<Four, FOURS>;
var<workgroup> own_parts: array<f32, HEADS * QUADS>;

fn query_place(head: u32, at: u32) -> u32 {
    return (2u * head + at % 2u) * UNITS + at / 2u;
}

// The live ones of HEADS queries from column 4·first of the row on; the others are zeros.
fn stage_queries(first: u32, live: u32, position: u32, stride: u32, lane: u32) {
    for (var i = lane; i < HEADS * UNITS; i += LANES) {
        let head = i / UNITS;
        let j = i % UNITS;
        var turn = Turned(vec4<f32>(0.0), vec4<f32>(0.0));
        if (head < live) {
            turn = turned(first + head * FOURS, j, position, stride);
        }
        query[query_place(head, j)] = turn.low;
        query[query_place(head, UNITS + j)] = turn.high;
    }
}

// A lane's part of the score of the row's own key: units number part, part + QUADS and so on.
fn own_part(head: u32, part: u32) -> f32 {
    var sum = 0.0;
    for (var unit = part; unit < UNITS; unit += QUADS) {
        sum += dot(query[2u * head * UNITS + unit], four(own_key[2u * unit]))
            + dot(query[(2u * head + 1u) * UNITS + unit], four(own_key[2u * unit + 1u]));
    }
    return sum;
}

// The row's own key and value, from columns 4·key and 4·value on, as the cache stores them.
fn stage_own(key: u32, value: u32, position: u32, stride: u32, lane: u32) {
    // Lanes past the end of a head repeat its beginning, so that no load waits for a branch.
    let turn = turned(key, lane % UNITS, position, stride);
    let own = packed(tree_four(value + lane % FOURS, stride));
    if (lane < UNITS) {
        own_key[lane] = packed(turn.low);
        own_key[UNITS + lane] = packed(turn.high);
    }
    if (lane < FOURS) {
        own_value[lane] = own;
    }
}

// Both into the cache, row number `to` of DIM values.
fn store_own(to: u32, lane: u32) {
    if (lane < UNITS) {
        store_key(to * UNITS + lane, own_key[2u * lane], own_key[2u * lane + 1u]);
    }
    if (lane < FOURS) {
        values[to * FOURS + lane] = own_value[lane];
    }
}
