// Rotary positions, in place: for each head and i < dim / 2, with (c, s) = table[positions[r], i],
// (x[i], x[i + dim/2]) becomes (x[i]·c − x[i + dim/2]·s, x[i + dim/2]·c + x[i]·s).
//
// x: f32 [rows, heads, dim]; positions: u32 [rows], 0xffffffff for a row that is not in use;
// table: vec2<f32> [context, dim / 2], cosine and sine, made in double precision on the host (a driver's
// sine may be off by 1e-4 at thousands of radians). One lane a pair, a flat grid.
// Oracle: reference/rope.rs.
override WG: u32;
#import "common/index.wgsl"

struct Params { rows: u32, heads: u32, dim: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> positions: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let half_dim = p.dim / 2u;
    let pair = flat_workgroup(id, count) * WG + lane;
    if (pair >= p.rows * p.heads * half_dim) {
        return;
    }
    let i = pair % half_dim;
    let head = pair / half_dim;
    let position = positions[head / p.heads];
    if (position == 0xffffffffu) {
        return;
    }
    let turn = table[position * half_dim + i];
    let at = head * p.dim + i;
    let a = x[at];
    let b = x[at + half_dim];
    x[at] = a * turn.x - b * turn.y;
    x[at + half_dim] = b * turn.x + a * turn.y;
}
