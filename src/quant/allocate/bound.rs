//! A proven lower bound for the allocation: the best value of the Lagrangian relaxation, which for
//! this problem is the value when slots may be split between two neighbours on their convex hull.

use super::Slot;

/// A sum of squared errors that no choice of at most `budget` bits can be below. The budget must be
/// at least the bits of the cheapest choice.
pub(super) fn lagrangian(slots: &[Slot], budget: u64) -> f64 {
    let mut left = budget;
    let mut value = 0.0;
    let mut steps: Vec<Step> = Vec::new();
    for slot in slots {
        left = left.saturating_sub(slot.options[0].bits);
        value += slot.options[0].square;
        steps.extend(hull(slot));
    }
    sort(&mut steps);
    for step in steps {
        if step.bits > left {
            value -= step.rate() * left as f64;
            break;
        }
        left -= step.bits;
        value -= step.gain;
    }
    // The sums above round at most once per step; 1e-12 of the value is far above that.
    (value * (1.0 - 1e-12)).max(0.0)
}

/// Squared error saved per bit along the bound, at the start of each of `count` ranges of
/// `1 << shift` bits that begin at the cheapest choice.
pub(super) fn rates(slots: &[Slot], shift: u32, count: usize) -> Vec<f64> {
    let mut steps: Vec<Step> = slots.iter().flat_map(hull).collect();
    sort(&mut steps);
    let mut rates = Vec::with_capacity(count);
    let mut end = 0;
    for step in &steps {
        end += step.bits;
        while rates.len() < count && ((rates.len() as u64) << shift) < end {
            rates.push(step.rate());
        }
    }
    rates.resize(count, 0.0);
    rates
}

/// Steepest first. On one hull the rates fall, so the steps of a slot stay in their order.
fn sort(steps: &mut [Step]) {
    steps.sort_by(|a, b| b.rate().total_cmp(&a.rate()));
}

/// From one corner of a slot's lower convex hull to the next.
struct Step {
    bits: u64,
    gain: f64,
}

impl Step {
    fn rate(&self) -> f64 {
        self.gain / self.bits as f64
    }
}

fn hull(slot: &Slot) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for pair in slot.options.windows(2) {
        let mut step = Step { bits: pair[1].bits - pair[0].bits, gain: pair[0].square - pair[1].square };
        while let Some(last) = steps.pop_if(|last| last.rate() <= step.rate()) {
            step = Step { bits: last.bits + step.bits, gain: last.gain + step.gain };
        }
        steps.push(step);
    }
    steps
}
