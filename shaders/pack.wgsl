// Codes to words as EXL2 stores them: a column is a stream of `bits`-bit fields, the first in the lowest bits; 32 rows
// fill `bits` words. With SCALES also the scale codes, less one, eight columns to a word, the first in the lowest bits.
//
// codes: u32 [rows, n], each below 2^bits; words: u32 [.., n], from row `word` on; scale_codes: u32, from
// `column` on; scales: u32 [groups, n / 8]. One lane a column and block of 32 rows. Grid (n / 32, rows / 32 / 8).
// Oracle: reference/pack.rs.

struct Params { rows: u32, n: u32, bits: u32, word: u32, column: u32, group: u32, flags: u32 }
var<immediate> p: Params;
const SCALES: u32 = 1u;

@group(0) @binding(0) var<storage, read> codes: array<u32>;
@group(0) @binding(1) var<storage, read> scale_codes: array<u32>;
@group(0) @binding(2) var<storage, read_write> words: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<u32>;

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    let column = id.x * 32u + lane.x;
    let block = id.y * 8u + lane.y;
    if (block >= p.rows / 32u) {
        return;
    }
    var to = (p.word + block * p.bits) * p.n + column;
    var word = 0u;
    var filled = 0u;
    for (var row = block * 32u; row < block * 32u + 32u; row++) {
        let code = codes[row * p.n + column];
        word |= code << filled;
        filled += p.bits;
        if (filled >= 32u) {
            words[to] = word;
            to += p.n;
            filled -= 32u;
            word = code >> (p.bits - filled);
        }
    }
    if ((p.flags & SCALES) != 0u && block == 0u && lane.x % 8u == 0u) {
        var nibbles = 0u;
        for (var i = 0u; i < 8u; i++) {
            nibbles |= (scale_codes[p.column + column + i] - 1u) << (4u * i);
        }
        scales[(p.group * p.n + column) / 8u] = nibbles;
    }
}
