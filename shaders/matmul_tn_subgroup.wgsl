// `matmul_tn` for subgroups of eight, which is how processors run shaders: there a load costs as much as some twenty
// multiplications, in every lane. A workgroup of eight lanes makes 32 × 32 outputs, loads four columns of A and four of B a
// lane, and passes A's on from lane to lane. Grid (n / 32, m / 32); all else as in `matmul_tn`.
// Oracle: reference/matmul_tn.rs.
const TILE: u32 = 32u;

#import "common/product_tn.wgsl"

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i0 = id.y * TILE;
    let j0 = id.x * TILE;
    if ((p.flags & UPPER) != 0u && i32(j0 + TILE) + p.offset <= i32(i0)) {
        return;
    }
    var c0 = vec4<f32>(0.0); var c1 = vec4<f32>(0.0); var c2 = vec4<f32>(0.0); var c3 = vec4<f32>(0.0);
    var c4 = vec4<f32>(0.0); var c5 = vec4<f32>(0.0); var c6 = vec4<f32>(0.0); var c7 = vec4<f32>(0.0);
    var c8 = vec4<f32>(0.0); var c9 = vec4<f32>(0.0); var c10 = vec4<f32>(0.0); var c11 = vec4<f32>(0.0);
    var c12 = vec4<f32>(0.0); var c13 = vec4<f32>(0.0); var c14 = vec4<f32>(0.0); var c15 = vec4<f32>(0.0);
    var c16 = vec4<f32>(0.0); var c17 = vec4<f32>(0.0); var c18 = vec4<f32>(0.0); var c19 = vec4<f32>(0.0);
    var c20 = vec4<f32>(0.0); var c21 = vec4<f32>(0.0); var c22 = vec4<f32>(0.0); var c23 = vec4<f32>(0.0);
    var c24 = vec4<f32>(0.0); var c25 = vec4<f32>(0.0); var c26 = vec4<f32>(0.0); var c27 = vec4<f32>(0.0);
    var c28 = vec4<f32>(0.0); var c29 = vec4<f32>(0.0); var c30 = vec4<f32>(0.0); var c31 = vec4<f32>(0.0);
    // Past the edge the last values are read again and nothing is stored.
    let j = j0 / 4u + lane;
    let a_from = p.a_first + min(i0 / 4u + lane, p.m / 4u - 1u);
    let b_from = p.b_first + min(j, p.n / 4u - 1u);
    for (var r = 0u; r < p.rows; r++) {
        var left = a[a_from + r * p.a_pitch];
        let right = b[b_from + r * p.b_pitch];
        if ((p.flags & WEIGHTED) != 0u) {
            left *= weights[p.w_first + r];
        }
        let a0 = subgroupBroadcast(left, 0u);
        c0 += a0.x * right; c1 += a0.y * right; c2 += a0.z * right; c3 += a0.w * right;
        let a1 = subgroupBroadcast(left, 1u);
        c4 += a1.x * right; c5 += a1.y * right; c6 += a1.z * right; c7 += a1.w * right;
        let a2 = subgroupBroadcast(left, 2u);
        c8 += a2.x * right; c9 += a2.y * right; c10 += a2.z * right; c11 += a2.w * right;
        let a3 = subgroupBroadcast(left, 3u);
        c12 += a3.x * right; c13 += a3.y * right; c14 += a3.z * right; c15 += a3.w * right;
        let a4 = subgroupBroadcast(left, 4u);
        c16 += a4.x * right; c17 += a4.y * right; c18 += a4.z * right; c19 += a4.w * right;
        let a5 = subgroupBroadcast(left, 5u);
        c20 += a5.x * right; c21 += a5.y * right; c22 += a5.z * right; c23 += a5.w * right;
        let a6 = subgroupBroadcast(left, 6u);
        c24 += a6.x * right; c25 += a6.y * right; c26 += a6.z * right; c27 += a6.w * right;
        let a7 = subgroupBroadcast(left, 7u);
        c28 += a7.x * right; c29 += a7.y * right; c30 += a7.z * right; c31 += a7.w * right;
    }
    store(i0 + 0u, j, c0); store(i0 + 1u, j, c1); store(i0 + 2u, j, c2); store(i0 + 3u, j, c3);
    store(i0 + 4u, j, c4); store(i0 + 5u, j, c5); store(i0 + 6u, j, c6); store(i0 + 7u, j, c7);
    store(i0 + 8u, j, c8); store(i0 + 9u, j, c9); store(i0 + 10u, j, c10); store(i0 + 11u, j, c11);
    store(i0 + 12u, j, c12); store(i0 + 13u, j, c13); store(i0 + 14u, j, c14); store(i0 + 15u, j, c15);
    store(i0 + 16u, j, c16); store(i0 + 17u, j, c17); store(i0 + 18u, j, c18); store(i0 + 19u, j, c19);
    store(i0 + 20u, j, c20); store(i0 + 21u, j, c21); store(i0 + 22u, j, c22); store(i0 + 23u, j, c23);
    store(i0 + 24u, j, c24); store(i0 + 25u, j, c25); store(i0 + 26u, j, c26); store(i0 + 27u, j, c27);
    store(i0 + 28u, j, c28); store(i0 + 29u, j, c29); store(i0 + 30u, j, c30); store(i0 + 31u, j, c31);
}
