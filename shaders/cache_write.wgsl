// Stores the keys and values of each row in the paged cache, rounded to halves or, for verification, as they are.
//
// k, v: f32 [rows, kv_heads·dim + 2·skip], those of the slab from 2·first on; positions, slots: u32 [rows] (position 0xffffffff: row not in use);
// pages: u32 [slots, pages_per_slot], the page that holds positions 256·j .. of a slot; keys, values: a slab
// of the cache, halves in pairs [page][kv_heads][256][dim / 2]. One lane a pair, a flat grid.
// Oracle: reference/cache_write.rs.
override WG: u32;
override PAGE: u32;
#import "common/index.wgsl"
#import "common/store_half.wgsl"

struct Params { rows: u32, skip: u32, first: u32, kv_heads: u32, dim: u32, pages_per_slot: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> k: array<f32>;
@group(0) @binding(1) var<storage, read> v: array<f32>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> slots: array<u32>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read_write> keys: array<u32>;
@group(0) @binding(6) var<storage, read_write> values: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let half_dim = p.dim / 2u;
    let pair = flat_workgroup(id, count) * WG + lane;
    if (pair >= p.rows * p.kv_heads * half_dim) {
        return;
    }
    let head = (pair / half_dim) % p.kv_heads;
    let row = pair / (half_dim * p.kv_heads);
    let position = positions[row];
    if (position == 0xffffffffu) {
        return;
    }
    let page = pages[slots[row] * p.pages_per_slot + position / PAGE];
    let to = ((page * p.kv_heads + head) * PAGE + position % PAGE) * half_dim + pair % half_dim;
    let at = 2u * (pair + row * p.skip + p.first);
    store_pair(to, k[at], k[at + 1u], v[at], v[at + 1u]);
}
