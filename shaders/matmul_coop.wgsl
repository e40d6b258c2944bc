// `matmul` on matrix units: y[r, first + n] = Σ_k x[r, k]·w[n, k] (+ bias[n]) (+ y[r, first + n]).
//
// The prologue names the shape: D (8 or 16), MatA, MatB and MatC (f16 × f16 → f32, D × D). x is split into a high and
// a low half (x = high + low to 22 bits, or to 2^-24), both are multiplied, so that the result is nearly as exact as
// in single precision; |x| is at most 131008.
// A workgroup of four subgroups makes 4·D × 4·D outputs, each subgroup 2 × 2 fragments; n and k are multiples of D,
// rows are filled with zeros. WG is four subgroups' lanes. Grid (n / 4D, rows / 4D).
// Bindings and immediates as in `gemv`, w being seen as halves.
// Oracle: reference/matmul.rs.
override WG: u32;

#import "common/product.wgsl"

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f16>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const EDGE: u32 = 4u * D;
const STEP: u32 = 2u * D;
const PITCH: u32 = STEP + 8u; // halves; keeps rows 16-byte aligned
const OUT_PITCH: u32 = EDGE + 4u;

var<workgroup> high: array<f16, EDGE * PITCH>;
var<workgroup> low: array<f16, EDGE * PITCH>;
var<workgroup> out_tile: array<f32, EDGE * OUT_PITCH>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) subgroup: u32) {
    let row0 = id.y * EDGE;
    let n0 = id.x * EDGE;
    // Surplus subgroups repeat a tile and store the same values.
    let tile = subgroup % 4u;
    let tile_row = (tile / 2u) * 2u * D;
    let tile_n = (tile % 2u) * 2u * D;
    let k_stride = p.k;
    var acc: array<MatC, 4>;
    for (var k0 = 0u; k0 < p.k; k0 += STEP) {
        for (var i = index; i < EDGE * STEP; i += WG) {
            let line = i / STEP;
            let k = i % STEP;
            var value = 0.0;
            if (row0 + line < p.rows && k0 + k < p.k) {
                value = x[(row0 + line) * p.k + k0 + k];
            }
            // The upper 11 bits, taken as integers: compilers may fold f32(f16(value)) to value.
            let upper = clamp(bitcast<f32>(bitcast<u32>(value) & 0xffffe000u), -65504.0, 65504.0);
            high[line * PITCH + k] = f16(upper);
            low[line * PITCH + k] = f16(value - upper);
        }
        workgroupBarrier();
        for (var k = 0u; k < STEP && k0 + k < k_stride; k += D) {
            for (var j = 0u; j < 2u; j++) {
                // A tile past the last column repeats the last one; it is not stored.
                let column = min(n0 + tile_n + j * D, p.n - D);
                let at_w = column * k_stride + k0 + k;
                let b = coopLoad<MatB>(&w[at_w], k_stride);
                for (var i = 0u; i < 2u; i++) {
                    let at_x = (tile_row + i * D) * PITCH + k;
                    let h = coopLoadT<MatA>(&high[at_x], PITCH);
                    let l = coopLoadT<MatA>(&low[at_x], PITCH);
                    acc[i * 2u + j] = coopMultiplyAdd(h, b, acc[i * 2u + j]);
                    acc[i * 2u + j] = coopMultiplyAdd(l, b, acc[i * 2u + j]);
                }
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 2u; i++) {
        for (var j = 0u; j < 2u; j++) {
            let to = (tile_row + i * D) * OUT_PITCH + tile_n + j * D;
            let fragment = acc[i * 2u + j];
            coopStoreT(fragment, &out_tile[to], OUT_PITCH);
        }
    }
    workgroupBarrier();
    for (var i = index; i < EDGE * EDGE; i += WG) {
        let row = row0 + i / EDGE;
        let n = n0 + i % EDGE;
        if (row < p.rows && n < p.n) {
            let total = out_tile[(i / EDGE) * OUT_PITCH + i % EDGE];
            store_output(row, n, total);
        }
    }
}
