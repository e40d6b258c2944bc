// Puts the words of a packed slab from the file's order into the device's, in place: in each column and block of 32 rows,
// eight quads of four codes, one code a byte (`packing::quad_pieces`), instead of a bit stream.
//
// words: u32 [word_rows, n]; blocks: per 32 packed rows (first word row, bits | group << 8). One lane a column and block,
// which reads all of its words before it writes one; grid (n / 32, blocks / 8).
// Oracle: reference/reorder.rs.
#import "generated/reorder.wgsl"

struct Params { n: u32, blocks: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> blocks: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    let b = id.y * 8u + lane.y;
    if (b >= p.blocks) {
        return;
    }
    let block = blocks[b];
    reorder_block(block.y & 255u, block.x * p.n + id.x * 32u + lane.x, p.n);
}
