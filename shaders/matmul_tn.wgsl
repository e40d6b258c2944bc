// Product over rows: C[i, j] = beta·C[i, j] + alpha·Σ_r A[r, i]·w[r]·B[r, j], r < rows.
//
// a, b, c: f32, row-major, seen through windows: `first` is the index of a window's first value, `pitch` the
// length of a row, both counted in vec4 (so columns come in fours). weights: f32, from w_first on; only read with
// WEIGHTED. UPPER leaves tiles alone that lie wholly below the diagonal, where the column of A is `offset` more than
// i and that of B is so much more than j. A workgroup of 32 lanes makes 16 × 128 outputs, a lane four columns of them: the values
// of A are the same for all lanes, which a card reads once and a processor keeps in scalars. Nothing goes through workgroup
// memory, and there are no barriers. Grid (n / 128, m / 16). A and B may be one buffer; the sum's order is fixed.
// Oracle: reference/matmul_tn.rs.
const TILE_ROWS: u32 = 16u;
const TILE_COLUMNS: u32 = 128u;

#import "common/product_tn.wgsl"

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i0 = id.y * TILE_ROWS;
    let j0 = id.x * TILE_COLUMNS;
    if ((p.flags & UPPER) != 0u && i32(j0 + TILE_COLUMNS) + p.offset <= i32(i0)) {
        return;
    }
    var c0 = vec4<f32>(0.0);
    var c1 = vec4<f32>(0.0);
    var c2 = vec4<f32>(0.0);
    var c3 = vec4<f32>(0.0);
    var c4 = vec4<f32>(0.0);
    var c5 = vec4<f32>(0.0);
    var c6 = vec4<f32>(0.0);
    var c7 = vec4<f32>(0.0);
    var c8 = vec4<f32>(0.0);
    var c9 = vec4<f32>(0.0);
    var c10 = vec4<f32>(0.0);
    var c11 = vec4<f32>(0.0);
    var c12 = vec4<f32>(0.0);
    var c13 = vec4<f32>(0.0);
    var c14 = vec4<f32>(0.0);
    var c15 = vec4<f32>(0.0);
    // Past the edge the last values are read again and nothing is stored.
    let a0_at = min(i0 / 4u + 0u, p.m / 4u - 1u);
    let a1_at = min(i0 / 4u + 1u, p.m / 4u - 1u);
    let a2_at = min(i0 / 4u + 2u, p.m / 4u - 1u);
    let a3_at = min(i0 / 4u + 3u, p.m / 4u - 1u);
    let j = j0 / 4u + lane;
    let b_at = min(j, p.n / 4u - 1u);
    for (var r = 0u; r < p.rows; r++) {
        var w = 1.0;
        if ((p.flags & WEIGHTED) != 0u) {
            w = weights[p.w_first + r];
        }
        let a_row = p.a_first + r * p.a_pitch;
        let right = b[p.b_first + r * p.b_pitch + b_at];
        let a0 = w * a[a_row + a0_at];
        let a1 = w * a[a_row + a1_at];
        let a2 = w * a[a_row + a2_at];
        let a3 = w * a[a_row + a3_at];
        c0 += a0.x * right; c1 += a0.y * right; c2 += a0.z * right; c3 += a0.w * right;
        c4 += a1.x * right; c5 += a1.y * right; c6 += a1.z * right; c7 += a1.w * right;
        c8 += a2.x * right; c9 += a2.y * right; c10 += a2.z * right; c11 += a2.w * right;
        c12 += a3.x * right; c13 += a3.y * right; c14 += a3.z * right; c15 += a3.w * right;
    }
    store(i0 + 0u, j, c0); store(i0 + 1u, j, c1); store(i0 + 2u, j, c2); store(i0 + 3u, j, c3);
    store(i0 + 4u, j, c4); store(i0 + 5u, j, c5); store(i0 + 6u, j, c6); store(i0 + 7u, j, c7);
    store(i0 + 8u, j, c8); store(i0 + 9u, j, c9); store(i0 + 10u, j, c10); store(i0 + 11u, j, c11);
    store(i0 + 12u, j, c12); store(i0 + 13u, j, c13); store(i0 + 14u, j, c14); store(i0 + 15u, j, c15);
}
