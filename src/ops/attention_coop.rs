//! Text of `generated/attention_coop*.wgsl`: the fragments of `attention_coop`, each with a name of its own, since drivers keep an
//! array of them that a loop runs over in memory.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::cache::{CachePrecision, PAGE};
use crate::gpu::{Capabilities, Variant};

/// Subgroups of a workgroup, each with a fragment's edge of lines.
const SUBGROUPS: usize = 4;

/// Halves between rows in workgroup memory: rows stay at 16 bytes, and eight of them meet different banks.
const PAD: usize = 8;

/// The same between rows of scores, in floats.
const SCORE_PAD: usize = 4;

/// How a workgroup divides its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    /// Edge of a fragment, 8 or 16.
    edge: usize,
    /// Lanes of a subgroup.
    lanes: usize,
    /// Values of a head.
    dim: usize,
}

impl Tile {
    /// The tile for these capabilities, if they and the cache allow for it.
    pub(super) fn of(capabilities: &Capabilities, dim: usize, precision: CachePrecision) -> Option<Self> {
        let edge = capabilities.cooperative? as usize;
        let (least, most) = capabilities.subgroup?;
        let lanes = most as usize;
        let fits = [64, 96, 128].contains(&dim)
            && precision == CachePrecision::Half
            && least == most
            && (edge..=64).contains(&lanes)
            && lanes.is_power_of_two();
        let tile = Self { edge, lanes, dim };
        (fits && tile.bytes() <= capabilities.shared as usize).then_some(tile)
    }

    /// Bytes of workgroup memory: queries, or keys and values; scores; weights.
    fn bytes(self) -> usize {
        self.lines() * (2 * (self.dim + PAD) + 4 * (self.keys() + SCORE_PAD) + 2 * (self.keys() + PAD))
    }

    /// Lines (a query head of a row each) of a workgroup.
    pub(super) fn lines(self) -> usize {
        SUBGROUPS * self.edge
    }

    /// Positions of a tile, whose keys and values take the room of a workgroup's queries. Divides a page.
    fn keys(self) -> usize {
        2 * self.edge
    }

    /// Fragments across a head.
    fn across(self) -> usize {
        self.dim / self.edge
    }

    /// Halves in an element of keys, values and queries, and of weights. Metal wants matrices to lie in arrays of halves;
    /// elsewhere several halves are one store.
    fn cells(self) -> [usize; 2] {
        if self.edge == 16 { [4, 2] } else { [1, 1] }
    }

    /// Distance of rows in workgroup memory, in elements: queries, keys and values; scores; weights.
    fn pitches(self) -> [usize; 3] {
        let [line, weight] = self.cells();
        [(self.dim + PAD) / line, self.keys() + SCORE_PAD, (self.keys() + PAD) / weight]
    }

    /// 16-byte pieces of a tile's keys that a lane loads.
    fn pieces(self) -> usize {
        (self.keys() * self.dim / 8).div_ceil(SUBGROUPS * self.lanes)
    }

    /// Pairs of a line's scores that a lane has.
    fn pairs(self) -> impl Iterator<Item = (usize, String)> {
        let share = self.lanes / self.edge;
        (0..self.keys() / (2 * share)).map(move |i| (i, format!("{}u + share", i * share)))
    }

    /// The kernel. A model's list asks for it once a layer, so that the few texts there are, one a tile, are made once and kept.
    pub(super) fn variant(self) -> &'static Variant {
        type Made = Mutex<HashMap<Tile, &'static Variant>>;
        static MADE: LazyLock<Made> = LazyLock::new(Made::default);
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry(self).or_insert_with(|| Box::leak(Box::new(self.generate())))
    }

    fn generate(self) -> Variant {
        let Self { edge, lanes, dim } = self;
        let prologue = format!(
            "enable f16;\nenable wgpu_cooperative_matrix;\nconst D: u32 = {edge}u;\nconst LANES: u32 = {lanes}u;\n\
             const DIM: u32 = {dim}u;\nalias MatA = coop_mat{edge}x{edge}<f16, A>;\n\
             alias MatB = coop_mat{edge}x{edge}<f16, B>;\nalias MatC = coop_mat{edge}x{edge}<f32, C>;"
        );
        Variant::new("attention_coop")
            .prologue(&prologue)
            .generated("generated/attention_coop.wgsl", self.memory() + &self.moves())
            .generated("generated/attention_coop_begin.wgsl", self.begin())
            .generated("generated/attention_coop_scores.wgsl", self.scores())
            .generated("generated/attention_coop_peak.wgsl", self.peak())
            .generated("generated/attention_coop_weights.wgsl", self.weights())
            .generated("generated/attention_coop_rescale.wgsl", self.rescale())
            .generated("generated/attention_coop_values.wgsl", self.values())
            .generated("generated/attention_coop_store.wgsl", self.store())
            .constant("PAGE", PAGE as u32)
    }

    /// The workgroup's arrays and their access by groups of values.
    fn memory(self) -> String {
        let (keys, lines) = (self.keys(), self.lines());
        let [pitch, score_pitch, weight_pitch] = self.pitches();
        let [element, weight] = self.cells().map(|cell| match cell {
            1 => "f16".to_owned(),
            cell => format!("vec{cell}<f16>"),
        });
        let store = |name: &str, at: &str, count: usize, whole: bool| match whole {
            true => format!("    {name}[{at}] = v;\n"),
            false => (0..count).map(|i| format!("    {name}[{at} + {i}u] = v[{i}];\n")).collect(),
        };
        let wide = self.edge == 16;
        let four = store("staged", "at", 4, wide);
        let pair = store("weights", "at", 2, wide);
        let (four_unit, pair_unit) = if wide { ("", "") } else { ("4u * ", "2u * ") };
        format!(
            "const SUBGROUPS: u32 = {SUBGROUPS}u;\nconst ROWS: u32 = {lines}u;\nconst KEYS: u32 = {keys}u;\n\
             const PITCH: u32 = {pitch}u;\nconst SCORE_PITCH: u32 = {score_pitch}u;\nconst WEIGHT_PITCH: u32 = {weight_pitch}u;\n\
             // First the queries; then keys, and values from line KEYS on.\n\
             var<workgroup> staged: array<{element}, {}>;\n\
             var<workgroup> scores: array<f32, {}>;\nvar<workgroup> weights: array<{weight}, {}>;\n\
             fn set_four(line: u32, four: u32, v: vec4<f16>) {{\n    let at = line * PITCH + {four_unit}four;\n{four}}}\n\
             fn set_weight_pair(line: u32, pair: u32, v: vec2<f16>) {{\n    \
             let at = line * WEIGHT_PITCH + {pair_unit}pair;\n{pair}}}\n\
             fn score_pair(line: u32, pair: u32) -> vec2<f32> {{\n    let at = line * SCORE_PITCH + 2u * pair;\n    \
             return vec2<f32>(scores[at], scores[at + 1u]);\n}}\n\
             fn set_score_pair(line: u32, pair: u32, v: vec2<f32>) {{\n    let at = line * SCORE_PITCH + 2u * pair;\n    \
             scores[at] = v.x;\n    scores[at + 1u] = v.y;\n}}\n",
            lines * pitch,
            lines * score_pitch,
            lines * weight_pitch,
        )
    }

    /// What moves a lane's pieces of a tile: `fetch` and `stage`.
    fn moves(self) -> String {
        let numbers = (0..self.pieces()).map(|i| (i, format!("index + {}u", i * SUBGROUPS * self.lanes)));
        let (mut fields, mut fetch, mut stage) = (String::new(), String::new(), String::new());
        for (i, number) in numbers {
            let _ = write!(fields, "k{i}: vec4<u32>, v{i}: vec4<u32>, ");
            let _ = write!(
                fetch,
                "    let at{i} = piece_of({number});\n    found.k{i} = key_piece(at{i}, base, tile, begin, end);\n    \
                 found.v{i} = value_piece(at{i}, base, tile, begin, end);\n"
            );
            let _ = write!(
                stage,
                "    let at{i} = piece_of({number});\n    stage_piece(at{i}, 0u, pieces.k{i});\n    \
                 stage_piece(at{i}, KEYS, pieces.v{i});\n"
            );
        }
        format!(
            "struct Pieces {{ {fields}}}\n\
             fn fetch(index: u32, base: u32, tile: u32, begin: u32, end: u32) -> Pieces {{\n    var found: Pieces;\n{fetch}    \
             return found;\n}}\nfn stage(index: u32, pieces: Pieces) {{\n{stage}}}\n"
        )
    }

    /// The queries and zeros for the sums: `q0`, …, `o0`, …
    fn begin(self) -> String {
        let mut text = String::new();
        for i in 0..self.across() {
            let _ = write!(
                text,
                "    let at_q{i} = subgroup * D * PITCH + {}u;\n    let q{i} = coopLoadT<MatA>(&staged[at_q{i}], PITCH);\n    \
                 var o{i} = MatC();\n",
                i * self.edge / self.cells()[0]
            );
        }
        text
    }

    /// The subgroup's scores of a tile.
    fn scores(self) -> String {
        let mut text = "    {\n        var s0 = MatC();\n        var s1 = MatC();\n".to_owned();
        for i in 0..self.across() {
            for j in 0..2 {
                let _ = write!(
                    text,
                    "        let at{i}_{j} = {}u * PITCH + {}u;\n        let k{i}_{j} = coopLoad<MatB>(&staged[at{i}_{j}], PITCH);\n        \
                     s{j} = coopMultiplyAdd(q{i}, k{i}_{j}, s{j});\n",
                    j * self.edge,
                    i * self.edge / self.cells()[0]
                );
            }
        }
        text + &self.spill(["s0", "s1"]) + "    }\n"
    }

    /// Two fragments into the subgroup's scores.
    fn spill(self, names: [&str; 2]) -> String {
        let part = |(j, name): (usize, &str)| {
            format!(
                "        let to{j} = subgroup * D * SCORE_PITCH + {}u;\n        let part{j} = {name};\n        \
                 coopStoreT(part{j}, &scores[to{j}], SCORE_PITCH);\n",
                j * self.edge
            )
        };
        names.into_iter().enumerate().map(part).collect()
    }

    /// The lane's scores `s0`, … and the line's `peak`.
    fn peak(self) -> String {
        let mut text = "    var peak = LOWEST;\n".to_owned();
        for (i, pair) in self.pairs() {
            let _ = write!(
                text,
                "    let s{i} = scored(line, {pair}, tile, low, high, factor);\n    peak = max(peak, max(s{i}.x, s{i}.y));\n"
            );
        }
        text + "    peak = widest(peak);\n"
    }

    /// The lane's weights into memory and into `total`.
    fn weights(self) -> String {
        let pair = |(i, pair): (usize, String)| {
            format!(
                "    let w{i} = weighed(s{i}, largest);\n    total += f32(w{i}.x) + f32(w{i}.y);\n    \
                 set_weight_pair(line, {pair}, w{i});\n"
            )
        };
        self.pairs().map(pair).collect()
    }

    /// The sums times `keep`, through the memory of scores.
    fn rescale(self) -> String {
        let mut text = String::new();
        for i in (0..self.across()).step_by(2) {
            text += "    {\n";
            text += &self.spill([&format!("o{i}"), &format!("o{}", i + 1)]);
            text += "        workgroupBarrier();\n";
            for (_, pair) in self.pairs() {
                let _ = writeln!(text, "        rescale_pair(line, {pair}, keep);");
            }
            text += "        workgroupBarrier();\n";
            for j in 0..2 {
                let _ = writeln!(text, "        o{} = coopLoadT<MatC>(&scores[to{j}], SCORE_PITCH);", i + j);
            }
            text += "        workgroupBarrier();\n    }\n";
        }
        text
    }

    /// The tile's weighed values onto the sums.
    fn values(self) -> String {
        let [line, weight] = self.cells();
        let mut text = "    {\n".to_owned();
        for k in 0..2 {
            let _ = write!(
                text,
                "        let at_w{k} = subgroup * D * WEIGHT_PITCH + {}u;\n        \
                 let w{k} = coopLoadT<MatA>(&weights[at_w{k}], WEIGHT_PITCH);\n",
                k * self.edge / weight
            );
            for i in 0..self.across() {
                let _ = write!(
                    text,
                    "        let at{k}_{i} = (KEYS + {}u) * PITCH + {}u;\n        let v{k}_{i} = coopLoadT<MatB>(&staged[at{k}_{i}], PITCH);\n        \
                     o{i} = coopMultiplyAdd(w{k}, v{k}_{i}, o{i});\n",
                    k * self.edge,
                    i * self.edge / line
                );
            }
        }
        text + "    }\n"
    }

    /// The sums over `total`, through the memory of scores, to the outputs of the rows in use.
    fn store(self) -> String {
        let mut text = String::new();
        for i in (0..self.across()).step_by(2) {
            text += "    {\n";
            text += &self.spill([&format!("o{i}"), &format!("o{}", i + 1)]);
            text += "        workgroupBarrier();\n        if (used) {\n";
            for (_, pair) in self.pairs() {
                let _ = writeln!(
                    text,
                    "            out[to + {}u + {pair}] = share_of_all * score_pair(line, {pair});",
                    i * self.edge / 2
                );
            }
            text += "        }\n        workgroupBarrier();\n    }\n";
        }
        text
    }
}
