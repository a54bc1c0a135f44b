#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::release::strategy::Strategy;

/// Weights that change soon, so that a test is over soon.
fn brisk() -> Strategy {
    Strategy::parse(json!({
        "steps": [
            { "shadow": { "percent": 10, "for": "1m" } },
            { "weight": 5 },
            { "analyse": { "min_requests": 100, "max_duration": "10m" } },
            { "weight": 20 },
            { "analyse": { "min_requests": 300, "max_duration": "10m" } },
            { "weight": 50 },
            { "analyse": { "max_duration": "4m" } },
        ],
        "objectives": [
            { "event": "error", "compare": "stable" },
            { "event": "error", "max_ratio": 0.05 },
            { "event": "slow_ttft", "over": "800ms", "compare": "stable" },
            { "event": "slow_request", "over": "4s", "compare": "stable" },
            { "event": "refusal", "compare": "stable" },
            { "shadow_agreement": { "min": 0.85 } },
        ],
    }))
    .unwrap()
}

fn day() -> Traffic {
    Traffic::parse(json!({
        "rate": 20,
        "users": 500,
        "diurnal": { "period": "1h", "swing": 0.5 },
        "bursts": { "every": "5m", "last": "30s", "times": 4 },
        "incidents": { "every": "10m", "last": "20s", "error": 0.03, "slower": 2 },
    }))
    .unwrap()
}

#[test]
fn good_releases_are_not_taken_back() {
    for sticky in [true, false] {
        let traffic = Traffic { sticky, ..day() };
        let summary = simulate(&brisk(), &traffic, &[], 150, 11, false, &|| ());
        // With a chance of 1 in 100, six of a hundred and fifty have one of about 1 in 300.
        assert!(summary.sluice.rolled_back.times <= 5, "{summary:#?}");
        assert!(summary.promoted.times >= 120, "{summary:#?}");
    }
}

#[test]
fn one_noisy_client_takes_no_good_release_back() {
    for noisy in [
        json!([{ "rate": 5, "on": "candidate", "error": 1 }]),
        json!([{ "rate": 5, "on": "candidate", "slower": 20 }]),
        json!([{ "rate": 5, "on": "candidate", "error": 0.5, "slower": 20 }]),
    ] {
        let traffic = Traffic {
            noisy: serde_json::from_value(noisy.clone()).unwrap(),
            ..Traffic::default()
        };
        let summary = simulate(&brisk(), &traffic, &[], 40, 5, false, &|| ());
        assert!(
            summary.sluice.rolled_back.times <= 2,
            "{noisy}: {summary:#?}"
        );
    }
}

#[test]
fn a_bad_release_is_taken_back_in_seconds_and_hurts_few() {
    let grid = Grid {
        releases: 60,
        minutes: 10,
        ..Grid::default()
    };
    let cell = Cell {
        error: 0.2,
        slower: 1.0,
        weight: 5.0,
        rate: 100.0,
    };
    let row = grid.row(cell, 3, &|| ()).summary;
    assert_eq!(row.sluice.rolled_back.times, 60);
    assert!(row.sluice.median_s.unwrap() <= 5.0, "{row:#?}");
    assert!(
        row.sluice.median_requests * 40 <= row.flagger.median_requests,
        "{row:#?}"
    );
    assert_eq!(row.flagger.median_s, Some(300.0));
    assert_eq!(row.argo.median_s, Some(60.0));
}

#[test]
fn a_slow_release_is_taken_back() {
    let grid = Grid {
        releases: 20,
        minutes: 10,
        ..Grid::default()
    };
    let cell = Cell {
        error: 0.005,
        slower: 3.0,
        weight: 10.0,
        rate: 100.0,
    };
    let row = grid.row(cell, 3, &|| ()).summary;
    assert_eq!(row.sluice.rolled_back.times, 20, "{row:#?}");
    assert!(row.sluice.median_s < row.argo.median_s, "{row:#?}");
}

#[test]
fn the_same_seed_gives_the_same_runs() {
    let traffic = Traffic {
        lasts: Duration::from_secs(600),
        ..day()
    };
    let one = simulate(&brisk(), &traffic, &[], 6, 1, true, &|| ());
    assert_eq!(one, simulate(&brisk(), &traffic, &[], 6, 1, true, &|| ()));
    let runs = [1, 2].map(|seed| run(&brisk(), &traffic, &[], seed, true));
    assert_ne!(runs[0], runs[1]);
}

#[test]
fn a_worse_answer_is_found_by_its_copies() {
    let traffic = Traffic {
        candidate: Change {
            disagree: 0.4,
            ..Change::default()
        },
        ..Traffic::default()
    };
    let run = run(&brisk(), &traffic, &[], 1, false);
    assert!(
        matches!(&run.ended, Ended::RolledBack { because } if because.contains("shadow agreement")),
        "{run:?}"
    );
    assert_eq!(run.sluice.requests, 0, "nobody had an answer of it");
}

#[test]
fn recorded_requests_can_stand_for_made_up_ones() {
    let recorded: Vec<Recorded> = (0..30_000)
        .map(|index| Recorded {
            at_ms: 10 * index,
            unit: (index % 3 != 0).then(|| format!("user-{}", index % 701)),
            error: index % 200 == 0,
            empty: false,
            refusal: false,
            ttft_ms: Some(100),
            total_ms: 500 + index % 700,
            output_tokens: Some(20),
        })
        .collect();
    let strategy = Strategy::parse(json!({
        "steps": [{ "weight": 20 }, { "analyse": { "min_requests": 500, "max_duration": "4m" } }],
        "objectives": [{ "event": "error", "compare": "stable" }],
    }))
    .unwrap();
    let ended = |error| {
        let traffic = Traffic {
            candidate: Change {
                error,
                ..Change::default()
            },
            ..Traffic::default()
        };
        run(&strategy, &traffic, &recorded, 1, false).ended
    };
    assert_eq!(ended(0.0), Ended::Promoted);
    assert!(matches!(ended(0.2), Ended::RolledBack { .. }));
}

#[test]
fn what_is_wrong_with_a_traffic_file_is_named() {
    for (file, message) in [
        (json!({ "rate": 0 }), "rate: 0 is not above 0"),
        (
            json!({ "stable": { "error": 2 } }),
            "stable.error: 2 is not between 0 and 1",
        ),
        (
            json!({ "stable": { "ttft": { "p50": "2s", "p99": "1s" } } }),
            "stable.ttft: p50 is 0 or above p99",
        ),
        (
            json!({ "bursts": { "every": "0s", "last": "1s", "times": 2 } }),
            "period, every: is 0s",
        ),
        (
            json!({ "noisy": [{ "rate": 1, "on": "mars" }] }),
            "noisy[0].on: unknown variant `mars`",
        ),
        (json!({ "rps": 3 }), "rps: unknown field `rps`"),
    ] {
        let error = Traffic::parse(file).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

fn held(weight: f64, more: &serde_json::Value) -> Strategy {
    let mut strategy = json!({
        "steps": [{ "weight": weight }, { "analyse": { "max_duration": "1h" } }],
    });
    for (field, value) in more.as_object().unwrap() {
        strategy[field] = value.clone();
    }
    Strategy::parse(strategy).unwrap()
}

/// The table of `docs/release-analysis.md` in small: `sluice release simulate --pauses`.
#[test]
fn pauses_of_each_side_by_itself_take_few_good_releases_back() {
    for (name, pauses) in settings()
        .into_iter()
        .filter(|it| it.0.contains("every 1m"))
    {
        let point = point(&name, &pauses, 12, 7, &|| ());
        let back: u64 = point.good.iter().map(|it| it.times).sum();
        // Of 36. With a chance of one in twenty each, six are one in a hundred.
        let most = if pauses.strict { 2 } else { 6 };
        assert!(back <= most, "{name}: {point:#?}");
        let longest = if pauses.strict { 20.0 } else { 8.0 };
        assert!(point.bad.median_s.unwrap() <= longest, "{name}: {point:#?}");
    }
}

#[test]
fn agents_that_fail_in_a_later_request_are_found() {
    let traffic = Traffic::parse(json!({
        "rate": 10,
        "lasts": "10m",
        "agents": { "requests": 5, "within": "300ms" },
        "candidate": { "error": 0.4 },
    }))
    .unwrap();
    let summary = simulate(&held(20.0, &json!({})), &traffic, &[], 20, 3, false, &|| ());
    assert_eq!(summary.sluice.rolled_back.times, 20, "{summary:#?}");
    // And where they do not fail, nothing is found.
    let good = Traffic {
        candidate: Change::default(),
        ..traffic
    };
    let summary = simulate(&held(20.0, &json!({})), &good, &[], 20, 3, false, &|| ());
    assert_eq!(summary.sluice.rolled_back.times, 0, "{summary:#?}");
}

#[test]
fn a_key_with_sessions_of_its_own_making_takes_nothing_back_where_another_uses_it_too() {
    let noisy = json!([{ "rate": 2, "on": "candidate", "error": 1, "sessions": true }]);
    let traffic = Traffic::parse(json!({
        "rate": 20, "lasts": "10m", "keys": [1, 1], "noisy": noisy,
    }))
    .unwrap();
    let compared = json!({ "objectives": [{ "event": "error", "compare": "stable" }] });
    let summary = simulate(&held(20.0, &compared), &traffic, &[], 20, 3, false, &|| ());
    assert!(summary.sluice.rolled_back.times <= 1, "{summary:#?}");
    // The only key's sessions are the units.
    let traffic = Traffic::parse(json!({
        "rate": 20, "lasts": "10m", "keys": [1], "candidate": { "error": 0.2 },
    }))
    .unwrap();
    let summary = simulate(&held(20.0, &compared), &traffic, &[], 20, 3, false, &|| ());
    assert_eq!(summary.sluice.rolled_back.times, 20, "{summary:#?}");
}
