// Eight rotated values of a head, summed from a product's partial sums: numbers 4·j and on (low), DIM / 2 + 4·j and on
// (high), by the pairs of `rope`.
// Expects DIM, SUMS and `table: array<vec4<f32>>`, [context, DIM / 4]: cosine and sine of two pairs each.
#import "common/partial_four.wgsl"

struct Turned { low: vec4<f32>, high: vec4<f32> }

// The head begins at column 4·head of its row.
fn turned(head: u32, j: u32, position: u32, stride: u32) -> Turned {
    let a = tree_four(head + j, stride);
    let b = tree_four(head + DIM / 8u + j, stride);
    let first = table[position * (DIM / 4u) + 2u * j];
    let second = table[position * (DIM / 4u) + 2u * j + 1u];
    let cosine = vec4<f32>(first.xz, second.xz);
    let sine = vec4<f32>(first.yw, second.yw);
    return Turned(a * cosine - b * sine, b * cosine + a * sine);
}
