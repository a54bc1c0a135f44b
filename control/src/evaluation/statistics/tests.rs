#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::evaluation::metrics::tests::vectors;

fn read<T: for<'de> serde::Deserialize<'de>>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

#[track_caller]
fn close(found: f64, expected: f64, within: f64) {
    assert!(
        (found - expected).abs() <= within,
        "{found} is not {expected} within {within}"
    );
}

#[test]
fn quantiles_equal_numpy() {
    let case = &vectors()["quantiles"];
    let values: Vec<f64> = read(&case["values"]);
    let (qs, expected): (Vec<f64>, Vec<f64>) = (read(&case["q"]), read(&case["expected"]));
    for (q, expected) in qs.into_iter().zip(expected) {
        let statistic = Quantile::new(&values, q);
        close(statistic.point(), expected, 1e-9 * expected);
        // By way of the sums, as a resample computes it.
        close(
            statistic.value(&statistic.total()),
            expected,
            1e-9 * expected,
        );
    }
    assert!(quantile(&[], 0.5).is_nan());
}

#[test]
fn bca_ends_equal_scipy() {
    for case in vectors()["bca"].as_array().unwrap() {
        let resampled: Vec<f64> = read(&case["resampled"]);
        let jackknife: Vec<f64> = read(&case["jackknife"]);
        let found = bca_interval(
            read(&case["point"]),
            &resampled,
            &jackknife,
            read(&case["confidence"]),
        )
        .unwrap();
        close(found.low, read(&case["low"]), 1e-9);
        close(found.high, read(&case["high"]), 1e-9);
    }
}

#[test]
fn mcnemar_equals_scipy_binomtest() {
    for case in vectors()["mcnemar"].as_array().unwrap() {
        let test = McNemar {
            gained: read(&case["gained"]),
            lost: read(&case["lost"]),
        };
        close(test.two_sided(), read(&case["two_sided"]), 1e-9);
        close(test.lower(), read(&case["lower"]), 1e-9);
        close(test.higher(), read(&case["higher"]), 1e-9);
    }
    assert_eq!(McNemar::of([(1.0, 0.5)]), None);
    assert_eq!(
        McNemar::of([(1.0, 0.0), (0.0, 1.0), (0.0, 1.0), (1.0, 1.0)]),
        Some(McNemar { gained: 1, lost: 2 })
    );
}

#[test]
fn resampling_comes_close_to_scipy_with_other_draws() {
    let case = &vectors()["resampling"];
    let (c, d): (Vec<f64>, Vec<f64>) = (read(&case["c"]), read(&case["d"]));
    let bootstrap = Bootstrap::new(20_000, 0.95, 3).unwrap();
    let interval = bootstrap.interval(&Mean(c.clone()), Method::Bca).unwrap();
    // The ends' own sampling error is about 0.001 here.
    close(interval.low, read(&case["c_low"]), 0.006);
    close(interval.high, read(&case["c_high"]), 0.006);
    let paired = permutation_test(&bootstrap, &Mean(c), &Mean(d)).unwrap();
    close(paired.two_sided, read(&case["p_two_sided"]), 0.012);
}

#[test]
fn the_permutation_test_agrees_with_the_exact_test() {
    let case = &vectors()["resampling"];
    let (a, b): (Vec<f64>, Vec<f64>) = (read(&case["right_a"]), read(&case["right_b"]));
    let exact = McNemar::of(a.iter().copied().zip(b.iter().copied())).unwrap();
    let sampled = permutation_test(
        &Bootstrap::new(20_000, 0.95, 3).unwrap(),
        &Mean(a),
        &Mean(b),
    )
    .unwrap();
    close(sampled.two_sided, exact.two_sided(), 0.012);
    close(sampled.lower, exact.lower(), 0.012);
    close(sampled.higher, exact.higher(), 0.012);
}

/// Numbers that look random and are the same everywhere.
fn spread(samples: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    (0..samples)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        })
        .collect()
}

#[test]
fn an_interval_covers_the_truth_as_often_as_it_says() {
    let covered = (0..300)
        .filter(|trial| {
            let data = Mean(spread(60, 1_000 + trial));
            let found = Bootstrap::new(500, 0.9, *trial)
                .unwrap()
                .interval(&data, Method::Bca)
                .unwrap();
            found.low <= 0.5 && 0.5 <= found.high
        })
        .count();
    // 270 of 300 expected; the draws are fixed, so the count is too.
    assert!((250..=288).contains(&covered), "{covered} of 300");
}

#[test]
fn the_same_seed_gives_the_same_numbers_and_another_does_not() {
    let data = Mean(spread(101, 4));
    let of = |seed| {
        Bootstrap::new(300, 0.95, seed)
            .unwrap()
            .interval(&data, Method::Bca)
            .unwrap()
    };
    assert_eq!(of(7), of(7));
    assert_ne!(of(7), of(8));
}

#[test]
fn nothing_to_resample_gives_no_interval() {
    let bootstrap = Bootstrap::default();
    for data in [
        vec![],
        vec![1.0],
        vec![f64::NAN, 1.0],
        vec![f64::INFINITY, 1.0],
    ] {
        assert_eq!(bootstrap.interval(&Mean(data), Method::Bca), None);
    }
    let constant = bootstrap
        .interval(&Mean(vec![0.25; 40]), Method::Bca)
        .unwrap();
    assert_eq!((constant.low, constant.high), (0.25, 0.25));
    assert_eq!(
        permutation_test(&bootstrap, &Mean(vec![1.0, 2.0]), &Mean(vec![1.0])),
        None
    );
}

#[test]
fn settings_out_of_bounds_are_named() {
    let fault = |text: &str| {
        serde_json::from_str::<Bootstrap>(text)
            .unwrap_err()
            .to_string()
    };
    assert!(fault(r#"{"resamples":99}"#).contains("resamples: 99"));
    assert!(fault(r#"{"confidence":1.0}"#).contains("confidence: 1"));
    assert!(fault(r#"{"samples":1}"#).contains("samples"));
    assert_eq!(
        serde_json::from_str::<Bootstrap>("{}").unwrap(),
        Bootstrap::default()
    );
}

#[test]
fn two_equal_runs_do_not_differ() {
    let data = spread(50, 1);
    let paired = permutation_test(&Bootstrap::default(), &Mean(data.clone()), &Mean(data)).unwrap();
    assert_eq!(
        (
            paired.difference,
            paired.two_sided,
            paired.lower,
            paired.higher
        ),
        (0.0, 1.0, 1.0, 1.0)
    );
}

proptest! {
    #[test]
    fn ends_lie_in_the_data_and_in_order(data in prop::collection::vec(-1e3_f64..1e3, 2..40), seed: u64) {
        let (low, high) = data.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
        let bootstrap = Bootstrap::new(200, 0.9, seed).unwrap();
        let median = Quantile::new(&data, 0.5);
        let mean = Mean(data);
        for found in [
            bootstrap.interval(&mean, Method::Bca).unwrap(),
            bootstrap.interval(&mean, Method::Percentile).unwrap(),
            bootstrap.interval(&median, Method::Percentile).unwrap(),
        ] {
            prop_assert!(low - 1e-9 <= found.low && found.low <= found.high && found.high <= high + 1e-9, "{found:?}");
        }
    }

    #[test]
    fn exchanging_the_runs_mirrors_the_test(data in prop::collection::vec((0_u8..5, 0_u8..5), 2..40), seed: u64) {
        let (a, b): (Vec<f64>, Vec<f64>) = data.into_iter().map(|(a, b)| (f64::from(a), f64::from(b))).unzip();
        let bootstrap = Bootstrap::new(200, 0.9, seed).unwrap();
        let one = permutation_test(&bootstrap, &Mean(a.clone()), &Mean(b.clone())).unwrap();
        let two = permutation_test(&bootstrap, &Mean(b), &Mean(a)).unwrap();
        prop_assert_eq!(one.difference, -two.difference);
        prop_assert_eq!(one.two_sided, two.two_sided);
        prop_assert_eq!((one.lower, one.higher), (two.higher, two.lower));
    }
}
