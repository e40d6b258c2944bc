//! How a group's scales are found, and the recording of the search. Not here: rounding with them (`gptq`).

use super::hessian::PreparedHessian;
use crate::Result;
use crate::gpu::{CommandList, Device};
use crate::ops::Tensor;
use crate::ops::gptq_group::MOST_ROWS;
use crate::ops::scale_loss::{LossSearch, scale_choose, scale_loss};
use crate::ops::scale_search::{GroupRows, ScaleSearch, column_max, scale_error, scale_pick};

/// How the scales of a group are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleRule {
    /// Every column's code from its largest weight, one multiplier of 97 for all by |error|^3.5 (ExLlamaV2 0.3.2).
    Exl2,
    /// All 16 codes of every column with 5 maxima of the group, by what rounding with feedback inside the group costs.
    Searched,
}

impl std::fmt::Display for ScaleRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exl2 => "exl2",
            Self::Searched => "searched",
        })
    }
}

impl std::str::FromStr for ScaleRule {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "exl2" => Ok(Self::Exl2),
            "searched" => Ok(Self::Searched),
            _ => Err("write searched or exl2".into()),
        }
    }
}

/// The search for the scales of a matrix's groups, one after the other.
pub(super) struct Scales {
    /// What it leaves for rounding.
    pub(super) search: ScaleSearch,
    losses: Option<Losses>,
}

struct Losses {
    search: LossSearch,
    /// Rows of U for a group that lies in two slabs of it.
    joined: Option<Tensor>,
}

impl Scales {
    /// For a matrix whose columns are in slabs of the given widths; groups as in [`ScaleSearch::new`].
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub(super) fn new(
        device: &Device,
        rule: ScaleRule,
        widths: &[usize],
        (groups, most_rows): (usize, usize),
        hessian: &PreparedHessian,
    ) -> Result<Self> {
        let search = ScaleSearch::new(device, widths, groups, most_rows)?;
        let losses = match rule {
            ScaleRule::Exl2 => None,
            ScaleRule::Searched => {
                let cut = hessian.factor().slab_rows() < hessian.k();
                let rows = most_rows.min(MOST_ROWS);
                let join = || Tensor::zeros(device, "rows of the factor", rows, hessian.k());
                Some(Losses {
                    search: LossSearch::new(device, widths.iter().sum())?,
                    joined: cut.then(join).transpose()?,
                })
            }
        };
        Ok(Self { search, losses })
    }

    /// Records the search for one group, whose rows in each slab of columns are given.
    ///
    /// # Errors
    /// As the operations.
    pub(super) fn record(
        &mut self,
        list: &mut CommandList,
        slabs: &[GroupRows<'_>],
        hessian: &PreparedHessian,
    ) -> Result<()> {
        for rows in slabs {
            column_max(list, &self.search, rows)?;
        }
        let GroupRows { group, bits, .. } = slabs[0];
        let Some(losses) = &self.losses else {
            for rows in slabs {
                scale_error(list, &mut self.search, rows)?;
            }
            return scale_pick(list, &mut self.search, group);
        };
        let factor = losses.factor(list, &slabs[0], hessian)?;
        for rows in slabs {
            scale_loss(list, &self.search, &losses.search, rows, factor)?;
        }
        scale_choose(list, &self.search, &losses.search, group, bits)
    }
}

impl Losses {
    /// The rows of U that the search needs in one tensor, and the number of the first there.
    fn factor<'a>(
        &'a self,
        list: &mut CommandList,
        rows: &GroupRows<'_>,
        hessian: &'a PreparedHessian,
    ) -> Result<(&'a Tensor, usize)> {
        let (first, end) = (rows.first, rows.first + rows.rows.min(MOST_ROWS));
        let (slab, row) = hessian.factor().find(first);
        let Some(joined) = self.joined.as_ref().filter(|_| row + end - first > slab.rows()) else {
            return Ok((slab, row));
        };
        let line = 4 * hessian.k() as u64;
        let mut next = first;
        while next < end {
            let (slab, row) = hessian.factor().find(next);
            let count = (slab.rows() - row).min(end - next);
            let to = (next - first) as u64 * line;
            list.copy(slab.buffer(), row as u64 * line, joined.buffer(), to, count as u64 * line)?;
            next += count;
        }
        Ok((joined, 0))
    }
}
