#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::{Just, Strategy as _, any, prop};
use proptest::{prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value, json};

use super::*;

/// The example of the specification.
fn specified() -> Value {
    json!({
        "steps": [
            { "shadow": { "percent": 20, "for": "10m" } },
            { "weight": 1 },
            { "analyse": { "min_requests": 200, "max_duration": "10m" } },
            { "weight": 10 },
            { "analyse": { "min_requests": 1000, "max_duration": "30m" } },
            { "pause": {} },
            { "weight": 50 },
            { "analyse": { "max_duration": "30m" } },
        ],
        "cohorts": [
            { "header": { "x-sluice-cohort": "beta" } },
            { "principal": ["qa-team"] },
        ],
        "sticky": ["x-session-id", "user", "api_key"],
        "objectives": [
            { "event": "error", "max_ratio": 0.01 },
            { "event": "slow_ttft", "over": "800ms", "max_ratio": 0.05 },
            { "event": "slow_request", "over": "5s", "compare": "stable", "alpha": 0.01 },
            { "shadow_agreement": { "min": 0.9 } },
            { "evaluation": "helpdesk-qa", "min_delta": 0.0 },
        ],
        "on_breach": "rollback",
        "on_inconclusive": "pause",
        "keep_warm": "24h",
    })
}

#[test]
fn the_words_of_the_specification_are_understood() {
    let strategy = Strategy::parse(specified()).unwrap();
    assert_eq!(strategy.steps.len(), 8);
    assert_eq!(strategy.steps[5], Step::Pause(Pause { lasts: None }));
    assert_eq!(
        strategy.objectives[1],
        Objective::event(
            Event::SlowTtft(Bar::Time(Duration::from_millis(800))),
            Rule::MaxRatio(0.05)
        )
    );
    assert_eq!(strategy.keep_warm, Duration::from_secs(86_400));
    let again = Strategy::parse(serde_json::to_value(&strategy).unwrap()).unwrap();
    assert_eq!(again, strategy);
}

#[test]
fn nothing_said_is_the_default() {
    assert_eq!(Strategy::parse(json!({})).unwrap(), Strategy::default());
    let default = serde_json::to_value(Strategy::default()).unwrap();
    assert_eq!(Strategy::parse(default).unwrap(), Strategy::default());
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_wrong_is_named() {
    let cases = [
        (
            "/steps/1/weight",
            json!(0),
            "steps[1].weight: 0 is not between 0.01 and 100 percent",
        ),
        (
            "/steps/3/weight",
            json!(0.5),
            "steps[3].weight: 0.5 is less than the 1 before it; weights only rise",
        ),
        (
            "/steps/2/analyse/max_duration",
            json!("soon"),
            "steps[2].analyse.max_duration: `soon` is not a duration",
        ),
        (
            "/steps/2/analyse/min_requests",
            json!(0),
            "steps[2].analyse.min_requests: 0 would pass without a look",
        ),
        (
            "/steps/4",
            json!({ "analyze": {} }),
            "steps[4]: unknown variant `analyze`, expected one of `shadow`, `weight`, `analyse`",
        ),
        (
            "/steps/4",
            json!({ "promote": {} }),
            "steps[4].promote: is not the last step",
        ),
        (
            "/steps/4",
            json!({ "shadow": { "percent": 5, "for": "1m" } }),
            "steps[4].shadow: stands after a weight",
        ),
        (
            "/objectives/0",
            json!({ "event": "error" }),
            "objectives[0]: has max_ratio or compare: stable, one of them",
        ),
        (
            "/objectives/0",
            json!({ "event": "oops", "max_ratio": 0.1 }),
            "objectives[0]: event: \"oops\" is none; it is one of error, broken_answer",
        ),
        (
            "/objectives/0",
            json!({ "event": "slow_ttft", "max_ratio": 0.1 }),
            "objectives[0]: over: slow_ttft needs a time, such as 800ms",
        ),
        (
            "/objectives/0",
            json!({ "event": "slow_ttft", "over": "0.5x stable", "compare": "stable" }),
            "objectives[0]: over: \"0.5x stable\" is not between 1x stable and 1000x stable",
        ),
        (
            "/objectives/0",
            json!({ "event": "error", "over": "1s", "max_ratio": 0.1 }),
            "objectives[0]: over, under: error has no bound",
        ),
        (
            "/objectives/0",
            json!({ "event": "error", "max_ratio": 1.5 }),
            "objectives[0]: max_ratio: 1.5 is not between 0 and 1",
        ),
        (
            "/objectives/0",
            json!({ "event": "error", "compare": "live" }),
            "objectives[0]: compare: \"live\" is nothing to compare with; stable is",
        ),
        (
            "/objectives/0",
            json!({ "event": "error", "compare": "stable", "alpha": 2 }),
            "objectives[0]: alpha: 2 is not between 1e-9 and 0.5",
        ),
        (
            "/objectives/0",
            json!({ "evaluation": "qa", "alpha": 0.1 }),
            "objectives[0]: an objective has one of event",
        ),
        (
            "/objectives/3/shadow_agreement/min",
            json!(1.0),
            "objectives[3]: shadow_agreement.min: 1 is not between 0 and 1",
        ),
        (
            "/objectives",
            json!([]),
            "objectives: are empty, and a step analyses",
        ),
        (
            "/cohorts/1/principal",
            json!([]),
            "cohorts[1]: names nobody",
        ),
        ("/sticky/0", json!(" "), "sticky[0]: is empty"),
        (
            "/on_breach",
            json!("panic"),
            "on_breach: unknown variant `panic`, expected `rollback` or `freeze`",
        ),
        (
            "/keep_warm",
            json!(3),
            "keep_warm: invalid type: integer `3`, expected a string",
        ),
    ];
    for (place, value, message) in cases {
        let mut strategy = specified();
        *strategy.pointer_mut(place).unwrap() = value;
        let error = Strategy::parse(strategy).unwrap_err().to_string();
        assert!(error.starts_with(message), "{place}: {error}");
    }
    for (pauses, message) in [
        (
            json!({ "longest": "5s" }),
            "pauses.longest: is more than 2500ms",
        ),
        (json!({ "every": "1ms" }), "pauses.every: is less than 1s"),
    ] {
        let error = Strategy::parse(json!({ "pauses": pauses }))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(message), "{error}");
    }
    let error = Strategy::parse(json!({ "stages": [] })).unwrap_err();
    assert!(
        error.to_string().contains("unknown field `stages`"),
        "{error}"
    );
}

fn any_event() -> impl proptest::strategy::Strategy<Value = Event> {
    let bar = prop_oneof![
        (1_u64..1 << 40).prop_map(|it| Bar::Time(Duration::from_millis(it))),
        (10_u32..10_000).prop_map(|it| Bar::Stable(f64::from(it) / 10.0)),
    ];
    prop_oneof![
        Just(Event::Error),
        Just(Event::Empty),
        Just(Event::Refusal),
        Just(Event::GrammarViolation),
        bar.clone().prop_map(Event::SlowTtft),
        bar.clone().prop_map(Event::SlowToken),
        bar.prop_map(Event::SlowRequest),
        Just(Event::Broken),
        Just(Event::Rejected),
        Just(Event::Abandoned),
        any::<u32>().prop_map(Event::LongOutput),
        any::<u32>().prop_map(Event::ShortOutput),
    ]
}

proptest! {
    #[test]
    fn objectives_round_trip(
        event in any_event(),
        ratio in prop::option::of((1_u32..999).prop_map(|it| f64::from(it) / 1_000.0)),
        alpha in (1_u32..500).prop_map(|it| f64::from(it) / 1_000.0),
    ) {
        let rule = ratio.map_or(Rule::CompareStable, Rule::MaxRatio);
        let objective = Objective::Event { event, rule, alpha };
        let text = serde_json::to_string(&objective).unwrap();
        prop_assert_eq!(serde_json::from_str::<Objective>(&text).unwrap(), objective);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}") {
        _ = Strategy::parse(json!({ "steps": [{ &text: 1 }], "sticky": [text] }));
    }
}
