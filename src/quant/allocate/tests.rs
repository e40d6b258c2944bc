//! Tests of the allocator.

use proptest::prelude::*;

use super::*;

fn candidate(bits: u64, error: f64) -> Candidate {
    Candidate { bits, error }
}

fn target(bits: u64) -> Target {
    // With 1000 weights the 0.01 bits per weight of the contract are 10 bits.
    Target { bits_per_weight: bits as f64 / 1000.0, weights: 1000 }
}

/// The least sum over all combinations, by trying each.
fn brute_force(slots: &[Vec<Candidate>], budget: u64) -> Option<f64> {
    let Some((slot, rest)) = slots.split_first() else { return Some(0.0) };
    let with = |option: &Candidate| {
        Some(option.error * option.error + brute_force(rest, budget.checked_sub(option.bits)?)?)
    };
    slot.iter().filter_map(with).min_by(f64::total_cmp)
}

fn slots() -> impl Strategy<Value = Vec<Vec<Candidate>>> {
    let option = (1u64..400, 0u32..50).prop_map(|(bits, error)| candidate(bits, f64::from(error) / 50.0));
    prop::collection::vec(prop::collection::vec(option, 1..6), 1..6)
}

/// A model: slots of one kind share their sizes; errors fall by about 4 per bit, with noise that
/// puts some options above the convex hull and some out of order.
fn model(layers: usize, seed: u64) -> (Vec<Vec<Candidate>>, u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let attention = [
        2.133, 2.215, 2.4259, 2.672, 3.1642, 3.1681, 4.0392, 4.047, 4.0862, 4.1332, 4.1681, 4.1936, 4.4025,
        4.4594, 5.3829, 5.4594, 6.0392, 6.6332, 8.0392,
    ];
    let mlp = [
        2.2475, 2.3256, 2.5969, 2.9128, 3.2846, 3.3681, 3.6204, 4.1386, 4.1995, 4.2672, 4.3506, 5.2498,
        5.3332, 6.0724, 6.3033, 6.8692, 8.0358,
    ];
    let mut slots = Vec::new();
    let mut weights = 0;
    for _ in 0..layers {
        for (sizes, count) in [(&attention[..], 41_943_040u64), (&mlp[..], 176_160_768)] {
            let scale = 0.02 + random();
            let option = |&bpw: &f64| {
                candidate((bpw * count as f64) as u64, scale * 2f64.powf(-bpw) * (0.9 + 0.2 * random()))
            };
            slots.push(sizes.iter().map(option).collect());
            weights += count;
        }
    }
    (slots, weights)
}

proptest! {
    #[test]
    fn small_instances_are_solved_exactly(slots in slots(), budget in 0u64..2000) {
        let least: u64 = slots.iter().map(|slot| slot.iter().map(|o| o.bits).min().unwrap()).sum();
        let most: u64 = slots.iter().map(|slot| slot.iter().map(|o| o.bits).max().unwrap()).sum();
        match allocate(&slots, target(budget)) {
            Err(_) => prop_assert!(budget < least || budget > most + 10),
            Ok(found) => {
                prop_assert!((least..=most + 10).contains(&budget));
                let chosen = |f: fn(&Candidate) -> f64| -> f64 {
                    found.choice.iter().zip(&slots).map(|(&i, slot)| f(&slot[i])).sum()
                };
                prop_assert_eq!(found.bits as f64, chosen(|option| option.bits as f64));
                prop_assert_eq!(found.objective, chosen(|option| option.error * option.error));
                prop_assert!(found.bits <= budget);
                // Sums in another order differ by a few roundings.
                prop_assert!((found.objective - brute_force(&slots, budget).unwrap()).abs() < 1e-12);
                prop_assert_eq!(found.gap(), 0.0);
                let reached = found.unused() <= 10 || found.cheapest_upgrade.is_none_or(|u| u > found.unused());
                prop_assert!(reached, "{:?}", found);
            }
        }
    }

    #[test]
    fn the_bound_is_below_the_optimum(slots in slots(), extra in 0u64..1000) {
        let useful: Vec<Slot> = slots.iter().map(|slot| Slot::new(0, slot).unwrap()).collect();
        let budget = useful.iter().map(|slot| slot.options[0].bits).sum::<u64>() + extra;
        let bound = bound::lagrangian(&useful, budget);
        prop_assert!(bound <= brute_force(&slots, budget).unwrap() + 1e-12);
    }
}

#[test]
fn a_large_model_meets_its_contract_at_every_target() {
    let (slots, weights) = model(80, 1);
    let mut last = f64::INFINITY;
    for bits_per_weight in [2.26, 2.5, 3.0, 3.01, 4.0, 5.5, 6.0, 8.02] {
        let found = allocate(&slots, Target { bits_per_weight, weights }).unwrap();
        assert!(
            found.bits_per_weight() <= bits_per_weight && found.bits_per_weight() > bits_per_weight - 0.01
        );
        // Near the ends few slots can still move, which the relaxation behind the bound does not see.
        assert!(found.gap() < 1e-3, "{bits_per_weight}: gap {}", found.gap());
        assert!(found.objective <= last);
        last = found.objective;
    }
}

#[test]
fn more_bits_are_never_worse() {
    for (layers, seed) in [(2, 3), (7, 4)] {
        let (slots, weights) = model(layers, seed);
        let mut last = f64::INFINITY;
        for step in 0..150 {
            let bits_per_weight = 2.23 + f64::from(step) * 0.0387;
            let found = allocate(&slots, Target { bits_per_weight, weights }).unwrap();
            assert!(found.objective <= last, "at {bits_per_weight}");
            last = found.objective;
            assert!(found.bits <= found.budget);
            let near = found.unused() <= weights / 100;
            assert!(near || found.cheapest_upgrade.is_none_or(|upgrade| upgrade > found.unused()));
        }
    }
}

#[test]
fn the_result_is_the_same_every_time() {
    let (slots, weights) = model(9, 8);
    let target = Target { bits_per_weight: 3.3, weights };
    assert_eq!(allocate(&slots, target).unwrap(), allocate(&slots, target).unwrap());
}

/// Holes of the frontier are closed by upgrades, in the same way for every budget.
#[test]
fn holes_are_filled() {
    // The only frontier state between is far away because a state list was cut down to its ends.
    let slots: Vec<Slot> = (0..3)
        .map(|i| Slot::new(i, &[candidate(100, 1.0), candidate(150, 0.9), candidate(200, 0.1)]).unwrap())
        .collect();
    let mut frontier = Frontier::new(&slots);
    let ends = [frontier.states[0], frontier.states[frontier.states.len() - 1]];
    let last = frontier.position(frontier.states.len() - 1);
    frontier.states.truncate(1);
    let walk = Walk { slots: &slots, frontier: &frontier, tolerance: 10 };
    let end = walk.run(460);
    assert_eq!(end.bits(&slots), 450);
    assert_eq!(walk.run(600).bits(&slots), last.bits(&slots));
    assert_eq!(ends[0].bits, 300);
    let mut previous = f64::INFINITY;
    for budget in 300..=600 {
        let objective = walk.run(budget).objective(&slots);
        assert!(objective <= previous);
        previous = objective;
    }
}

#[test]
fn dominated_options_are_never_chosen() {
    let slots = [vec![candidate(10, 0.5), candidate(20, 0.6), candidate(30, 0.5), candidate(40, 0.4)]];
    for (budget, expected) in [(10, 0), (25, 0), (39, 0), (40, 3), (50, 3)] {
        assert_eq!(allocate(&slots, target(budget)).unwrap().choice, [expected]);
    }
    let found = allocate(&slots, target(39)).unwrap();
    assert_eq!((found.unused(), found.cheapest_upgrade), (29, Some(30)));
    assert_eq!(allocate(&slots, target(40)).unwrap().cheapest_upgrade, None);
}

#[test]
fn a_target_out_of_reach_names_the_range() {
    let slots = [vec![candidate(2100, 0.5), candidate(8000, 0.1)]];
    for bits_per_weight in [2.0999, 8.011, f64::NAN, f64::INFINITY, -1.0, 0.0] {
        let error = allocate(&slots, Target { bits_per_weight, weights: 1000 }).unwrap_err().to_string();
        assert!(error.contains("--bits") && error.contains("2.100 to 8.000"), "{error}");
    }
    assert!(allocate(&slots, Target { bits_per_weight: 8.01, weights: 1000 }).is_ok());
}

#[test]
fn senseless_input_is_refused() {
    let fine = Target { bits_per_weight: 1.0, weights: 1 };
    assert!(allocate(&[], fine).is_err());
    assert!(allocate(&[vec![]], fine).is_err());
    for error in [f64::NAN, f64::INFINITY, -0.1] {
        assert!(allocate(&[vec![candidate(1, error)]], fine).is_err());
    }
    assert!(allocate(&[vec![candidate(u64::MAX, 0.1)], vec![candidate(1, 0.1)]], fine).is_err());
}
