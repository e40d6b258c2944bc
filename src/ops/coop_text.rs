//! Text of `generated/coop*.wgsl`: the tile of `matmul_coop`, unrolled. Drivers keep a subgroup's fragments in registers only where
//! each has a name of its own; an array of them that a loop runs over went to memory (a seventh of the speed on an H100).

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::coop_tile::{PAD, SUM_PAD, Tile};

/// Texts of `generated/coop.wgsl` (declarations of module scope), `coop_zero.wgsl`, `coop_multiply.wgsl` and `coop_store.wgsl`
/// (statements of `main`). The few there are are made once and kept.
pub(super) fn texts(tile: Tile) -> [&'static str; 4] {
    type Texts = Mutex<HashMap<Tile, [&'static str; 4]>>;
    static TEXTS: LazyLock<Texts> = LazyLock::new(Texts::default);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || [tile.declarations(), tile.zero(), tile.multiply(), tile.store()];
    *texts.entry(tile).or_insert_with(|| make().map(|text| &*text.leak()))
}

impl Tile {
    /// Halves in an element of the workgroup's arrays. Metal wants matrices to lie in arrays of halves; elsewhere four halves
    /// are one store, and a driver joins two of them.
    fn cell(&self) -> usize {
        if self.edge == 16 { 4 } else { 1 }
    }

    /// Sizes, the workgroup's arrays, and what moves 16-byte pieces: `places`, `fetch`, `stage`, `block_of`.
    fn declarations(&self) -> String {
        let [rows, columns] = self.outputs();
        let [of_x, of_w] = self.pieces();
        let (cell, invocations, eights) = (self.cell(), self.invocations(), self.step / 8);
        let pitch = self.step + PAD;
        let element = if cell == 4 { "vec4<f16>" } else { "f16" };
        let strip = self.strip() * self.edge;
        let mut text = format!(
            "const LANES: u32 = {}u;\nconst SUBGROUPS: u32 = {}u;\nconst ROWS: u32 = {rows}u;\n\
             const COLUMNS: u32 = {columns}u;\nconst STEP: u32 = {}u;\nconst PITCH: u32 = {}u;\n\
             const STRIP_ROWS: u32 = {}u;\nconst STRIP_COLUMNS: u32 = {strip}u;\nconst STRIP_PITCH: u32 = {}u;\n\
             var<workgroup> xs: array<{element}, {}>;\nvar<workgroup> ws: array<{element}, {}>;\n",
            self.lanes,
            self.subgroups[0] * self.subgroups[1],
            self.step,
            pitch / cell,
            self.edge,
            strip + SUM_PAD,
            rows * pitch / cell,
            columns * pitch / cell,
        );
        let names: Vec<String> =
            (0..of_x).map(|i| format!("x{i}")).chain((0..of_w).map(|i| format!("w{i}"))).collect();
        let fields = |of: &str| names.iter().map(|name| format!("{name}: {of}, ")).collect::<String>();
        let _ = writeln!(
            text,
            "struct Places {{ {}}}\nstruct Pieces {{ {}}}",
            fields("u32"),
            fields("vec4<u32>")
        );
        text += "// Where a lane's pieces lie, in 16 bytes.\n\
                 fn places(index: u32, row0: u32, n0: u32) -> Places {\n    var at: Places;\n";
        let line_of = |i: usize| i * invocations / eights;
        for (letter, count, first, last) in [("x", of_x, "row0", "p.rows"), ("w", of_w, "n0", "p.n")] {
            let (begin, planes) = (format!("p.{letter}_first"), format!("{}_PLANES", letter.to_uppercase()));
            for i in 0..count {
                let line = line_of(i);
                let _ = writeln!(
                    text,
                    "    at.{letter}{i} = ({begin} + min({first} + index / {eights}u + {line}u, {last} - 1u)) * {planes} * (p.k / 8u) + index % {eights}u;"
                );
            }
        }
        text += "    return at;\n}\n\
                 // The pieces of a step, `at_x` and `at_w` further on; zeros where nothing is `inside`.\n\
                 fn fetch(start: Places, at_x: u32, at_w: u32, inside: bool) -> Pieces {\n    var found: Pieces;\n    \
                 if (TAIL == 0u || inside) {\n";
        for name in &names {
            let letter = &name[..1];
            let _ = writeln!(text, "        found.{name} = {letter}[start.{name} + at_{letter}];");
        }
        text += "    }\n    return found;\n}\n\
                 fn four(low: u32, high: u32) -> vec4<f16> {\n    \
                 return vec4<f16>(vec2<f16>(unpack2x16float(low)), vec2<f16>(unpack2x16float(high)));\n}\n\
                 fn stage(index: u32, pieces: Pieces) {\n";
        for (i, name) in names.iter().enumerate() {
            let (letter, line) = if i < of_x { ("x", line_of(i)) } else { ("w", line_of(i - of_x)) };
            let _ = writeln!(
                text,
                "    {{\n        let at = (index / {eights}u + {line}u) * PITCH + index % {eights}u * {}u;",
                8 / cell
            );
            let parts = [
                format!("four(pieces.{name}.x, pieces.{name}.y)"),
                format!("four(pieces.{name}.z, pieces.{name}.w)"),
            ];
            for (half, part) in parts.iter().enumerate() {
                if cell == 4 {
                    let _ = writeln!(text, "        {letter}s[at + {half}u] = {part};");
                } else {
                    let _ = writeln!(text, "        let v{half} = {part};");
                    for j in 0..4 {
                        let _ = writeln!(text, "        {letter}s[at + {}u] = v{half}[{j}];", 4 * half + j);
                    }
                }
            }
            text += "    }\n";
        }
        let (across, block) = (self.subgroups[1], self.fragments.map(|count| count * self.edge));
        let _ = writeln!(
            text,
            "}}\n// First row and column of a subgroup's block in the tile.\nfn block_of(subgroup: u32) -> vec2<u32> {{\n    \
             return vec2<u32>(subgroup / {across}u * {}u, subgroup % {across}u * {}u);\n}}",
            block[0], block[1]
        );
        text
    }

    fn each_fragment(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let [high, wide] = self.fragments;
        (0..high).flat_map(move |i| (0..wide).map(move |j| (i, j)))
    }

    /// The sums of a block: `c0_0`, `c0_1`, …
    fn zero(&self) -> String {
        self.each_fragment().map(|(i, j)| format!("    var c{i}_{j} = MatC();\n")).collect()
    }

    /// All products of a step.
    fn multiply(&self) -> String {
        let [high, wide] = self.fragments;
        let cell = self.cell();
        let mut text = String::new();
        for k in (0..self.step).step_by(self.edge) {
            text += "    {\n";
            for i in 0..high {
                let _ = writeln!(
                    text,
                    "        let at_x{i} = (block_row + {}u) * PITCH + {}u;\n        let x{i} = coopLoadT<MatA>(&xs[at_x{i}], PITCH);",
                    i * self.edge,
                    k / cell
                );
            }
            for j in 0..wide {
                let _ = writeln!(
                    text,
                    "        let at_w{j} = (block_n + {}u) * PITCH + {}u;\n        let w{j} = coopLoad<MatB>(&ws[at_w{j}], PITCH);",
                    j * self.edge,
                    k / cell
                );
                for i in 0..high {
                    let _ = writeln!(text, "        c{i}_{j} = coopMultiplyAdd(x{i}, w{j}, c{i}_{j});");
                }
            }
            text += "    }\n";
        }
        text
    }

    /// The block through workgroup memory, a strip at a time.
    fn store(&self) -> String {
        let strip = self.strip();
        let mut text = String::new();
        for (i, first) in self.each_fragment().filter(|(_, j)| j.is_multiple_of(strip)) {
            text += "    {\n";
            for j in 0..strip {
                let _ = writeln!(
                    text,
                    "        let to{j} = subgroup * STRIP_ROWS * STRIP_PITCH + {}u;\n        let v{j} = c{i}_{};\n        \
                     coopStoreT(v{j}, &sums[to{j}], STRIP_PITCH);",
                    j * self.edge,
                    first + j
                );
            }
            let _ = writeln!(
                text,
                "        workgroupBarrier();\n        store_strip(subgroup, lane, row0 + block_row + {}u, n0 + block_n + {}u);\n        \
                 workgroupBarrier();\n    }}",
                i * self.edge,
                first * self.edge
            );
        }
        text
    }
}
