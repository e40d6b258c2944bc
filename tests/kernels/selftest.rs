//! The selftest itself: it covers every kernel, notices faults and calls nothing passed that it skipped.

use std::collections::BTreeSet;

use exlay::gpu::{DeviceOptions, Tier, kernel_stems};
use exlay::selftest::{Fault, Lack, Matmul, Shapes, Verdict, cases, outcome, run};

use crate::support::{adapter, check, devices, open, tiers};

/// Every shader has a case, and all pass.
#[test]
fn small_shapes_pass_and_cover_every_kernel() {
    let mut covered = BTreeSet::new();
    for (device, _) in devices().filter(|(_, checked)| !checked) {
        let mut announced = 0;
        let outcomes = run(&device, Shapes::Small, &mut |_| announced += 1).unwrap();
        assert_eq!(announced, outcomes.len());
        for outcome in outcomes {
            let lacking = matches!(outcome.verdict, Verdict::Skipped { reason: Lack::HalfPrecision, .. });
            assert!(
                outcome.verdict == Verdict::Passed || lacking && !device.capabilities().f16,
                "{outcome:?}"
            );
            covered.insert(outcome.kernel);
        }
    }
    for stem in kernel_stems() {
        let unreachable = match stem {
            "matmul_coop" | "attention_coop" => !tiers().contains(&Tier::Coop),
            "matmul_tn_subgroup" => adapter().capabilities().subgroup != Some((8, 8)),
            _ => false,
        };
        assert!(covered.contains(stem) || unreachable, "no case runs `{stem}`");
    }
}

/// Each case notices a single wrong weight, in every tier.
#[test]
fn one_wrong_weight_is_a_failure() {
    cases(Shapes::Small).iter().for_each(|case| check(&**case));
}

#[test]
fn what_does_not_fit_is_skipped_and_not_passed() {
    let case = Matmul { rows: 9, n: 301, k: 130, bias: false, add: false };
    let limited = |options: DeviceOptions| outcome(&open(options), &case, 1, Fault::None).unwrap();
    let too_little = limited(DeviceOptions { memory_limit: Some(50_000), ..Default::default() });
    let expected = Verdict::Skipped { bytes: 2 * 301 * 130 + 40 * (301 + 130), reason: Lack::Device };
    assert_eq!(too_little.verdict, expected);
    assert_eq!(expected.to_string(), "skipped: needs 95500 bytes");
    let too_narrow = limited(DeviceOptions { binding_limit: Some(4096), ..Default::default() });
    assert_eq!(too_narrow.verdict, expected);
}

#[test]
fn some_real_shapes_hold_more_than_4_gib() {
    let shapes: Vec<u64> = cases(Shapes::Real).iter().map(|case| case.bytes()).collect();
    assert!(shapes.iter().filter(|&&bytes| bytes > 1 << 32).count() >= 3, "{shapes:?}");
}

#[test]
#[ignore = "minutes on a software adapter; `exlay selftest` is the way to run it"]
fn real_shapes_pass() {
    for (device, _) in devices().filter(|(_, checked)| !checked) {
        let mut started = std::time::Instant::now();
        let outcomes = run(&device, Shapes::Real, &mut |what| {
            eprintln!("{:?}; {what}", started.elapsed());
            started = std::time::Instant::now();
        })
        .unwrap();
        for one in outcomes {
            println!(
                "{:16} {:8} {:64} {:9.2e} {:9.2e} {}",
                one.kernel, one.tier, one.shape, one.worst_error, one.bound, one.verdict
            );
            assert_ne!(one.verdict, Verdict::Failed);
        }
    }
}
