//! Text of `generated/group_gemv.wgsl`: the inner loops of `group_gemv`, one for each width, for a number of rows and a form
//! of activations. Rows and slices are unrolled, so that sums stay in registers.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::unpack::{Lanes, Pair, pair_of_quad, quad};
use crate::gpu::Arithmetic;
use crate::packing::{QUADS, WIDTHS};

/// Declares `Sums` (a `vec4<f32>` for each row), `run_BITS(tile, run, slice, lane, sums) -> Sums` for each width,
/// `slice_tree(lane)` and `finish_all`.
///
/// A model's list has hundreds of these products, so that the few texts there are (an arithmetic, four numbers of rows, five of
/// slices) are made once and kept.
pub(super) fn text(form: Arithmetic, rows: usize, slices: usize) -> &'static str {
    type Texts = Mutex<HashMap<(Arithmetic, usize, usize), &'static str>>;
    static TEXTS: LazyLock<Texts> = LazyLock::new(Texts::default);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    texts.entry((form, rows, slices)).or_insert_with(|| generate(form, rows, slices).leak())
}

fn generate(form: Arithmetic, rows: usize, slices: usize) -> String {
    let mut text = String::from("struct Sums {\n");
    for row in 0..rows {
        let _ = writeln!(text, "    r{row}: vec4<f32>,");
    }
    text += "}\n";
    if form == Arithmetic::Pairs {
        text += "fn pair(word: u32) -> vec2<f16> {\n    return vec2<f16>(unpack2x16float(word));\n}\n\
                 fn both(sums: vec2<f16>) -> f32 {\n    return f32(sums.x) + f32(sums.y);\n}\n";
    }
    for bits in WIDTHS {
        run(&mut text, form, rows, bits);
    }
    let _ = writeln!(text, "fn slice_tree(lane: u32) -> vec4<f32> {{\n    return {};\n}}", tree(0, slices));
    text += "fn finish_all(sums: Sums, index: u32, column: u32, live: bool, lane: vec3<u32>) {\n";
    for row in 0..rows {
        let _ = writeln!(text, "    finish({row}u, sums.r{row}, index, column, live, lane);");
    }
    text + "}\n"
}

/// The slices `first .. first + count` added as a binary tree.
fn tree(first: usize, count: usize) -> String {
    if count == 1 {
        return format!("slice_sums[{}u + lane]", 32 * first);
    }
    format!("({} + {})", tree(first, count / 2), tree(first + count / 2, count / 2))
}

/// Whether a block's activations are asked for with its words. They take 20 registers, which wide codes leave no room for, and
/// several rows even less.
fn with_activations(form: Arithmetic, rows: usize, bits: u32) -> bool {
    form == Arithmetic::Fixed && rows == 1 && bits <= 5
}

/// The loop over a slice's blocks of a run. What a block needs is asked for at the end of the one before, so that a compiler
/// cannot move the asking behind the use of a part of it: NVIDIA's, left to itself, asked for two words of four and the scales
/// when the first two had come, which is two ways to memory instead of one.
fn run(text: &mut String, form: Arithmetic, rows: usize, bits: u32) {
    let activations = with_activations(form, rows, bits);
    let _ = writeln!(text, "struct Block{bits} {{");
    for word in 0..bits {
        let _ = writeln!(text, "    w{word}: vec4<u32>,");
    }
    text.push_str("    codes: u32,\n    maximum: f32,\n");
    if activations {
        text.push_str("    ends: vec4<u32>,\n");
        (0..QUADS / 2).for_each(|i| {
            let _ = writeln!(text, "    x{i}: vec4<u32>,");
        });
    }
    let _ = writeln!(
        text,
        "}}\nfn ask_{bits}(t: Tile, r: Run, i: u32, lane: u32) -> Block{bits} {{\n    var block: Block{bits};\n    \
         let at = t.words + (r.word_row + i * {bits}u) * t.stride;\n    let group = r.group + (i >> r.shift);"
    );
    for word in 0..bits {
        let _ = writeln!(text, "    block.w{word} = words[at + {word}u * t.stride];");
    }
    text.push_str(
        "    block.codes = scale_codes(t, group, lane);\n    block.maximum = maxima[t.maxima + group];\n",
    );
    if activations {
        text.push_str("    let b = r.block + i;\n    block.ends = x[t.x + p.steps + b / 2u];\n");
        (0..QUADS / 2).for_each(|i| {
            let _ = writeln!(text, "    block.x{i} = x[t.x + 4u * b + {i}u];");
        });
    }
    let _ = writeln!(
        text,
        "    return block;\n}}\nfn run_{bits}(t: Tile, r: Run, slice: u32, lane: u32, before: Sums) -> Sums {{\n    \
         var sums = before;\n    var i = (slice - r.block) & (p.slices - 1u);\n    \
         if (i >= r.blocks) {{\n        return sums;\n    }}\n    \
         var block = ask_{bits}(t, r, i, lane);\n    loop {{\n        \
         let b = r.block + i;\n        let scale = scales_of(block.codes, block.maximum, lane);"
    );
    for word in 0..bits {
        let _ = writeln!(text, "        let w{word} = block.w{word};");
    }
    match form {
        Arithmetic::Single => single(text, rows, bits),
        Arithmetic::Fixed => fixed(text, rows, bits),
        Arithmetic::Pairs => pairs(text, rows, bits),
    }
    let _ = writeln!(
        text,
        "        i += p.slices;\n        if (i >= r.blocks) {{\n            return sums;\n        }}\n        \
         block = ask_{bits}(t, r, i, lane);\n    }}\n    return sums;\n}}"
    );
}

/// One block in single precision.
fn single(text: &mut String, rows: usize, bits: u32) {
    let zero = 1_u32 << (bits - 1);
    for row in 0..rows {
        let _ = writeln!(text, "            var d{row} = vec4<f32>(0.0);");
    }
    for q in 0..QUADS {
        let _ = writeln!(text, "            let q{q} = {};", quad(bits, q, Lanes::Four));
        for (index, column) in ["x", "y", "z", "w"].into_iter().enumerate() {
            let _ = writeln!(
                text,
                "            let c{q}{index} = vec4<f32>(unpack4xU8(q{q}.{column})) - vec4<f32>({zero}.0);"
            );
        }
        for row in 0..rows {
            let _ = writeln!(
                text,
                "            let x{q}r{row} = bitcast<vec4<f32>>(x[t.x + {row}u * p.x_row + 8u * b + {q}u]);\n            \
                 d{row} += vec4<f32>(dot(c{q}0, x{q}r{row}), dot(c{q}1, x{q}r{row}), dot(c{q}2, x{q}r{row}), dot(c{q}3, x{q}r{row}));"
            );
        }
    }
    for row in 0..rows {
        let _ = writeln!(text, "            sums.r{row} += d{row} * scale;");
    }
}

/// One block in fixed point: exact sums of high and low bytes, one conversion at the end. Codes of eight bits become signed
/// bytes; narrower ones stay unsigned, and the sums begin at −2^(bits−1) times the sum of the block's integers.
fn fixed(text: &mut String, rows: usize, bits: u32) {
    let activations = with_activations(Arithmetic::Fixed, rows, bits);
    let zero = if bits == 8 { 0 } else { 1_u32 << (bits - 1) };
    for row in 0..rows {
        let ends =
            if activations { "block.ends".to_owned() } else { format!("x[at{row} + p.steps + b / 2u]") };
        let _ = writeln!(
            text,
            "            let at{row} = t.x + {row}u * p.x_row;\n            \
             let e{row} = {ends};\n            \
             let odd{row} = (b & 1u) == 1u;\n            \
             let step{row} = bitcast<f32>(select(e{row}.x, e{row}.z, odd{row}));\n            \
             let sum{row} = bitcast<i32>(select(e{row}.y, e{row}.w, odd{row}));\n            \
             var high{row} = vec4<i32>(0);\n            \
             var low{row} = vec4<i32>(-{zero} * sum{row});"
        );
    }
    for half in 0..QUADS / 4 {
        for row in 0..rows {
            let asked = |i: u32| match activations {
                true => format!("block.x{i}"),
                false => format!("x[at{row} + 4u * b + {i}u]"),
            };
            let (high, low) = (asked(half), asked(2 + half));
            let _ = writeln!(
                text,
                "            let h{half}r{row} = {high};\n            let l{half}r{row} = {low};"
            );
        }
        for (index, part) in ["x", "y", "z", "w"].into_iter().enumerate() {
            let q = 4 * half + index as u32;
            let expression = quad(bits, q, Lanes::Four);
            let signed =
                if bits == 8 { format!("({expression}) ^ vec4<u32>(0x80808080u)") } else { expression };
            let _ = writeln!(text, "            let q{q} = {signed};");
            for row in 0..rows {
                for (name, source) in [("high", "h"), ("low", "l")] {
                    let dots: Vec<String> = ["x", "y", "z", "w"]
                        .iter()
                        .map(|column| format!("dot4I8Packed(q{q}.{column}, {source}{half}r{row}.{part})"))
                        .collect();
                    let _ = writeln!(text, "            {name}{row} += vec4<i32>({});", dots.join(", "));
                }
            }
        }
    }
    for row in 0..rows {
        let _ = writeln!(
            text,
            "            sums.r{row} += vec4<f32>((high{row} << vec4<u32>(8u)) + low{row}) * (step{row} * scale);"
        );
    }
}

/// Pairs of products of codes with high halves that are added in half precision: as many as keep integers of 11 bits, since
/// codes have up to 2^(bits−1) and high halves up to 16.
const fn exact_run(bits: u32) -> u32 {
    let run = 1 << (8 - bits);
    if run > PAIRS { PAIRS } else { run }
}

/// Pairs of codes in a column of a block.
const PAIRS: u32 = 2 * QUADS;

/// One block in pairs of halves: codes become exact halves, two of a column in a word. Sums of products with high halves are
/// exact and go on in single precision; those with low halves, which are a sixteenth of the high ones, are rounded, once a pair.
///
/// Rows take turns in a loop, since unrolled ones make texts that a driver compiles for minutes. Their sums stay in registers, as
/// they move on by one place a turn.
fn pairs(text: &mut String, rows: usize, bits: u32) {
    const COLUMNS: [&str; 4] = ["x", "y", "z", "w"];
    for index in 0..PAIRS {
        let Pair { word, factor, zero } = pair_of_quad(bits, index / 2, index % 2 == 1);
        let _ = writeln!(text, "            let k{index} = {word};");
        for column in COLUMNS {
            let _ = writeln!(
                text,
                "            let c{index}{column} = pair(k{index}.{column}) * vec2<f16>({factor}h) - vec2<f16>({zero}h);"
            );
        }
    }
    let _ = writeln!(
        text,
        "            for (var row = 0u; row < {rows}u; row++) {{\n            \
         let at = t.x + row * p.x_row;\n            \
         let units = x[at + p.steps + b / 4u];\n            \
         let two = select(units.xy, units.zw, (b & 2u) == 2u);\n            \
         let unit = bitcast<f32>(select(two.x, two.y, (b & 1u) == 1u));\n            \
         var d = vec4<f32>(0.0);"
    );
    for index in 0..PAIRS {
        for (name, run, first) in [("h", exact_run(bits), 0), ("l", PAIRS, 4)] {
            if index % 4 == 0 {
                let (four, at) = (index / 4, first + index / 4);
                let _ = writeln!(text, "            let {name}{four} = x[at + 8u * b + {at}u];");
            }
            let _ = writeln!(
                text,
                "            let {name}x{index} = pair({name}{}.{});",
                index / 4,
                COLUMNS[index as usize % 4]
            );
            for column in COLUMNS {
                let product = format!("{name}x{index} * c{index}{column}");
                let sum = format!("{name}s{}{column}", index / run);
                let _ = if index % run == 0 {
                    writeln!(text, "            var {sum} = {product};")
                } else {
                    writeln!(text, "            {sum} += {product};")
                };
            }
            if index % run == run - 1 {
                let sums = COLUMNS.map(|column| format!("both({name}s{}{column})", index / run));
                let _ = writeln!(text, "            d += vec4<f32>({});", sums.join(", "));
            }
        }
    }
    text.push_str("            let first = sums.r0 + d * (unit * scale);\n");
    for row in 1..rows {
        let _ = writeln!(text, "            sums.r{} = sums.r{row};", row - 1);
    }
    let _ = writeln!(text, "            sums.r{} = first;\n            }}", rows - 1);
}
