// What all products share: their immediates, and how a sum becomes an output. The importing kernel binds
// `bias` (f32 [n] with flag BIAS, else any buffer) and `y` (f32 [rows, out_cols]).
//
// x_first and w_first are the rows of x and w that a product begins with; all but `matmul_coop` begin with the first.
struct Params {
    rows: u32, n: u32, k: u32, out_cols: u32, first: u32, flags: u32, x_first: u32, w_first: u32,
}
var<immediate> p: Params;
const BIAS: u32 = 1u;
const ADD: u32 = 2u;
const UPPER: u32 = 4u;

// y[row, first + n] = sum (+ bias[n]) (+ what is there).
fn store_output(row: u32, n: u32, sum: f32) {
    let at = row * p.out_cols + p.first + n;
    var total = sum;
    if ((p.flags & BIAS) != 0u) {
        total += bias[n];
    }
    if ((p.flags & ADD) != 0u) {
        total += y[at];
    }
    y[at] = total;
}
