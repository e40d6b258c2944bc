// What quantizing did to the weights, and whether the packed matrix holds what the quantizer meant: of each tile
// parts[tile] = (Σ (w − d)², max |w − d|), and mismatches += pairs of halves in which d and the quantizer's own
// weights differ in a bit.
//
// w: f32 [k, n], rows in packed order; d, own: halves in pairs [n, k / 2]; parts: vec2<f32> [k / 32, n / 32]. A
// workgroup of 256 lanes has a tile of 32 rows by 32 columns. Grid (n / 32, k / 32).
// Oracle: reference/weight_error.rs.
struct Params { n: u32, k: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read> decoded: array<u32>;
@group(0) @binding(2) var<storage, read> own: array<u32>;
@group(0) @binding(3) var<storage, read_write> parts: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> mismatches: array<atomic<u32>>;

var<workgroup> tile: array<vec2<f32>, 512>; // [row / 2][column]
var<workgroup> results: array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var wrong = 0u;
    for (var i = lane; i < 512u; i += 256u) {
        let at = ((id.x * 32u + i / 16u) * p.k + id.y * 32u) / 2u + i % 16u;
        let halves = decoded[at];
        wrong += select(0u, 1u, halves != own[at]);
        tile[i % 16u * 32u + i / 16u] = unpack2x16float(halves);
    }
    if (wrong > 0u) {
        atomicAdd(&mismatches[0], wrong);
    }
    workgroupBarrier();
    var result = vec2<f32>(0.0);
    for (var i = lane; i < 512u; i += 256u) {
        let at = (id.y * 32u + i / 32u * 2u) * p.n + id.x * 32u + i % 32u;
        let difference = abs(vec2<f32>(w[at], w[at + p.n]) - tile[i]);
        let squares = difference * difference;
        result = vec2<f32>(result.x + (squares.x + squares.y), max(result.y, max(difference.x, difference.y)));
    }
    results[lane] = result;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half = half / 2u) {
        if (lane < half) {
            let other = results[lane + half];
            results[lane] = vec2<f32>(results[lane].x + other.x, max(results[lane].y, other.y));
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        parts[id.y * (p.n / 32u) + id.x] = results[0];
    }
}
