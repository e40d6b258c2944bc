//! The recipes that are tried for the linears of the decoder, and the recipe of the head for each `--head-bits`, which is
//! that of ExLlamaV2 0.3.2.

use super::recipe::Recipe;
use crate::error::{Error, Result};

/// The recipes that each linear of the decoder may get, from the smallest to the largest at common shapes.
pub fn linear_recipes() -> Vec<Recipe> {
    LINEAR.iter().map(|(recipe, _)| parse(recipe)).collect()
}

/// Those of [`linear_recipes`], by number, with which a linear's effect on the whole model is probed; that of the others is
/// told from these.
pub fn probed() -> Vec<usize> {
    LINEAR.iter().enumerate().filter(|(_, (_, probed))| *probed).map(|(index, _)| index).collect()
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

/// Recipes, and whether a linear is probed with them: each width in three sizes of group as far as they differ in price, and
/// mixtures between widths, the most active rows having the more bits. Which of them are chosen how often was not looked into.
const LINEAR: [(&str, bool); 22] = [
    ("1:2b 128g s4", false),
    ("1:2b 64g s4", true),
    ("1:2b 32g s4", false),
    ("0.1:3b/0.9:2b 64g s4", false),
    ("0.25:3b/0.75:2b 64g s4", false),
    ("0.05:6b/0.2:3b/0.75:2b 32/64/64g s4", false),
    ("0.5:3b/0.5:2b 64g s4", false),
    ("0.75:3b/0.25:2b 64g s4", false),
    ("1:3b 128g s4", false),
    ("1:3b 64g s4", true),
    ("1:3b 32g s4", false),
    ("0.25:4b/0.75:3b 64g s4", false),
    ("0.05:8b/0.2:4b/0.75:3b 32/64/64g s4", false),
    ("0.5:4b/0.5:3b 64g s4", false),
    ("1:4b 128g s4", false),
    ("1:4b 64g s4", true),
    ("1:4b 32g s4", false),
    ("0.5:5b/0.5:4b 64g s4", false),
    ("1:5b 64g s4", false),
    ("1:5b 32g s4", false),
    ("1:6b 32g s4", false),
    ("1:8b 128g s4", false),
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

    #[test]
    fn sizes_rise() {
        for (k, n) in [(4096, 4096), (4096, 11008), (11008, 4096), (8192, 28672)] {
            let bits = |recipe: &Recipe| recipe.bits_per_weight(k, n).unwrap();
            let sizes: Vec<f64> = linear_recipes().iter().map(bits).collect();
            assert!(sizes[0] < 2.1 && *sizes.last().unwrap() < 8.1, "{sizes:?}");
            assert!(sizes.is_sorted(), "{sizes:?}");
        }
    }

    #[test]
    fn the_probed_recipes_are_plain_widths() {
        let recipes = linear_recipes();
        let widths: Vec<u32> = probed().iter().map(|&index| recipes[index].widths[0].0).collect();
        assert_eq!(widths, [2, 3, 4]);
        assert!(probed().iter().all(|&index| recipes[index].widths.len() == 1));
    }

    /// Also where rows are so few that recipes share a layout.
    #[test]
    fn three_layouts_are_probed() {
        let recipes = linear_recipes();
        for k in [32, 64, 96, 4096] {
            let layouts: Vec<_> = probed().iter().map(|&index| recipes[index].layout(k).unwrap()).collect();
            assert!(layouts.windows(2).all(|pair| pair[0] != pair[1]), "{k}");
        }
    }

    #[test]
    fn bits_of_the_head_at_7b() {
        for (bits, expected) in
            [(2, "2.7354"), (3, "3.2823"), (4, "4.4385"), (5, "5.1885"), (6, "6.3448"), (8, "8.0323")]
        {
            let head = head_recipe(bits).unwrap();
            assert_eq!(format!("{:.4}", head.bits_per_weight(4096, 32000).unwrap()), expected);
        }
        assert!(head_recipe(7).unwrap_err().to_string().contains("--head-bits"));
    }
}
