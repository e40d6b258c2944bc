// `matmul` for subgroups of eight, which is how processors run shaders: there a barrier costs more than the loads that it
// saves. A workgroup of eight lanes makes 32 × 32 outputs; a lane loads two values of k of four rows of x and of four of w,
// and x's are passed on from lane to lane. Grid (n / 32, rows / 32); all else as in `matmul`.
// Oracle: reference/matmul.rs.
const TILE: u32 = 32u;

#import "common/product.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row0 = id.y * TILE;
    let n0 = id.x * TILE + 4u * lane;
    let pairs = p.k / 2u;
    var c0 = vec4<f32>(0.0); var c1 = vec4<f32>(0.0); var c2 = vec4<f32>(0.0); var c3 = vec4<f32>(0.0);
    var c4 = vec4<f32>(0.0); var c5 = vec4<f32>(0.0); var c6 = vec4<f32>(0.0); var c7 = vec4<f32>(0.0);
    var c8 = vec4<f32>(0.0); var c9 = vec4<f32>(0.0); var c10 = vec4<f32>(0.0); var c11 = vec4<f32>(0.0);
    var c12 = vec4<f32>(0.0); var c13 = vec4<f32>(0.0); var c14 = vec4<f32>(0.0); var c15 = vec4<f32>(0.0);
    var c16 = vec4<f32>(0.0); var c17 = vec4<f32>(0.0); var c18 = vec4<f32>(0.0); var c19 = vec4<f32>(0.0);
    var c20 = vec4<f32>(0.0); var c21 = vec4<f32>(0.0); var c22 = vec4<f32>(0.0); var c23 = vec4<f32>(0.0);
    var c24 = vec4<f32>(0.0); var c25 = vec4<f32>(0.0); var c26 = vec4<f32>(0.0); var c27 = vec4<f32>(0.0);
    var c28 = vec4<f32>(0.0); var c29 = vec4<f32>(0.0); var c30 = vec4<f32>(0.0); var c31 = vec4<f32>(0.0);
    // Past the edge the last row is read again and nothing is stored.
    let x0_at = min(row0 + 4u * lane + 0u, p.rows - 1u) * pairs;
    let x1_at = min(row0 + 4u * lane + 1u, p.rows - 1u) * pairs;
    let x2_at = min(row0 + 4u * lane + 2u, p.rows - 1u) * pairs;
    let x3_at = min(row0 + 4u * lane + 3u, p.rows - 1u) * pairs;
    let w0_at = min(n0 + 0u, p.n - 1u) * pairs;
    let w1_at = min(n0 + 1u, p.n - 1u) * pairs;
    let w2_at = min(n0 + 2u, p.n - 1u) * pairs;
    let w3_at = min(n0 + 3u, p.n - 1u) * pairs;
    for (var pair = 0u; pair < pairs; pair++) {
        let x0 = x[x0_at + pair];
        let x1 = x[x1_at + pair];
        let x2 = x[x2_at + pair];
        let x3 = x[x3_at + pair];
        let w0 = unpack2x16float(w[w0_at + pair]);
        let w1 = unpack2x16float(w[w1_at + pair]);
        let w2 = unpack2x16float(w[w2_at + pair]);
        let w3 = unpack2x16float(w[w3_at + pair]);
        let left = vec4<f32>(x0.x, x1.x, x2.x, x3.x);
        let next = vec4<f32>(x0.y, x1.y, x2.y, x3.y);
        let r = vec4<f32>(w0.x, w1.x, w2.x, w3.x);
        let s = vec4<f32>(w0.y, w1.y, w2.y, w3.y);
        let a0 = subgroupBroadcast(left, 0u);
        let b0 = subgroupBroadcast(next, 0u);
        c0 = (c0 + a0.x * r) + b0.x * s; c1 = (c1 + a0.y * r) + b0.y * s;
        c2 = (c2 + a0.z * r) + b0.z * s; c3 = (c3 + a0.w * r) + b0.w * s;
        let a1 = subgroupBroadcast(left, 1u);
        let b1 = subgroupBroadcast(next, 1u);
        c4 = (c4 + a1.x * r) + b1.x * s; c5 = (c5 + a1.y * r) + b1.y * s;
        c6 = (c6 + a1.z * r) + b1.z * s; c7 = (c7 + a1.w * r) + b1.w * s;
        let a2 = subgroupBroadcast(left, 2u);
        let b2 = subgroupBroadcast(next, 2u);
        c8 = (c8 + a2.x * r) + b2.x * s; c9 = (c9 + a2.y * r) + b2.y * s;
        c10 = (c10 + a2.z * r) + b2.z * s; c11 = (c11 + a2.w * r) + b2.w * s;
        let a3 = subgroupBroadcast(left, 3u);
        let b3 = subgroupBroadcast(next, 3u);
        c12 = (c12 + a3.x * r) + b3.x * s; c13 = (c13 + a3.y * r) + b3.y * s;
        c14 = (c14 + a3.z * r) + b3.z * s; c15 = (c15 + a3.w * r) + b3.w * s;
        let a4 = subgroupBroadcast(left, 4u);
        let b4 = subgroupBroadcast(next, 4u);
        c16 = (c16 + a4.x * r) + b4.x * s; c17 = (c17 + a4.y * r) + b4.y * s;
        c18 = (c18 + a4.z * r) + b4.z * s; c19 = (c19 + a4.w * r) + b4.w * s;
        let a5 = subgroupBroadcast(left, 5u);
        let b5 = subgroupBroadcast(next, 5u);
        c20 = (c20 + a5.x * r) + b5.x * s; c21 = (c21 + a5.y * r) + b5.y * s;
        c22 = (c22 + a5.z * r) + b5.z * s; c23 = (c23 + a5.w * r) + b5.w * s;
        let a6 = subgroupBroadcast(left, 6u);
        let b6 = subgroupBroadcast(next, 6u);
        c24 = (c24 + a6.x * r) + b6.x * s; c25 = (c25 + a6.y * r) + b6.y * s;
        c26 = (c26 + a6.z * r) + b6.z * s; c27 = (c27 + a6.w * r) + b6.w * s;
        let a7 = subgroupBroadcast(left, 7u);
        let b7 = subgroupBroadcast(next, 7u);
        c28 = (c28 + a7.x * r) + b7.x * s; c29 = (c29 + a7.y * r) + b7.y * s;
        c30 = (c30 + a7.z * r) + b7.z * s; c31 = (c31 + a7.w * r) + b7.w * s;
    }
    store(row0 + 0u, n0, c0); store(row0 + 1u, n0, c1); store(row0 + 2u, n0, c2); store(row0 + 3u, n0, c3);
    store(row0 + 4u, n0, c4); store(row0 + 5u, n0, c5); store(row0 + 6u, n0, c6); store(row0 + 7u, n0, c7);
    store(row0 + 8u, n0, c8); store(row0 + 9u, n0, c9); store(row0 + 10u, n0, c10); store(row0 + 11u, n0, c11);
    store(row0 + 12u, n0, c12); store(row0 + 13u, n0, c13); store(row0 + 14u, n0, c14); store(row0 + 15u, n0, c15);
    store(row0 + 16u, n0, c16); store(row0 + 17u, n0, c17); store(row0 + 18u, n0, c18); store(row0 + 19u, n0, c19);
    store(row0 + 20u, n0, c20); store(row0 + 21u, n0, c21); store(row0 + 22u, n0, c22); store(row0 + 23u, n0, c23);
    store(row0 + 24u, n0, c24); store(row0 + 25u, n0, c25); store(row0 + 26u, n0, c26); store(row0 + 27u, n0, c27);
    store(row0 + 28u, n0, c28); store(row0 + 29u, n0, c29); store(row0 + 30u, n0, c30); store(row0 + 31u, n0, c31);
}

fn store(row: u32, n: u32, sums: vec4<f32>) {
    if (row >= p.rows) {
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        if (n + i < p.n) {
            store_output(row, n + i, sums[i]);
        }
    }
}
