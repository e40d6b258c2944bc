// Rows of the embedding table: out[r, :] = table[tokens[r], :].
//
// table: halves in pairs [slab_rows, cols / 2], one slab of rows first_row ..; tokens: u32 [rows];
// out: f32 [rows, cols]. A token of another slab leaves its row alone. Tokens are below the table's rows
// (checked on the host). One workgroup a row.
// Oracle: reference/embed.rs.
override WG: u32;

struct Params { cols: u32, first_row: u32, slab_rows: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = id.x;
    let local = tokens[row] - p.first_row;
    if (local >= p.slab_rows) {
        return;
    }
    let pairs = p.cols / 2u;
    for (var i = lane; i < pairs; i += WG) {
        let pair = unpack2x16float(table[local * pairs + i]);
        out[row * p.cols + 2u * i] = pair.x;
        out[row * p.cols + 2u * i + 1u] = pair.y;
    }
}
