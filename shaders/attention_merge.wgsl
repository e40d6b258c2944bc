// Joins the splits of `attention`, in their order: out = Σ_s e^(m_s − m)·acc_s / Σ_s e^(m_s − m)·l_s.
//
// partial: f32 [rows, heads, splits, dim + 2] (m, l, acc); positions: u32 [rows]; out: f32 [rows, heads, dim].
// Which splits were at work follows from the position and the window. Grid (heads, rows).
// Oracle: reference/attention.rs (the whole softmax).
override WG: u32;

struct Params { heads: u32, dim: u32, split_len: u32, splits: u32, window: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let position = positions[id.y];
    if (position == 0xffffffffu) {
        return;
    }
    let first = select(0u, position + 1u - p.window, position + 1u > p.window);
    let row_head = id.y * p.heads + id.x;
    let stride = p.dim + 2u;
    let base = row_head * p.splits * stride;
    let begin = first / p.split_len;
    let end = min(position / p.split_len + 1u, p.splits);
    var largest = partial[base + begin * stride];
    for (var s = begin + 1u; s < end; s++) {
        largest = max(largest, partial[base + s * stride]);
    }
    var total = 0.0;
    for (var s = begin; s < end; s++) {
        total += exp(partial[base + s * stride] - largest) * partial[base + s * stride + 1u];
    }
    for (var i = lane; i < p.dim; i += WG) {
        var sum = 0.0;
        for (var s = begin; s < end; s++) {
            sum += exp(partial[base + s * stride] - largest) * partial[base + s * stride + 2u + i];
        }
        out[row_head * p.dim + i] = sum / total;
    }
}
