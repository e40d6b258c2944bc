//! Text of `generated/unpack.wgsl`: 32 packed rows of one column to their 32 values, for each width.

use std::fmt::Write;
use std::sync::LazyLock;

use crate::packing::{BLOCK_ROWS, WIDTHS};

/// WGSL that declares `codes: array<f32, 32>` and `unpack_block(bits, word, stride)`, which fills it with
/// code − 2^(bits−1) from the words `words[word + i·stride]`, i < bits. Every shift is a constant.
pub(super) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(generate);
    &TEXT
}

fn generate() -> String {
    let mut text = String::from("var<private> codes: array<f32, 32>;\n");
    for bits in WIDTHS {
        let _ = writeln!(text, "fn unpack_{bits}(word: u32, stride: u32) {{");
        for word in 0..bits {
            let _ = writeln!(text, "    let w{word} = words[word + {word}u * stride];");
        }
        let (mask, zero) = ((1u32 << bits) - 1, 1u32 << (bits - 1));
        for row in 0..BLOCK_ROWS as u32 {
            let (word, shift) = (row * bits / 32, row * bits % 32);
            let field = if shift + bits > 32 {
                format!("((w{word} >> {shift}u) | (w{} << {}u)) & {mask}u", word + 1, 32 - shift)
            } else {
                format!("(w{word} >> {shift}u) & {mask}u")
            };
            let _ = writeln!(text, "    codes[{row}] = f32({field}) - {zero}.0;");
        }
        text += "}\n";
    }
    text += "fn unpack_block(bits: u32, word: u32, stride: u32) {\n    switch bits {\n";
    for bits in WIDTHS {
        let _ = writeln!(text, "        case {bits}u: {{ unpack_{bits}(word, stride); }}");
    }
    text += "        default: {}\n    }\n}\n";
    text
}
