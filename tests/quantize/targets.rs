//! The whole example model at several targets from one measurement.

use exlay::quant::recount::recount;

use crate::result::divergence;
use crate::{Convert, expect, support};

/// Unused bits and those of the cheapest upgrade, as the allocation prints them.
fn allocated(stderr: &str) -> (u64, u64) {
    let line = stderr.lines().find(|line| line.starts_with("-- Allocated")).unwrap();
    let number = |after: &str| -> u64 {
        let (_, rest) = line.split_once(after).unwrap();
        rest.split([' ', ';']).next().unwrap().parse().unwrap()
    };
    (number("; "), number("the cheapest upgrade takes "))
}

#[test]
fn divergence_falls_with_the_bits() {
    let home = tempfile::tempdir().unwrap();
    let model = support::path("examples/tiny-stories");
    let measurement = home.path().join("measurement.json");
    let measure = Convert::new(&model, &home.path().join("measuring")).with("-om", &measurement);
    expect(&measure.run(), 0);
    let mut before = f64::INFINITY;
    for bits in ["2.75", "3.0", "4.0", "5.0", "6.0"] {
        let output = home.path().join(bits);
        let convert = Convert::new(&model, &home.path().join(format!("work-{bits}")))
            .with("-m", &measurement)
            .with("-cf", &output)
            .with("-b", bits);
        let stderr = expect(&convert.run(), 0);
        let target: f64 = bits.parse().unwrap();
        let counted = recount(&output).unwrap().bits_per_weight;
        // So small a model has few sums of bits: the promise is then that no upgrade fits any more.
        let (unused, upgrade) = allocated(&stderr);
        assert!(counted <= target, "{counted} for {target}");
        assert!(counted > target - 0.01 || unused < upgrade, "{counted} for {target}, {unused} bits unused");
        let divergence = divergence(&output, &model, 4);
        println!("{bits} bpw: {counted:.4} stored, KL divergence {divergence:.5}");
        assert!(divergence < before, "{bits} bpw: {divergence}, with fewer bits {before}");
        before = divergence;
    }
}
