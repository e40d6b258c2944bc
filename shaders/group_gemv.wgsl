// Product of ROWS rows with all packed matrices of a group: for each slice s of K (its blocks of 32 rows, dealt out in turns)
// Σ_k x[r, k]·w[k, n] times 1 / rms of the row where its norm was left to this kernel (+ bias in the first), added over the SLICES
// slices of a workgroup as a binary tree. What workgroups with other slices leave is for the consumer to add (common/partial.wgsl)
// as the tree goes on, so that how slices are shared out changes no bit.
//
// w[k, n] = (code − 2^(bits−1))·(c² · maximum[g]) in single precision, c = scale code of group g and column n. Weights are decoded
// once for all rows. A lane has four columns, one `vec4` load a word row, so a subgroup reads 512 bytes in one piece.
// x: an activation [copies, rows, row words] in the form that the generated text knows; words: u32 [word_rows, columns] of each
// slab; scales: u32 [groups, columns / 8] of each slab; maxima: f32; table: `group_table.rs`, of TABLED words among the immediates
// if LISTED, else in storage; bias: f32 [all columns] with BIAS;
// squares: f32 [rows, parts], Σ of the squares of a row's input; out: f32 [sums, rows, all columns].
// Grid (tiles of 128 columns, sums). Bytes: the weights once; at 2 bits, fixed point, about 1.7 instructions a weight.
// Oracle: reference/quant_matmul.rs.
struct Params {
    slices: u32,  // in all, a power of two
    x_row: u32,   // vec4 in a row of x
    steps: u32,   // vec4 in a row before the scales of its blocks
    cols4: u32,   // columns of the group / 4
    flags: u32,
    parts: u32,   // 0: no norm
    k: u32,
    eps: f32,
    pieces: u32,
    table: array<u32, TABLED>,
}
var<immediate> p: Params;
const BIAS: u32 = 1u;

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read> maxima: array<f32>;
@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> squares: array<f32>;
@group(0) @binding(7) var<storage, read_write> out: array<vec4<f32>>;

// Among the immediates it is at hand, in storage a miss to memory away.
fn table_word(i: u32) -> u32 {
    if (LISTED) {
        return p.table[i];
    }
    return table[i];
}

// 128 columns of a slab: vec4 index of its first word and vec4 in a word row, first word of its scales, its maxima, its copy of x.
struct Tile { words: u32, stride: u32, scales: u32, maxima: u32, x: u32 }

// Blocks of one width; block + i is of group + (i >> shift).
struct Run { word_row: u32, block: u32, blocks: u32, group: u32, shift: u32 }

// Codes of the scales of a lane's four columns in a group.
fn scale_codes(t: Tile, group: u32, lane: u32) -> u32 {
    return scales[t.scales + group * (t.stride / 2u) + lane / 2u];
}

fn scales_of(codes: u32, maximum: f32, lane: u32) -> vec4<f32> {
    let nibbles = (vec4<u32>(codes >> (16u * (lane & 1u))) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
    // 2^23 + nibble as a float, less 2^23 − 1: nibble + 1.
    let code = bitcast<vec4<f32>>(nibbles | vec4<u32>(0x4b000000u)) - vec4<f32>(8388607.0);
    return code * code * maximum;
}

#import "generated/group_gemv.wgsl"

var<workgroup> slice_sums: array<vec4<f32>, 32u * SLICES>;

// Sums of every 32nd part of a row's squares.
var<workgroup> square_sums: array<vec4<f32>, 8u * ROWS>;

fn squares_of(row: u32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var i = lane; i < p.parts; i += 32u) {
        sum += squares[row * p.parts + i];
    }
    return sum;
}

fn inverse_rms(row: u32) -> f32 {
    if (p.parts == 0u) {
        return 1.0;
    }
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < 8u; i++) {
        sum += square_sums[8u * row + i];
    }
    return 1.0 / sqrt(((sum.x + sum.y) + (sum.z + sum.w)) / f32(p.k) + p.eps);
}

// Each slice is scaled before any is added, so that the sum is the same however the slices are shared out among workgroups.
fn finish(row: u32, own: vec4<f32>, sums_index: u32, column: u32, live: bool, lane: vec3<u32>) {
    var scaled = own * inverse_rms(row);
    if (sums_index == 0u && lane.y == 0u && live && (p.flags & BIAS) != 0u) {
        scaled += bias[column];
    }
    slice_sums[lane.y * 32u + lane.x] = scaled;
    workgroupBarrier();
    if (lane.y == 0u && live) {
        out[(sums_index * ROWS + row) * p.cols4 + column] = slice_tree(lane.x);
    }
    workgroupBarrier();
}

@compute @workgroup_size(32, SLICES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    var piece = 0u;
    while (piece + 8u < 8u * p.pieces && id.x >= table_word(piece + 13u)) {
        piece += 8u;
    }
    let stride = table_word(piece + 1u);
    // The tile's first column and the lane's, in fours.
    let first = 32u * (id.x - table_word(piece + 5u));
    let own = first + lane.x;
    let t = Tile(
        table_word(piece) + own,
        stride,
        table_word(piece + 2u) + first / 2u,
        table_word(piece + 3u),
        table_word(piece + 7u) * ROWS * p.x_row,
    );
    let live = own < stride;
    let slice = id.y * SLICES + lane.y;
    // Asked for before the weights, waited for after them.
    let own_squares = squares_of(min(lane.y, ROWS - 1u), lane.x);
    var sums: Sums;
    if (live) {
        let runs = table_word(piece + 6u);
        var run = Run(0u, 0u, 0u, 0u, 0u);
        let end = runs >> 16u;
        for (var i = runs & 0xffffu; i < end; i++) {
            let word = table_word(i);
            let bits = word & 255u;
            run.shift = (word >> 8u) & 255u;
            run.blocks = word >> 16u;
            switch bits {
                case 2u: { sums = run_2(t, run, slice, lane.x, sums); }
                case 3u: { sums = run_3(t, run, slice, lane.x, sums); }
                case 4u: { sums = run_4(t, run, slice, lane.x, sums); }
                case 5u: { sums = run_5(t, run, slice, lane.x, sums); }
                case 6u: { sums = run_6(t, run, slice, lane.x, sums); }
                default: { sums = run_8(t, run, slice, lane.x, sums); }
            }
            run.block += run.blocks;
            run.word_row += run.blocks * bits;
            run.group += (run.blocks + (1u << run.shift) - 1u) >> run.shift;
        }
    }
    for (var row = lane.y; row < ROWS; row += SLICES) {
        square_sums[8u * row + lane.x / 4u][lane.x % 4u] =
            select(squares_of(row, lane.x), own_squares, row == lane.y);
    }
    workgroupBarrier();
    finish_all(sums, id.y, table_word(piece + 4u) + own, live, lane);
}
