// Stores the keys and values of each row in the paged cache, from the partial sums of the q|k|v product: sums them, rotates
// the keys, rounds. For rows that are several positions of one slot, before `attention_decode` in its stored form.
//
// partial: f32 [SUMS, rows, 4·columns], keys from column 4·key and values from 4·value, those of the slab; table: cosine, sine [context, DIM / 2];
// positions, slots: u32 [rows] (position 0xffffffff: row not in use); pages: u32 [slots, pages_per_slot]; keys, values: a slab
// of the cache, halves in pairs or (import) single precision [page][kv_heads][PAGE][DIM]. One lane eight keys and eight values, a flat grid.
// Oracle: reference/attention_decode.rs.
override WG: u32;
override PAGE: u32;
override DIM: u32;
override SUMS: u32;
#import "common/index.wgsl"
#import "common/store_half.wgsl"
#import "common/turned.wgsl"

struct Params {
    rows: u32, columns: u32, key: u32, value: u32, kv_heads: u32, pages_per_slot: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> partial: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> slots: array<u32>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read_write> keys: array<u32>;
@group(0) @binding(6) var<storage, read_write> values: array<u32>;

fn store_four(at: u32, k: vec4<f32>, v: vec4<f32>) {
    store_pair(at, k.x, k.y, v.x, v.y);
    store_pair(at + 1u, k.z, k.w, v.z, v.w);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let units = DIM / 8u;
    let number = flat_workgroup(id, count) * WG + lane;
    if (number >= p.rows * p.kv_heads * units) {
        return;
    }
    let j = number % units;
    let head = number / units % p.kv_heads;
    let row = number / units / p.kv_heads;
    let position = positions[row];
    if (position == 0xffffffffu) {
        return;
    }
    let stride = p.rows * p.columns;
    let first = row * p.columns + head * (DIM / 4u);
    let key = turned(first + p.key, j, position, stride);
    let value = first + p.value + j;
    let page = pages[slots[row] * p.pages_per_slot + position / PAGE];
    let to = ((page * p.kv_heads + head) * PAGE + position % PAGE) * (DIM / 2u) + 2u * j;
    store_four(to, key.low, tree_four(value, stride));
    store_four(to + DIM / 4u, key.high, tree_four(value + units, stride));
}
