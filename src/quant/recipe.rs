//! How one linear can be stored: which share of its sorted rows gets how many bits, in groups of
//! how many rows. Knows the row rule and the size of a recipe, and how recipes are written in logs
//! and files. Which recipes are tried for which linear is in [`super::options`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::packing::{BLOCK_ROWS, Group, Layout, WIDTHS};

/// A mixture of bit widths for the rows of one matrix, most bits first.
///
/// Written `0.05:6b/0.2:3b/0.75:2b 32/64/64g s4`: 5 % of the rows at 6 bits in groups of 32, and so
/// on; one group size where all are equal (`1:4b 128g s4`). `s4` are the 4-bit scale codes, which
/// the format always has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Recipe {
    /// (bits, share of the rows) in descending order of bits; the shares sum to 1.
    pub widths: Vec<(u32, f64)>,
    /// Rows per group for each width, multiples of 32.
    pub group_sizes: Vec<usize>,
}

impl Recipe {
    /// A checked recipe.
    ///
    /// # Errors
    /// Widths that EXL2 does not have or that do not descend, shares that do not sum to 1 or group
    /// sizes that are not multiples of 32.
    pub fn new(widths: Vec<(u32, f64)>, group_sizes: Vec<usize>) -> Result<Self> {
        let refuse = |message: String| Err(Error::argument("recipe", message));
        if widths.is_empty() || widths.len() != group_sizes.len() {
            return refuse(format!("{} widths with {} group sizes", widths.len(), group_sizes.len()));
        }
        if let Some((bits, _)) = widths.iter().find(|(bits, _)| !WIDTHS.contains(bits)) {
            return refuse(format!("{bits} bits do not exist in EXL2; use 2, 3, 4, 5, 6 or 8"));
        }
        if !widths.is_sorted_by(|a, b| a.0 > b.0) {
            return refuse("widths must be in descending order, each once".into());
        }
        let sum: f64 = widths.iter().map(|(_, share)| share).sum();
        let possible = |share: f64| share > 0.0 && share <= 1.0;
        if !widths.iter().all(|&(_, share)| possible(share)) || (sum - 1.0).abs() >= 1e-9 {
            return refuse(format!("the shares must be above 0 and sum to 1, not {sum}"));
        }
        let fits = |size: &usize| *size > 0 && size.is_multiple_of(BLOCK_ROWS) && *size <= MOST_ROWS;
        if let Some(size) = group_sizes.iter().find(|size| !fits(size)) {
            return refuse(format!("group size {size} is not a multiple of {BLOCK_ROWS} up to {MOST_ROWS}"));
        }
        Ok(Self { widths, group_sizes })
    }

    /// The groups that this recipe makes of `k` rows.
    ///
    /// ExLlamaV2's row rule: each width in order takes `ceil(min(k * share, left) / size)` groups,
    /// so a late width may get none; groups are then cut from the top and the last may be short.
    ///
    /// # Errors
    /// `k` is no multiple of 32 or above 65535.
    pub fn layout(&self, k: usize) -> Result<Layout> {
        if k == 0 || !k.is_multiple_of(BLOCK_ROWS) || k > MOST_ROWS {
            let message = format!(
                "{k} input features; EXL2's input features must be a multiple of {BLOCK_ROWS}, at most {MOST_ROWS}"
            );
            return Err(Error::shape("quantize", message));
        }
        let mut groups = Vec::new();
        let mut left = k;
        for (position, (&(bits, share), &size)) in self.widths.iter().zip(&self.group_sizes).enumerate() {
            let last = position + 1 == self.widths.len();
            // Double arithmetic, as in the converter whose sizes are to be met exactly. The last width
            // takes what is left, which is the same because the others round their share up.
            let wanted = if last { left as f64 } else { (k as f64 * share).min(left as f64) };
            for _ in 0..(wanted / size as f64).ceil() as usize {
                let rows = size.min(left);
                if rows > 0 {
                    groups.push(Group { bits, rows });
                }
                left -= rows;
            }
        }
        Layout::new(groups)
    }

    /// Stored bits of a `[k, n]` matrix with this recipe, without a bias; `n` is padded to 32.
    ///
    /// # Errors
    /// As [`Recipe::layout`].
    pub fn total_bits(&self, k: usize, n: usize) -> Result<u64> {
        Ok(self.layout(k)?.total_bits(n.next_multiple_of(32)))
    }

    /// Stored bits per weight of a `[k, n]` matrix, counting the padded columns as weights, as
    /// ExLlamaV2 prints it.
    ///
    /// # Errors
    /// As [`Recipe::layout`].
    pub fn bits_per_weight(&self, k: usize, n: usize) -> Result<f64> {
        Ok(self.total_bits(k, n)? as f64 / (k as f64 * n.next_multiple_of(32) as f64))
    }
}

/// The largest number of rows that EXL2 can hold (its permutation has 16 bits), in whole blocks.
const MOST_ROWS: usize = 65504;

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |parts: Vec<String>| parts.join("/");
        let widths = join(self.widths.iter().map(|(bits, share)| format!("{share}:{bits}b")).collect());
        let sizes = match self.group_sizes.as_slice() {
            [first, rest @ ..] if rest.iter().all(|size| size == first) => first.to_string(),
            sizes => join(sizes.iter().map(usize::to_string).collect()),
        };
        f.pad(&format!("{widths} {sizes}g s4"))
    }
}

impl FromStr for Recipe {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || Error::argument("recipe", format!("`{text}` is not like `0.05:3b/0.95:2b 32g s4`"));
        let [widths, sizes, "s4"] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(refuse()) };
        let width = |part: &str| -> Option<(u32, f64)> {
            let (share, bits) = part.strip_suffix('b')?.split_once(':')?;
            Some((bits.parse().ok()?, share.parse().ok()?))
        };
        let widths: Vec<_> = widths.split('/').map(width).collect::<Option<_>>().ok_or_else(refuse)?;
        let sizes = sizes.strip_suffix('g').ok_or_else(refuse)?;
        let sizes: std::result::Result<Vec<usize>, _> = sizes.split('/').map(str::parse).collect();
        let mut sizes = sizes.map_err(|_| refuse())?;
        if sizes.len() == 1 {
            sizes.resize(widths.len(), sizes[0]);
        }
        Self::new(widths, sizes)
    }
}

impl TryFrom<String> for Recipe {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Recipe> for String {
    fn from(recipe: Recipe) -> Self {
        recipe.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(recipe: &str, k: usize) -> Vec<(u32, usize)> {
        let layout = recipe.parse::<Recipe>().unwrap().layout(k).unwrap();
        layout.groups().iter().map(|group| (group.bits, group.rows)).collect()
    }

    /// The worked examples of the row rule, counted by hand.
    #[test]
    fn rows_per_width() {
        let repeat = |parts: &[(u32, usize, usize)]| -> Vec<(u32, usize)> {
            parts.iter().flat_map(|&(bits, rows, times)| std::iter::repeat_n((bits, rows), times)).collect()
        };
        assert_eq!(groups("0.1:4b/0.9:3b 128g s4", 4096), repeat(&[(4, 128, 4), (3, 128, 28)]));
        assert_eq!(
            groups("0.05:8b/0.1:4b/0.85:3b 32/128/128g s4", 11008),
            repeat(&[(8, 32, 18), (4, 128, 9), (3, 128, 72), (3, 64, 1)])
        );
        assert_eq!(
            groups("0.05:6b/0.2:3b/0.75:2b 32/64/64g s4", 1536),
            repeat(&[(6, 32, 3), (3, 64, 5), (2, 64, 17), (2, 32, 1)])
        );
        // 64 rows are one group of the first width, nothing is left for the second.
        assert_eq!(groups("0.05:3b/0.95:2b 64g s4", 64), [(3, 64)]);
        assert_eq!(groups("1:4b 128g s4", 32), [(4, 32)]);
    }

    /// Every recipe of the tables over all K up to 8192: rows add up, widths descend, and no width
    /// but the last gets fewer rows than its share while rows are left.
    #[test]
    fn all_rows_are_used_once() {
        for recipe in super::super::options::linear_recipes() {
            for k in (32..=8192).step_by(32) {
                let layout = recipe.layout(k).unwrap();
                assert_eq!(layout.groups().iter().map(|group| group.rows).sum::<usize>(), k);
                let (bits, share) = recipe.widths[0];
                let first = layout.groups().iter().filter(|group| group.bits == bits);
                let rows: usize = first.map(|group| group.rows).sum();
                assert!(rows as f64 >= k as f64 * share || rows == k, "{recipe} of {k}");
            }
        }
    }

    #[test]
    fn text_form() {
        for text in [
            "0.05:3b/0.95:2b 32g s4",
            "0.05:6b/0.2:3b/0.75:2b 32/64/64g s4",
            "1:4b 128g s4",
            "0.15:8b/0.85:6b 128g s4",
        ] {
            assert_eq!(text.parse::<Recipe>().unwrap().to_string(), text);
        }
        let padded = format!("{:<26}|", "1:4b 128g s4".parse::<Recipe>().unwrap());
        assert_eq!(padded, "1:4b 128g s4              |");
        for bad in [
            "",
            "1:4b 128g",
            "1:7b 32g s4",
            "0.5:4b 32g s4",
            "0.5:3b/0.5:4b 32g s4",
            "1:4b 48g s4",
            "1:4b 0g s4",
            "NaN:4b 32g s4",
            "1:4b 32/32g s4",
            "1:4b 99999999999999999999g s4",
            "1:4b 32g s4 ",
        ] {
            assert!(bad.parse::<Recipe>().is_err(), "{bad}");
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let recipe: Recipe = "1:4b 128g s4".parse().unwrap();
        for k in [0, 31, 48, 65536, 1 << 40] {
            assert!(recipe.layout(k).is_err(), "{k}");
        }
    }
}
