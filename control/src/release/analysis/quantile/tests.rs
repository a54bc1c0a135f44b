#![expect(clippy::unwrap_used, reason = "tests")]

use rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::*;

/// Exponential samples with a mean of one second: the p quantile is `−ln(1 − p)`.
fn samples(seed: u64) -> impl Iterator<Item = Duration> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    std::iter::repeat_with(move || {
        let unit = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-(1.0 - unit).ln())
    })
}

#[test]
fn bounds_hold_at_all_times_at_once() {
    let (paths, alpha) = (300, 0.1);
    for p in [0.5_f64, 0.9, 0.99] {
        let truth = -(1.0 - p).ln();
        let wrong = (0..paths)
            .filter(|seed| {
                let mut histogram = Histogram::new();
                samples(*seed).take(1_500).enumerate().any(|(index, it)| {
                    histogram.add(it);
                    // Looking at every tenth keeps the test short, and is still a hundred and fifty looks.
                    index % 10 == 0 && {
                        let it = histogram.quantile(p, alpha).unwrap();
                        truth < it.low || it.high.is_some_and(|high| truth > high)
                    }
                })
            })
            .count();
        assert!(
            wrong <= 30,
            "P{p}: {wrong} of {paths} paths leave their bounds"
        );
    }
}

#[test]
fn bounds_narrow_around_the_value() {
    let mut histogram = Histogram::new();
    assert_eq!(histogram.quantile(0.5, 0.05), None);
    samples(1).take(100_000).for_each(|it| histogram.add(it));
    for p in [0.5_f64, 0.9, 0.99] {
        let truth = -(1.0 - p).ln();
        let found = histogram.quantile(p, 0.05).unwrap();
        let high = found.high.unwrap();
        assert!(found.low <= truth && truth <= high, "{found:?}");
        assert!((found.value / truth - 1.0).abs() < 0.04, "{found:?}");
        assert!(high / found.low < 1.15, "{found:?}");
    }
}

#[test]
fn few_samples_do_not_bound_a_high_quantile_from_above() {
    let mut histogram = Histogram::new();
    samples(2).take(50).for_each(|it| histogram.add(it));
    assert_eq!(histogram.quantile(0.99, 0.05).unwrap().high, None);
    histogram.add(Duration::ZERO);
    histogram.add(Duration::from_secs(1_000_000));
    assert_eq!(histogram.samples(), 52);
}
