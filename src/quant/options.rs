//! The recipes that are tried for each linear of a block, the combinations of them that are
//! measured, and the recipe of the head for each `--head-bits`. The tables are those of ExLlamaV2
//! 0.0.11 to 0.3.2.

use super::recipe::{BlockKind, Recipe};
use crate::error::{Error, Result};

/// What is tried for one block: recipes per linear, and which of them are tried together.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockOptions {
    /// For each linear of the block, in the order of [`BlockKind`], its distinct recipes in the
    /// order of their first use.
    pub linears: Vec<Vec<Recipe>>,
    /// For each combination, one index into `linears[l]` per linear `l`.
    pub combinations: Vec<Vec<usize>>,
}

impl BlockOptions {
    /// The options of a block: 19 combinations for attention, 17 for an MLP, and for the head each
    /// recipe that `--head-bits` can name.
    pub fn of(kind: BlockKind) -> Self {
        match kind {
            BlockKind::Attention => Self::from_rows(&ATTENTION.map(|[qk, v, o]| [qk, qk, v, o])),
            BlockKind::Mlp => Self::from_rows(&MLP),
            BlockKind::Head => Self::from_rows(&HEAD.map(|(_, recipe)| [recipe])),
        }
    }

    fn from_rows<const LINEARS: usize>(rows: &[[&str; LINEARS]]) -> Self {
        let mut names: [Vec<&str>; LINEARS] = [const { Vec::new() }; LINEARS];
        let mut combinations = Vec::with_capacity(rows.len());
        for row in rows {
            let mut combination = Vec::with_capacity(LINEARS);
            for (known, name) in names.iter_mut().zip(row) {
                let index = known.iter().position(|other| other == name).unwrap_or_else(|| {
                    known.push(name);
                    known.len() - 1
                });
                combination.push(index);
            }
            combinations.push(combination);
        }
        let linears = names.into_iter().map(|names| names.into_iter().map(parse).collect()).collect();
        Self { linears, combinations }
    }

    /// The recipes of one combination, one per linear.
    ///
    /// # Panics
    /// Never for an index below `combinations.len()`.
    pub fn recipes(&self, combination: usize) -> impl Iterator<Item = &Recipe> {
        self.combinations[combination].iter().zip(&self.linears).map(|(&index, recipes)| &recipes[index])
    }

    /// Stored bits of one combination over linears of `shapes` (each `[k, n]`), without biases.
    ///
    /// # Errors
    /// A shape that EXL2 cannot store, or another number of shapes than linears.
    pub fn total_bits(&self, combination: usize, shapes: &[(usize, usize)]) -> Result<u64> {
        if shapes.len() != self.linears.len() {
            let message = format!("{} shapes for a block of {} linears", shapes.len(), self.linears.len());
            return Err(Error::shape("block options", message));
        }
        self.recipes(combination).zip(shapes).map(|(recipe, &(k, n))| recipe.total_bits(k, n)).sum()
    }
}

/// The recipe of the head for a value of `--head-bits`.
///
/// # Errors
/// A number of bits for which there is none.
pub fn head_recipe(bits: u32) -> Result<Recipe> {
    let found = HEAD.iter().find(|(known, _)| *known == bits);
    let (_, recipe) = found.ok_or_else(|| {
        Error::argument("--head-bits", format!("{bits} is not supported; use 2, 3, 4, 5, 6 or 8"))
    })?;
    Ok(parse(recipe))
}

fn parse(recipe: &str) -> Recipe {
    recipe.parse().expect("the tables hold valid recipes, which a test walks through")
}

/// Columns: query and key, value, output.
const ATTENTION: [[&str; 3]; 19] = [
    ["0.05:3b/0.95:2b 64g s4", "0.05:3b/0.95:2b 64g s4", "0.05:3b/0.95:2b 64g s4"],
    ["0.1:3b/0.9:2b 64g s4", "0.25:3b/0.75:2b 64g s4", "0.1:3b/0.9:2b 64g s4"],
    ["0.1:3b/0.9:2b 64g s4", "0.1:4b/0.9:3b 128g s4", "0.1:3b/0.9:2b 64g s4"],
    ["0.1:3b/0.9:2b 64g s4", "0.1:4b/0.9:3b 128g s4", "0.1:4b/0.9:3b 128g s4"],
    ["0.1:4b/0.9:3b 128g s4", "0.1:4b/0.9:3b 128g s4", "0.1:4b/0.9:3b 128g s4"],
    ["0.1:4b/0.9:3b 128g s4", "0.1:4b/0.9:3b 64g s4", "0.1:4b/0.9:3b 128g s4"],
    ["1:4b 128g s4", "1:4b 128g s4", "1:4b 128g s4"],
    ["1:4b 128g s4", "1:4b 64g s4", "1:4b 128g s4"],
    ["1:4b 64g s4", "1:4b 32g s4", "1:4b 64g s4"],
    ["1:4b 32g s4", "1:4b 32g s4", "1:4b 32g s4"],
    ["0.1:5b/0.9:4b 128g s4", "0.1:5b/0.9:4b 64g s4", "0.1:5b/0.9:4b 128g s4"],
    ["0.1:5b/0.9:4b 64g s4", "0.1:5b/0.9:4b 32g s4", "0.1:5b/0.9:4b 64g s4"],
    ["0.1:5b/0.9:4b 64g s4", "1:5b 64g s4", "0.1:5b/0.9:4b 64g s4"],
    ["0.1:5b/0.9:4b 32g s4", "1:5b 32g s4", "0.1:5b/0.9:4b 32g s4"],
    ["0.1:6b/0.9:5b 128g s4", "1:6b 128g s4", "0.1:6b/0.9:5b 128g s4"],
    ["0.1:6b/0.9:5b 32g s4", "1:6b 32g s4", "0.1:6b/0.9:5b 32g s4"],
    ["1:6b 128g s4", "1:6b 128g s4", "1:6b 128g s4"],
    ["1:6b 32g s4", "1:8b 32g s4", "1:6b 32g s4"],
    ["1:8b 128g s4", "1:8b 128g s4", "1:8b 128g s4"],
];

/// Columns: gate, up, down.
const MLP: [[&str; 3]; 17] = [
    ["0.05:3b/0.95:2b 64g s4", "0.05:3b/0.95:2b 64g s4", "0.05:6b/0.2:3b/0.75:2b 32/64/64g s4"],
    ["0.1:3b/0.9:2b 64g s4", "0.25:3b/0.75:2b 64g s4", "0.05:6b/0.2:3b/0.75:2b 32/64/64g s4"],
    ["0.1:3b/0.9:2b 64g s4", "0.3:3b/0.7:2b 64g s4", "0.05:5b/0.95:3b 32g s4"],
    ["0.1:3b/0.9:2b 64g s4", "0.3:3b/0.7:2b 64g s4", "0.05:5b/0.95:4b 32g s4"],
    ["0.1:4b/0.9:3b 128g s4", "0.25:4b/0.75:3b 128g s4", "0.05:8b/0.1:4b/0.85:3b 32/128/128g s4"],
    ["0.1:4b/0.9:3b 32g s4", "0.25:4b/0.75:3b 32g s4", "0.05:8b/0.1:4b/0.85:3b 32g s4"],
    ["0.1:4b/0.9:3b 32g s4", "0.25:4b/0.75:3b 32g s4", "0.05:8b/0.95:4b 32/128g s4"],
    ["1:4b 128g s4", "1:4b 32g s4", "0.05:8b/0.95:4b 32/128g s4"],
    ["1:4b 32g s4", "1:4b 32g s4", "0.05:8b/0.95:4b 32g s4"],
    ["0.1:5b/0.9:4b 128g s4", "0.25:5b/0.75:4b 128g s4", "0.05:8b/0.1:5b/0.85:4b 32/128/128g s4"],
    ["0.1:5b/0.9:4b 32g s4", "0.25:5b/0.75:4b 32g s4", "0.05:8b/0.1:5b/0.85:4b 32g s4"],
    ["0.1:6b/0.9:5b 128g s4", "0.25:6b/0.75:5b 128g s4", "0.05:8b/0.1:6b/0.85:5b 32/128/128g s4"],
    ["0.1:6b/0.9:5b 32g s4", "0.25:6b/0.75:5b 32g s4", "0.05:8b/0.1:6b/0.85:5b 32g s4"],
    ["1:6b 128g s4", "1:6b 128g s4", "0.05:8b/0.95:6b 32/128g s4"],
    ["0.1:8b/0.9:6b 128g s4", "0.1:8b/0.9:6b 128g s4", "0.15:8b/0.85:6b 128g s4"],
    ["0.1:8b/0.9:6b 128g s4", "0.1:8b/0.9:6b 128g s4", "1:8b 128g s4"],
    ["1:8b 128g s4", "1:8b 128g s4", "1:8b 128g s4"],
];

const HEAD: [(u32, &str); 6] = [
    (2, "0.3:4b/0.7:2b 32g s4"),
    (3, "0.15:4b/0.85:3b 32g s4"),
    (4, "0.15:6b/0.85:4b 32g s4"),
    (5, "0.15:6b/0.85:5b 128g s4"),
    (6, "0.15:8b/0.85:6b 128g s4"),
    (8, "1:8b 128g s4"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes that ExLlamaV2's own tables give for the geometry of Llama 3 8B.
    const ATTENTION_8B: [u64; 19] = [
        89665536, 92221440, 95758848, 112272384, 132913152, 132980224, 169613312, 169745920, 171195392,
        173563904, 174923264, 175750144, 179253248, 181592064, 220469248, 223535104, 253499392, 265838592,
        337385472,
    ];
    const MLP_8B: [u64; 17] = [
        395461696, 409224256, 457272320, 512977920, 578397280, 592872448, 637454432, 728741472, 739476480,
        751543392, 766018560, 924689504, 939164672, 1069524064, 1110384896, 1209999616, 1415520512,
    ];

    #[test]
    fn sizes_at_8b() {
        let attention = [(4096, 4096), (4096, 1024), (4096, 1024), (4096, 4096)];
        let mlp = [(4096, 14336), (4096, 14336), (14336, 4096)];
        let cases = [
            (BlockKind::Attention, &attention[..], &ATTENTION_8B[..]),
            (BlockKind::Mlp, &mlp[..], &MLP_8B[..]),
        ];
        for (kind, shapes, expected) in cases {
            let options = BlockOptions::of(kind);
            let sizes: Vec<u64> =
                (0..options.combinations.len()).map(|c| options.total_bits(c, shapes).unwrap()).collect();
            assert_eq!(sizes, expected);
        }
    }

    /// Bits per weight at the geometry of Llama 2 7B, to four digits.
    #[test]
    fn bits_per_weight_at_7b() {
        let first_and_last = |kind, shapes: &[(usize, usize)]| {
            let options = BlockOptions::of(kind);
            let weights: usize = shapes.iter().map(|(k, n)| k * n).sum();
            [0, options.combinations.len() - 1]
                .map(|c| format!("{:.4}", options.total_bits(c, shapes).unwrap() as f64 / weights as f64))
        };
        assert_eq!(first_and_last(BlockKind::Attention, &[(4096, 4096); 4]), ["2.1330", "8.0392"]);
        let mlp = [(4096, 11008), (4096, 11008), (11008, 4096)];
        assert_eq!(first_and_last(BlockKind::Mlp, &mlp), ["2.2475", "8.0358"]);
        for (bits, expected) in
            [(2, "2.7354"), (3, "3.2823"), (4, "4.4385"), (5, "5.1885"), (6, "6.3448"), (8, "8.0323")]
        {
            let head = head_recipe(bits).unwrap();
            assert_eq!(format!("{:.4}", head.bits_per_weight(4096, 32000).unwrap()), expected);
        }
        assert!(head_recipe(7).unwrap_err().to_string().contains("--head-bits"));
    }

    #[test]
    fn distinct_recipes_per_linear() {
        let counts = |kind| BlockOptions::of(kind).linears.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(counts(BlockKind::Attention), [14, 14, 15, 14]);
        assert_eq!(counts(BlockKind::Mlp), [13, 13, 14]);
        assert_eq!(counts(BlockKind::Head), [6]);
        let options = BlockOptions::of(BlockKind::Mlp);
        assert_eq!(
            options.recipes(4).map(Recipe::to_string).collect::<Vec<_>>(),
            ["0.1:4b/0.9:3b 128g s4", "0.25:4b/0.75:3b 128g s4", "0.05:8b/0.1:4b/0.85:3b 32/128/128g s4"]
        );
    }

    #[test]
    fn a_wrong_number_of_shapes_is_refused() {
        assert!(BlockOptions::of(BlockKind::Mlp).total_bits(0, &[(64, 64); 4]).is_err());
    }
}
