//! Solutions for all budgets at once: slot by slot, every kept partial choice is continued by every
//! option, and only continuations that no cheaper one matches are kept (dynamic programming over
//! bits). Where too many remain, the range of bits is cut into buckets and each keeps its best.

use super::{Position, Slot, bound};

/// Options per slot that the trace back can number.
pub(super) const MOST_OPTIONS: usize = u16::MAX as usize;

/// Buckets per slot, and the number of partial choices kept after it.
const BUCKETS: usize = 1 << 17;
/// Continuations up to this many are compared exactly.
const EXACT: usize = 1 << 17;

/// Bits and sum of squares of a choice for the slots so far.
#[derive(Clone, Copy)]
pub(super) struct State {
    pub(super) bits: u64,
    pub(super) objective: f64,
    previous: u32,
    option: u16,
}

/// The list of solutions: bits rise, the sum of squared errors falls.
pub(super) struct Frontier {
    pub(super) states: Vec<State>,
    /// Whether every best choice is listed, for any budget.
    pub(super) exact: bool,
    /// For each slot, (state before the slot, option) of every state after it.
    trace: Vec<Vec<(u32, u16)>>,
}

impl Frontier {
    pub(super) fn new(slots: &[Slot]) -> Self {
        let mut states = vec![State { bits: 0, objective: 0.0, previous: 0, option: 0 }];
        let mut exact = true;
        let mut trace = Vec::with_capacity(slots.len());
        for (done, slot) in slots.iter().enumerate() {
            // Thinning only helps the slots to come: after the last one nearly all are kept.
            let limit = if done + 1 == slots.len() { EXACT * 8 } else { EXACT };
            states = if states.len() * slot.options.len() <= limit {
                all(&states, slot)
            } else {
                let (bucketed, complete) = best_of_buckets(&states, &slots[..=done]);
                exact &= complete;
                bucketed
            };
            states = undominated(states);
            trace.push(states.iter().map(|state| (state.previous, state.option)).collect());
        }
        Self { states, exact, trace }
    }

    /// The choice that led to `self.states[state]`.
    pub(super) fn position(&self, state: usize) -> Position {
        let mut state = state;
        let mut position = Vec::with_capacity(self.trace.len());
        for stage in self.trace.iter().rev() {
            let (previous, option) = stage[state];
            position.push(usize::from(option));
            state = previous as usize;
        }
        position.reverse();
        Position(position)
    }
}

fn continued(states: &[State], slot: &Slot) -> impl Iterator<Item = State> {
    slot.options.iter().enumerate().flat_map(move |(option, useful)| {
        states.iter().enumerate().map(move |(previous, state)| State {
            bits: state.bits + useful.bits,
            objective: state.objective + useful.square,
            previous: previous as u32,
            option: option as u16,
        })
    })
}

fn all(states: &[State], slot: &Slot) -> Vec<State> {
    let mut next: Vec<State> = continued(states, slot).collect();
    // Stable, so that equals keep the order of options and states.
    next.sort_by(|a, b| a.bits.cmp(&b.bits).then(a.objective.total_cmp(&b.objective)));
    next
}

/// The best continuation per bucket, and whether no other was lost that could have mattered.
///
/// Best is what lies lowest above the lower bound for the slots so far: choices near that bound are
/// the ones that good choices for more slots begin with.
fn best_of_buckets(states: &[State], slots: &[Slot]) -> (Vec<State>, bool) {
    let (slot, _) = slots.split_last().expect("called for a slot");
    let (first, last) = (slot.options[0].bits, slot.options[slot.options.len() - 1].bits);
    let least = states[0].bits + first;
    let range = states[states.len() - 1].bits + last - least;
    // Buckets a power of two wide, so that a shift finds them.
    let shift = (u64::BITS - (range / BUCKETS as u64).leading_zeros()).min(u64::BITS - 1);
    let rates = bound::rates(slots, shift, (range >> shift) as usize + 1);
    let mut buckets: Vec<Option<State>> = vec![None; rates.len()];
    let mut complete = true;
    for state in continued(states, slot) {
        let place = ((state.bits - least) >> shift) as usize;
        let bucket = &mut buckets[place];
        let Some(kept) = bucket else {
            *bucket = Some(state);
            continue;
        };
        let more_bits = state.bits as f64 - kept.bits as f64;
        let excess = state.objective - kept.objective + rates[place] * more_bits;
        let (winner, loser) = if excess < 0.0 { (state, *kept) } else { (*kept, state) };
        complete &= loser.bits >= winner.bits && loser.objective >= winner.objective;
        *kept = winner;
    }
    (buckets.into_iter().flatten().collect(), complete)
}

/// Drops every state that a cheaper one matches; the states come sorted by bits.
fn undominated(mut states: Vec<State>) -> Vec<State> {
    let mut best = f64::INFINITY;
    states.retain(|state| {
        let keep = state.objective < best;
        best = best.min(state.objective);
        keep
    });
    states
}
