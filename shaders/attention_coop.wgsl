// `attention` for passes of many rows, on matrix units, without splits: out[r, head] = softmax(q[r, head]·Kᵀ·scale)·V over
// positions first ..= positions[r] of the row's slot, where first is 0 or, with a sliding window, positions[r] − window + 1.
//
// The `group` query heads of a key/value head are stacked: line n is row n / group, head n % group, so that any group fills the
// tiles and shares their keys and values. A workgroup has ROWS lines, a subgroup D of them, a lane a SHARE-th of one. Per tile of
// KEYS positions: keys and values to workgroup memory (the next ones are on their way to registers), S = Q·Kᵀ through it,
// P = 2^(S − reference + HEADROOM) back to it in halves, O += P·V in fragments. A line's reference is the largest score when it was
// last set; only a score more than 2^ROOM times that sets it anew, which takes O through workgroup memory, since fragments
// have no elements. So P ≤ 2^15, the largest is at least 2^9, and every key is multiplied once. The slots of a workgroup's
// rows take turns (most often there is one), each from the first to the last tile that one of its rows sees; what a row does not
// see weighs 0. `generated/attention_coop*.wgsl` (src/ops/attention_coop.rs) has the fragments, by name.
//
// q: f32 [rows, heads, DIM]; keys, values: a slab [page][kv_heads][PAGE][DIM] of halves, for `group` query heads each from
// first_head on; pages: u32 [slots, pages_per_slot]; positions, slots: u32 [rows] (0xffffffff: row not in use, its output is left
// alone); out: f32 [rows, heads, DIM]. Grid (kv_heads, rows · group / ROWS).
//
// Exactness: q is rounded to halves after scaling its row by a power of two, 2^-11 of a value (2^-35 of the row's largest at the
// small end), so a score is off by 2^-11·Σ|q·k|·scale; weights are rounded to 2^-11 of themselves (2^-23 of the
// largest where a driver flushes subnormals), and their sum is that of the rounded ones. Finite inputs give finite outputs. A
// value in the cache that is not finite reaches all rows of the workgroup that share its slot.
//
// FMAs: 2·DIM a line and key, for up to ROWS / group + 2·KEYS more keys than a row sees. Bytes: 4·DIM a workgroup and key out of L2,
// 8·DIM a line of q and out. Workgroup memory, a subgroup and tile: 4·KEYS·DIM read as fragments, KEYS·DIM staged, 12·D·KEYS of
// scores and weights. On an H100 (DIM 64, D 16) that is 16 KiB, 128 clocks of a multiprocessor, against 64 clocks of products and
// about 40 of softmax, so 240 TFLOP/s if all overlapped; with 2 to 4 workgroups on each and five barriers a tile, 60 to 90 were
// expected; 512 rows of 40/40 and 64/8 heads of 128 after 2048 positions made 62 and 76 (2026-11-24). Not measured: 2048 rows of 9/3 heads of
// 64 (4.8 GFLOP; 288 workgroups, the longest of 64 tiles of 0.6 to 0.9 µs), expected in 0.06 to 0.1 ms; 32/32 heads of 128 (34
// GFLOP, 1024 workgroups), in 0.4 to 0.6 ms.
// Oracle: reference/attention.rs.
override PAGE: u32;

struct Params {
    rows: u32, heads: u32, first_head: u32, group: u32, kv_heads: u32, pages_per_slot: u32, window: u32, scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> keys: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> values: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> pages: array<u32>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
@group(0) @binding(5) var<storage, read> slots: array<u32>;
@group(0) @binding(6) var<storage, read_write> out: array<vec2<f32>>;

const LOWEST: f32 = -3.0e38;
const NONE: u32 = 0xffffffffu;
const LOG2_E: f32 = 1.4426950408889634;
const HEADROOM: f32 = 9.0;
const ROOM: f32 = 6.0;
const EIGHTS: u32 = DIM / 8u;
// Lanes of a line.
const SHARE: u32 = LANES / D;

#import "generated/attention_coop.wgsl"

var<workgroup> next_slot: atomic<u32>;
var<workgroup> begin_at: atomic<u32>;
var<workgroup> end_at: atomic<u32>;
// A line's reference has changed.
var<workgroup> moved: u32;

// Row number (of DIM values) of a position in keys and values.
fn place(slot: u32, kv_head: u32, position: u32) -> u32 {
    let page = pages[slot * p.pages_per_slot + position / PAGE];
    return (page * p.kv_heads + kv_head) * PAGE + position % PAGE;
}

fn four(low: u32, high: u32) -> vec4<f16> {
    return vec4<f16>(vec2<f16>(unpack2x16float(low)), vec2<f16>(unpack2x16float(high)));
}

// Line number and number of 16 bytes in it of a lane's piece of a tile.
fn piece_of(number: u32) -> vec2<u32> {
    return vec2<u32>(number / EIGHTS, number % EIGHTS);
}

// Zeros outside begin .. end, which may be what another sequence has left.
fn key_piece(at: vec2<u32>, base: u32, tile: u32, begin: u32, end: u32) -> vec4<u32> {
    var piece = vec4<u32>(0u);
    if (at.x < KEYS && tile + at.x >= begin && tile + at.x < end) {
        piece = keys[(base + at.x) * EIGHTS + at.y];
    }
    return piece;
}

fn value_piece(at: vec2<u32>, base: u32, tile: u32, begin: u32, end: u32) -> vec4<u32> {
    var piece = vec4<u32>(0u);
    if (at.x < KEYS && tile + at.x >= begin && tile + at.x < end) {
        piece = values[(base + at.x) * EIGHTS + at.y];
    }
    return piece;
}

fn stage_piece(at: vec2<u32>, first: u32, piece: vec4<u32>) {
    if (at.x < KEYS) {
        set_four(first + at.x, 2u * at.y, four(piece.x, piece.y));
        set_four(first + at.x, 2u * at.y + 1u, four(piece.z, piece.w));
    }
}

// The largest of a line's lanes.
fn widest(own: f32) -> f32 {
    var most = own;
    for (var other = 1u; other < SHARE; other *= 2u) {
        most = max(most, subgroupShuffleXor(most, other));
    }
    return most;
}

fn in_all(own: f32) -> f32 {
    var sum = own;
    for (var other = 1u; other < SHARE; other *= 2u) {
        sum += subgroupShuffleXor(sum, other);
    }
    return sum;
}

// Two scores of a line, in powers of two; LOWEST where they do not count.
fn scored(line: u32, pair: u32, tile: u32, low: u32, high: u32, factor: f32) -> vec2<f32> {
    let at = tile + 2u * pair + vec2<u32>(0u, 1u);
    let live = (at >= vec2<u32>(low)) & (at < vec2<u32>(high));
    return select(vec2<f32>(LOWEST), factor * score_pair(line, pair), live);
}

fn weighed(score: vec2<f32>, largest: f32) -> vec2<f16> {
    return vec2<f16>(select(exp2(score - largest + HEADROOM), vec2<f32>(0.0), score == vec2<f32>(LOWEST)));
}

fn rescale_pair(line: u32, pair: u32, factor: f32) {
    set_score_pair(line, pair, factor * score_pair(line, pair));
}

@compute @workgroup_size(LANES * SUBGROUPS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) index: u32, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
    let kv_head = id.x;
    let share = lane % SHARE;
    let line = subgroup * D + lane / SHARE;
    // The last rows see the most, so they begin first.
    let number = (count.y - 1u - id.y) * ROWS + line;
    let row = min(number / p.group, p.rows - 1u);
    let head = p.first_head + kv_head * p.group + number % p.group;
    let position = positions[row];
    let slot = slots[row];
    let used = number < p.rows * p.group && position != NONE;
    let first = select(0u, position + 1u - p.window, position + 1u > p.window);

    // The query in halves, its largest value between 2^10 and 2^11.
    let query = (row * p.heads + head) * (DIM / 4u);
    var most = 0.0;
    for (var i = share; i < DIM / 4u; i += SHARE) {
        let part = abs(q[query + i]);
        most = max(most, max(max(part.x, part.y), max(part.z, part.w)));
    }
    let exponent = clamp(bitcast<u32>(widest(most)) >> 23u, 11u, 250u);
    let unit = bitcast<f32>((264u - exponent) << 23u);
    for (var i = share; i < DIM / 4u; i += SHARE) {
        set_four(line, i, vec4<f16>(unit * q[query + i]));
    }
    let factor = bitcast<f32>((exponent - 10u) << 23u) * p.scale * LOG2_E;
    workgroupBarrier();
#import "generated/attention_coop_begin.wgsl"

    var largest = LOWEST;
    var total = 0.0;
    var from_slot = 0u;
    loop {
        workgroupBarrier();
        if (index == 0u) {
            atomicStore(&next_slot, NONE);
            atomicStore(&begin_at, NONE);
            atomicStore(&end_at, 0u);
        }
        workgroupBarrier();
        if (used && slot >= from_slot) {
            atomicMin(&next_slot, slot);
        }
        workgroupBarrier();
        let now = atomicLoad(&next_slot);
        if (now == NONE) {
            break;
        }
        from_slot = now + 1u;
        let mine = used && slot == now;
        let low = select(0u, first, mine);
        let high = select(0u, position + 1u, mine);
        if (mine) {
            atomicMin(&begin_at, low);
            atomicMax(&end_at, high);
        }
        workgroupBarrier();
        let begin = atomicLoad(&begin_at);
        let end = atomicLoad(&end_at);
        let start = begin / KEYS * KEYS;
        var pieces = fetch(index, place(now, kv_head, start), start, begin, end);
        for (var tile = start; tile < end; tile += KEYS) {
            stage(index, pieces);
            if (index == 0u) {
                moved = 0u;
            }
            workgroupBarrier();
            let after = select(tile, tile + KEYS, tile + KEYS < end);
            pieces = fetch(index, place(now, kv_head, after), after, begin, end);
#import "generated/attention_coop_scores.wgsl"
            workgroupBarrier();
#import "generated/attention_coop_peak.wgsl"
            let rises = peak > largest + ROOM;
            let next = select(largest, peak, rises);
            let keep = exp2(largest - next);
            if (rises && largest > LOWEST) {
                moved = 1u;
            }
            largest = next;
            total *= keep;
#import "generated/attention_coop_weights.wgsl"
            let any = workgroupUniformLoad(&moved);
            if (any != 0u) {
#import "generated/attention_coop_rescale.wgsl"
            }
#import "generated/attention_coop_values.wgsl"
            workgroupBarrier();
        }
    }
    let share_of_all = 1.0 / in_all(total);
    let to = (row * p.heads + head) * (DIM / 2u);
#import "generated/attention_coop_store.wgsl"
}
