//! Chooses one option per slot so that the sum of squared errors is least while the bits stay under
//! a target: a pure function over opaque options. Where options come from and what they mean is not
//! known here.
//!
//! All budgets are solved at once: the frontier lists solutions from the cheapest to the dearest,
//! each better than the one before, without looking at the target. The target then picks the last
//! one that fits. So the result is the same every time, and a larger target never gives a larger
//! error. The distance from the optimum is proven by the Lagrangian bound; on small
//! instances the frontier is complete and the result is the optimum.

mod bound;
mod frontier;

use crate::error::{Error, Result};
use frontier::Frontier;

/// One way to store a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Stored bits.
    pub bits: u64,
    /// Relative error; its square is what is summed.
    pub error: f64,
}

/// How many bits may be used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Bits per weight asked for.
    pub bits_per_weight: f64,
    /// Weights in all slots together.
    pub weights: u64,
}

/// What was chosen, and how good it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// For each slot the index of the chosen option.
    pub choice: Vec<usize>,
    /// Bits of all chosen options, at most `budget`.
    pub bits: u64,
    /// The target in whole bits.
    pub budget: u64,
    /// Weights in all slots together, from the target.
    pub weights: u64,
    /// Sum of the squared errors of the chosen options.
    pub objective: f64,
    /// No choice within the budget has a smaller sum than this.
    pub bound: f64,
    /// Bits that moving a single slot to its next better option would cost at least; none when
    /// every slot has its best option.
    pub cheapest_upgrade: Option<u64>,
}

impl Allocation {
    /// Bits of the target that are not used.
    pub fn unused(&self) -> u64 {
        self.budget - self.bits
    }

    /// Bits per weight of the choice.
    pub fn bits_per_weight(&self) -> f64 {
        self.bits as f64 / self.weights as f64
    }

    /// How far the sum of squared errors can be above the smallest possible, as a share of it.
    pub fn gap(&self) -> f64 {
        if self.objective > self.bound { (self.objective - self.bound) / self.bound } else { 0.0 }
    }
}

/// Chooses one option per slot.
///
/// The result has at most the target's bits and at most 0.01 bits per weight fewer; where the
/// options do not allow that, fewer bits are unused than the cheapest upgrade of a single slot
/// costs. An option that costs at least as much as another without a smaller error is never chosen.
///
/// # Errors
/// A target outside of what the options can reach, with the reachable range; no slots, a slot
/// without options, errors that are negative or not finite, sizes that overflow.
pub fn allocate(slots: &[Vec<Candidate>], target: Target) -> Result<Allocation> {
    let useful = slots.iter().enumerate().map(|(i, slot)| Slot::new(i, slot)).collect::<Result<Vec<_>>>()?;
    let budget = budget(slots, target)?;
    let frontier = Frontier::new(&useful);
    let position = Walk { slots: &useful, frontier: &frontier, tolerance: target.weights / 100 }.run(budget);
    let objective = position.objective(&useful);
    let bits = position.bits(&useful);
    let bound = if frontier.exact { objective } else { bound::lagrangian(&useful, budget).min(objective) };
    Ok(Allocation {
        bits,
        budget,
        weights: target.weights,
        objective,
        bound,
        cheapest_upgrade: position.cheapest_upgrade(&useful).map(|(bits, _)| bits),
        choice: position.0.iter().zip(&useful).map(|(&i, slot)| slot.options[i].index).collect(),
    })
}

/// The target in whole bits, or an error that states what can be reached.
fn budget(slots: &[Vec<Candidate>], target: Target) -> Result<u64> {
    let sum = |pick: fn(std::slice::Iter<'_, Candidate>) -> Option<u64>| {
        slots.iter().try_fold(0u64, |sum, slot| sum.checked_add(pick(slot.iter())?))
    };
    let least = sum(|slot| slot.map(|option| option.bits).min());
    let most = sum(|slot| slot.map(|option| option.bits).max());
    let (Some(least), Some(most)) = (least, most) else {
        return Err(Error::argument("allocate", "the sizes of the options add up to more than 64 bits hold"));
    };
    if slots.is_empty() || target.weights == 0 {
        return Err(Error::argument("allocate", "there is nothing to choose: no slots or no weights"));
    }
    let weights = target.weights as f64;
    let bits = target.bits_per_weight * weights;
    // What lies above all options by no more than the promised 0.01 is met by the dearest.
    if !(bits >= least as f64 && bits <= most as f64 + weights / 100.0) {
        return Err(Error::argument(
            "--bits",
            format!(
                "{} bits per weight cannot be reached; this model's options give {:.3} to {:.3}",
                target.bits_per_weight,
                (least as f64 / weights * 1000.0).ceil() / 1000.0,
                (most as f64 / weights * 1000.0).floor() / 1000.0
            ),
        ));
    }
    Ok((bits.floor() as u64).max(least))
}

/// The options of a slot that are worth having: more bits always mean a smaller error.
struct Slot {
    options: Vec<Useful>,
}

/// An option with its place in the caller's list.
#[derive(Clone, Copy)]
struct Useful {
    bits: u64,
    square: f64,
    index: usize,
}

impl Slot {
    fn new(position: usize, candidates: &[Candidate]) -> Result<Self> {
        let place = || format!("slot {position} of the allocation");
        if candidates.is_empty() || candidates.len() > frontier::MOST_OPTIONS {
            return Err(Error::argument(place(), format!("{} options", candidates.len())));
        }
        if let Some(bad) = candidates.iter().find(|option| !(option.error >= 0.0 && option.error < 1e100)) {
            let message = format!("an option has the error {}; measure again", bad.error);
            return Err(Error::Numerical { place: place(), message });
        }
        let square = |(index, option): (usize, &Candidate)| Useful {
            bits: option.bits,
            square: option.error * option.error,
            index,
        };
        let mut all: Vec<Useful> = candidates.iter().enumerate().map(square).collect();
        all.sort_by(|a, b| {
            a.bits.cmp(&b.bits).then(a.square.total_cmp(&b.square)).then(a.index.cmp(&b.index))
        });
        let mut options: Vec<Useful> = Vec::with_capacity(all.len());
        for option in all {
            if options.last().is_none_or(|last| option.square < last.square) {
                options.push(option);
            }
        }
        Ok(Self { options })
    }
}

/// One option per slot, as places in [`Slot::options`].
#[derive(Clone)]
struct Position(Vec<usize>);

impl Position {
    fn bits(&self, slots: &[Slot]) -> u64 {
        self.0.iter().zip(slots).map(|(&i, slot)| slot.options[i].bits).sum()
    }

    fn objective(&self, slots: &[Slot]) -> f64 {
        self.0.iter().zip(slots).map(|(&i, slot)| slot.options[i].square).sum()
    }

    /// Extra bits and slot of the cheapest single upgrade; of equals the one that helps most, then
    /// the first slot.
    fn cheapest_upgrade(&self, slots: &[Slot]) -> Option<(u64, usize)> {
        let upgrade = |(slot, &i): (usize, &usize)| {
            let (now, next) = (slots[slot].options[i], slots[slot].options.get(i + 1)?);
            Some((next.bits - now.bits, next.square - now.square, slot))
        };
        let least = self
            .0
            .iter()
            .enumerate()
            .filter_map(upgrade)
            .min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)))?;
        Some((least.0, least.2))
    }
}

/// Goes up the frontier and closes holes wider than the tolerance by single upgrades.
///
/// The way up does not depend on the budget, only where it ends: that is what makes a larger budget
/// never worse.
struct Walk<'a> {
    slots: &'a [Slot],
    frontier: &'a Frontier,
    /// Bits that may stay unused without a reason.
    tolerance: u64,
}

impl Walk<'_> {
    fn run(&self, budget: u64) -> Position {
        let states = &self.frontier.states;
        // States before the first hole are plain; the walk itself starts at a hole.
        let mut best = 0;
        let mut filled: Option<(Position, u64, f64)> = None;
        for (i, state) in states.iter().enumerate() {
            let (bits, objective) = filled
                .as_ref()
                .map_or((states[best].bits, states[best].objective), |(_, bits, sum)| (*bits, *sum));
            if state.bits > bits.saturating_add(self.tolerance) {
                let start =
                    filled.take().map_or_else(|| self.frontier.position(best), |(position, ..)| position);
                filled = Some(self.fill(start, state.bits.min(budget.saturating_add(1))));
            }
            if state.bits > budget {
                break;
            }
            let objective = filled.as_ref().map_or(objective, |(.., sum)| *sum);
            if state.objective < objective || i == 0 {
                (best, filled) = (i, None);
            }
        }
        let end = filled.map_or_else(|| self.frontier.position(best), |(position, ..)| position);
        let bits = end.bits(self.slots);
        if budget > bits.saturating_add(self.tolerance) {
            return self.fill(end, budget.saturating_add(1)).0;
        }
        end
    }

    /// Takes the cheapest upgrade again and again while the bits stay below `limit`.
    fn fill(&self, mut position: Position, limit: u64) -> (Position, u64, f64) {
        let mut bits = position.bits(self.slots);
        while let Some((extra, slot)) = position.cheapest_upgrade(self.slots) {
            if bits.saturating_add(extra) >= limit {
                break;
            }
            position.0[slot] += 1;
            bits += extra;
        }
        let objective = position.objective(self.slots);
        (position, bits, objective)
    }
}

#[cfg(test)]
mod tests;
