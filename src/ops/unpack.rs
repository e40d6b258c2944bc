//! WGSL text that takes packed words apart, generated from [`crate::packing::quad_pieces`]. Every shift is a constant.

use std::fmt::Write;
use std::sync::LazyLock;

use crate::packing::{BLOCK_ROWS, Piece, QUADS, WIDTHS, byte_mask, quad_pieces};

/// Whether expressions are of one column (u32) or of four (`vec4<u32>`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lanes {
    One,
    Four,
}

impl Lanes {
    fn literal(self, value: u32) -> String {
        match self {
            Self::One => format!("{value:#x}u"),
            Self::Four => format!("vec4<u32>({value:#x}u)"),
        }
    }

    /// `value` moved up by `by` bits (down where negative).
    fn shifted(self, value: &str, by: i32) -> String {
        let amount = self.literal(by.unsigned_abs());
        match by {
            0 => value.to_owned(),
            1.. => format!("({value} << {amount})"),
            _ => format!("({value} >> {amount})"),
        }
    }

    fn masked(self, value: &str, mask: u32) -> String {
        if mask == u32::MAX { value.to_owned() } else { format!("({value} & {})", self.literal(mask)) }
    }
}

/// Expression of quad `quad` from the words `w0`, `w1`, … of a block in the device's order.
pub(super) fn quad(bits: u32, quad: u32, lanes: Lanes) -> String {
    let part = |Piece { word, from, bits, to }: Piece| {
        let moved = lanes.shifted(&format!("w{word}"), to as i32 - from as i32);
        lanes.masked(&moved, byte_mask(bits, to))
    };
    quad_pieces(bits, quad).into_iter().map(part).collect::<Vec<_>>().join(" | ")
}

/// Two codes of a quad of four columns as halves: 1024 and more, of which `factor` times, less `zero`, is exactly
/// code − 2^(bits−1).
pub(super) struct Pair {
    /// Expression of the pairs, `vec4<u32>`.
    pub(super) word: String,
    /// 2^−(the bit at which the codes stand in their bytes).
    pub(super) factor: f32,
    pub(super) zero: f32,
}

/// Rows 0 and 2 of a quad, or with `odd` rows 1 and 3. Where a quad is not in pieces its codes stay at their bit of the byte:
/// halves from 1024 on are the integers, so a byte below 0x64 becomes 1024 and the byte.
pub(super) fn pair_of_quad(bits: u32, index: u32, odd: bool) -> Pair {
    let (bytes, from) = match quad_pieces(bits, index)[..] {
        [Piece { word, from, bits, to: 0 }] => {
            debug_assert!(from + bits <= 8);
            (format!("w{word}"), from)
        }
        _ => (format!("({})", quad(bits, index, Lanes::Four)), 0),
    };
    let bytes = Lanes::Four.shifted(&bytes, if odd { -8 } else { 0 });
    let codes = Lanes::Four.masked(&bytes, byte_mask(bits, from) & 0x00ff_00ff);
    Pair {
        word: format!("{codes} | {}", Lanes::Four.literal(0x6400_6400)),
        factor: 0.5_f32.powi(from as i32),
        zero: 1024.0 * 0.5_f32.powi(from as i32) + 2_f32.powi(bits as i32 - 1),
    }
}

/// Text of `generated/unpack.wgsl`. It declares `codes: array<f32, 32>` and `unpack_block(bits, word, stride)`, which
/// fills it with code − 2^(bits−1) from the words `words[word + i·stride]`, i < bits, of one column of a block.
pub(super) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = String::from("var<private> codes: array<f32, 32>;\n");
        for bits in WIDTHS {
            let _ = writeln!(text, "fn unpack_{bits}(word: u32, stride: u32) {{");
            load_words(&mut text, bits);
            let zero = 1_u32 << (bits - 1);
            for q in 0..QUADS {
                let _ = writeln!(text, "    let q{q} = unpack4xU8({});", quad(bits, q, Lanes::One));
                for byte in 0..4 {
                    let row = 4 * q + byte;
                    let _ = writeln!(text, "    codes[{row}] = f32(q{q}[{byte}]) - {zero}.0;");
                }
            }
            text += "}\n";
        }
        text + &switch("unpack_block", "unpack", "", "")
    });
    &TEXT
}

/// Text of `generated/decode.wgsl`. It declares `decode_block(bits, word, stride, scale, put)`, which puts pairs of (code −
/// 2^(bits−1)) · scale of one column of a block into `decoded[put ..]`, by way of `pair`. All of it is unrolled: an array of
/// codes that a loop runs over is kept in memory by drivers.
pub(super) fn decode_text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = String::new();
        for bits in WIDTHS {
            let _ = writeln!(text, "fn decode_{bits}(word: u32, stride: u32, scale: f32, put: u32) {{");
            load_words(&mut text, bits);
            for q in 0..QUADS {
                let _ =
                    writeln!(text, "    let q{q} = vec4<f32>(unpack4xU8({}));", quad(bits, q, Lanes::One));
                let _ = writeln!(text, "    let v{q} = (q{q} - {}.0) * scale;", 1_u32 << (bits - 1));
                for (half, [low, high]) in [["x", "y"], ["z", "w"]].into_iter().enumerate() {
                    let at = 2 * q as usize + half;
                    let _ = writeln!(text, "    decoded[put + {at}u] = pair(v{q}.{low}, v{q}.{high});");
                }
            }
            text += "}\n";
        }
        text + &switch("decode_block", "decode", ", scale: f32, put: u32", ", scale, put")
    });
    &TEXT
}

/// Text of `generated/reorder.wgsl`. It declares `reorder_block(bits, word, stride)`, which puts the words
/// `words[word + i·stride]`, i < bits, of one column of a block from the file's order into the device's.
pub(super) fn reorder_text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = String::new();
        for bits in WIDTHS {
            let _ = writeln!(text, "fn reorder_{bits}(word: u32, stride: u32) {{");
            load_words(&mut text, bits);
            let mask = (1_u32 << bits) - 1;
            for q in 0..QUADS {
                let codes: Vec<String> = (0..4).map(|byte| file_code(bits, 4 * q + byte)).collect();
                let bytes: Vec<String> = (0..4)
                    .map(|byte| {
                        Lanes::One.shifted(&format!("({} & {mask}u)", codes[byte as usize]), 8 * byte)
                    })
                    .collect();
                let _ = writeln!(text, "    let q{q} = {};", bytes.join(" | "));
            }
            for word in 0..bits {
                let parts: Vec<String> = (0..QUADS)
                    .flat_map(|q| quad_pieces(bits, q).into_iter().map(move |piece| (q, piece)))
                    .filter(|(_, piece)| piece.word == word)
                    .map(|(q, Piece { from, bits, to, .. })| {
                        let part = Lanes::One.masked(&format!("q{q}"), byte_mask(bits, to));
                        Lanes::One.shifted(&part, from as i32 - to as i32)
                    })
                    .collect();
                let _ = writeln!(text, "    words[word + {word}u * stride] = {};", parts.join(" | "));
            }
            text += "}\n";
        }
        text + &switch("reorder_block", "reorder", "", "")
    });
    &TEXT
}

fn load_words(text: &mut String, bits: u32) {
    for word in 0..bits {
        let _ = writeln!(text, "    let w{word} = words[word + {word}u * stride];");
    }
}

/// Expression of the code of a row, with other bits above it, in the file's order: a little-endian bit stream.
fn file_code(bits: u32, row: u32) -> String {
    debug_assert!((row as usize) < BLOCK_ROWS);
    let (word, shift) = (row * bits / 32, row * bits % 32);
    if shift + bits > 32 {
        format!("((w{word} >> {shift}u) | (w{} << {}u))", word + 1, 32 - shift)
    } else {
        format!("(w{word} >> {shift}u)")
    }
}

/// A function `name(bits, word, stride …)` that calls `stem_BITS(word, stride …)`; further parameters and arguments follow.
fn switch(name: &str, stem: &str, parameters: &str, arguments: &str) -> String {
    let mut text =
        format!("fn {name}(bits: u32, word: u32, stride: u32{parameters}) {{\n    switch bits {{\n");
    for bits in WIDTHS {
        let _ = writeln!(text, "        case {bits}u: {{ {stem}_{bits}(word, stride{arguments}); }}");
    }
    text + "        default: {}\n    }\n}\n"
}
