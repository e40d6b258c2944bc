// Product over rows: C[i, j] = beta·C[i, j] + alpha·Σ_r A[r, i]·w[r]·B[r, j], r < rows.
//
// a, b, c: f32, row-major, seen through windows: `first` is the index of a window's first value, `pitch` the
// length of a row, both counted in vec4 (so columns come in fours). weights: f32, from w_first on; only read with
// WEIGHTED. UPPER leaves tiles alone that lie wholly below the diagonal, where a column of B minus a column of A is
// `offset` more than j − i. A workgroup of 8 × 8 lanes makes 64 × 64 outputs from tiles of 16 rows in workgroup
// memory, a lane 8 × 8 of them. Grid (n / 64, m / 64). A and B may be one buffer; the sum's order is fixed.
// Oracle: reference/matmul_tn.rs.
const TILE: u32 = 64u;
const STEP: u32 = 16u;
const LINE: u32 = 16u; // vec4 in a tile's row

struct Params {
    rows: u32, m: u32, n: u32, flags: u32,
    a_first: u32, a_pitch: u32, b_first: u32, b_pitch: u32, c_first: u32, c_pitch: u32,
    w_first: u32, offset: i32, alpha: f32, beta: f32,
}
var<immediate> p: Params;
const WEIGHTED: u32 = 1u;
const UPPER: u32 = 2u;

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<vec4<f32>>;

// [row][column / 4]
var<workgroup> tile_a: array<vec4<f32>, 256>;
var<workgroup> tile_b: array<vec4<f32>, 256>;

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
    let i0 = id.y * TILE;
    let j0 = id.x * TILE;
    if ((p.flags & UPPER) != 0u && i32(j0 + TILE) + p.offset <= i32(i0)) {
        return;
    }
    var r0l = vec4<f32>(0.0); var r0h = vec4<f32>(0.0);
    var r1l = vec4<f32>(0.0); var r1h = vec4<f32>(0.0);
    var r2l = vec4<f32>(0.0); var r2h = vec4<f32>(0.0);
    var r3l = vec4<f32>(0.0); var r3h = vec4<f32>(0.0);
    var r4l = vec4<f32>(0.0); var r4h = vec4<f32>(0.0);
    var r5l = vec4<f32>(0.0); var r5h = vec4<f32>(0.0);
    var r6l = vec4<f32>(0.0); var r6h = vec4<f32>(0.0);
    var r7l = vec4<f32>(0.0); var r7h = vec4<f32>(0.0);
    let column = index % LINE;
    let a_inside = i0 / 4u + column < p.m / 4u;
    let b_inside = j0 / 4u + column < p.n / 4u;
    let a_from = p.a_first + i0 / 4u + column;
    let b_from = p.b_first + j0 / 4u + column;
    for (var first = 0u; first < p.rows; first += STEP) {
        for (var line = index / LINE; line < STEP; line += 4u) {
            let row = first + line;
            var left = vec4<f32>(0.0);
            var right = vec4<f32>(0.0);
            if (row < p.rows) {
                if (a_inside) {
                    left = a[a_from + row * p.a_pitch];
                    if ((p.flags & WEIGHTED) != 0u) {
                        left *= weights[p.w_first + row];
                    }
                }
                if (b_inside) {
                    right = b[b_from + row * p.b_pitch];
                }
            }
            tile_a[line * LINE + column] = left;
            tile_b[line * LINE + column] = right;
        }
        workgroupBarrier();
        for (var line = 0u; line < STEP; line++) {
            let al = tile_a[line * LINE + lane.y];
            let ah = tile_a[line * LINE + 8u + lane.y];
            let bl = tile_b[line * LINE + lane.x];
            let bh = tile_b[line * LINE + 8u + lane.x];
            r0l += al.x * bl; r0h += al.x * bh;
            r1l += al.y * bl; r1h += al.y * bh;
            r2l += al.z * bl; r2h += al.z * bh;
            r3l += al.w * bl; r3h += al.w * bh;
            r4l += ah.x * bl; r4h += ah.x * bh;
            r5l += ah.y * bl; r5h += ah.y * bh;
            r6l += ah.z * bl; r6h += ah.z * bh;
            r7l += ah.w * bl; r7h += ah.w * bh;
        }
        workgroupBarrier();
    }
    let i = i0 + lane.y * 4u;
    let j = j0 / 4u + lane.x;
    store(i, j, r0l); store(i, j + 8u, r0h);
    store(i + 1u, j, r1l); store(i + 1u, j + 8u, r1h);
    store(i + 2u, j, r2l); store(i + 2u, j + 8u, r2h);
    store(i + 3u, j, r3l); store(i + 3u, j + 8u, r3h);
    store(i + 32u, j, r4l); store(i + 32u, j + 8u, r4h);
    store(i + 33u, j, r5l); store(i + 33u, j + 8u, r5h);
    store(i + 34u, j, r6l); store(i + 34u, j + 8u, r6h);
    store(i + 35u, j, r7l); store(i + 35u, j + 8u, r7h);
}

// Four outputs from row i and column 4j on.
fn store(i: u32, j: u32, sums: vec4<f32>) {
    if (i >= p.m || j >= p.n / 4u) {
        return;
    }
    let at = p.c_first + i * p.c_pitch + j;
    var total = p.alpha * sums;
    if (p.beta != 0.0) {
        total += p.beta * c[at];
    }
    c[at] = total;
}
