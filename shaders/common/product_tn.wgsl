// What both forms of `matmul_tn` share: windows into the matrices, and how a sum becomes four outputs.
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
