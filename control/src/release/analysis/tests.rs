#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::release::strategy::Bar;

mod trust;

struct Rig {
    analyser: Analyser,
    now: Timestamp,
    share: Share,
    key: u64,
}

impl Rig {
    fn new(objectives: &serde_json::Value) -> Self {
        let strategy = Strategy::parse(json!({ "objectives": objectives })).unwrap();
        let mut rig = Self {
            analyser: Analyser::new(&strategy),
            now: Timestamp::from_micros(0),
            share: Share::percent(10.0),
            key: 0,
        };
        rig.analyser.begin_step(rig.now);
        rig.pass(20);
        rig
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
    }

    fn observe(&mut self, side: Side, unit: Unit, facts: Facts) {
        let exposure = Exposure::Randomised(self.share);
        self.expose(side, exposure, unit, facts);
    }

    fn expose(&mut self, side: Side, exposure: Exposure, unit: Unit, facts: Facts) {
        self.now = self.now.after(Duration::from_millis(10));
        self.analyser.observe(&Outcome {
            at: self.now,
            side,
            exposure,
            unit,
            key: self.key,
            facts,
        });
    }

    fn verdict(&self, wanted: u64) -> Verdict {
        self.analyser.assess(wanted, self.now).verdict
    }

    fn because(&self) -> String {
        self.analyser.assess(1, self.now).because()
    }
}

fn good() -> Facts {
    Facts::ok(Duration::from_millis(100))
}

fn failed() -> Facts {
    Facts {
        class: Class::Fault,
        ..good()
    }
}

fn slow() -> Facts {
    Facts::ok(Duration::from_secs(9))
}

fn errors_compared() -> serde_json::Value {
    json!([{ "event": "error", "compare": "stable" }])
}

#[test]
fn a_candidate_that_fails_where_stable_does_not_is_a_breach() {
    let mut rig = Rig::new(&errors_compared());
    for user in 0..20 {
        rig.observe(Side::Stable, Unit::Sticky(user), good());
    }
    let broke_at = (100..200)
        .find(|user| {
            rig.observe(Side::Candidate, Unit::Sticky(1_000 + *user), good());
            rig.observe(Side::Candidate, Unit::Sticky(*user), failed());
            rig.analyser.is_breached()
        })
        .unwrap();
    // One coin of probability 0.1 after the other: a handful is enough, two are not.
    assert!((102..106).contains(&broke_at), "{broke_at}");
    assert_eq!(rig.verdict(1), Verdict::Breach);
    assert!(
        rig.because()
            .contains("on the candidate, 0 of 20 on stable"),
        "{}",
        rig.because()
    );
}

#[test]
fn one_client_alone_is_no_breach() {
    for objective in [
        json!([{ "event": "error", "compare": "stable" }]),
        json!([{ "event": "error", "max_ratio": 0.01 }]),
        json!([{ "event": "slow_request", "over": "5s", "compare": "stable" }]),
        json!([{ "event": "slow_request", "over": "5s", "max_ratio": 0.05 }]),
    ] {
        let mut rig = Rig::new(&objective);
        for round in 0..2_000 {
            let bad = Facts {
                stable_answered: Some(false),
                class: Class::Fault,
                ..slow()
            };
            rig.observe(Side::Candidate, Unit::Sticky(1), bad);
            rig.observe(Side::Candidate, Unit::Sticky(100 + round), good());
            rig.observe(Side::Stable, Unit::Sticky(9_000 + round), good());
        }
        assert!(
            !rig.analyser.is_breached(),
            "{objective}: {}",
            rig.because()
        );
        assert_eq!(
            rig.verdict(100),
            Verdict::Pass,
            "{objective}: {}",
            rig.because()
        );
    }
}

#[test]
fn a_good_candidate_passes_when_enough_was_judged() {
    let mut rig = Rig::new(&errors_compared());
    assert_eq!(rig.verdict(100), Verdict::NoData);
    for user in 0..99 {
        rig.observe(Side::Candidate, Unit::Sticky(user), good());
    }
    assert_eq!(rig.verdict(100), Verdict::Inconclusive);
    assert!(rig.because().contains("99 of 99") || rig.verdict(99) == Verdict::Pass);
    rig.observe(Side::Candidate, Unit::Sticky(99), good());
    assert_eq!(rig.verdict(100), Verdict::Pass);
    // The next step starts to count anew.
    rig.analyser.begin_step(rig.now);
    assert_eq!(rig.verdict(100), Verdict::NoData);
}

#[test]
fn what_is_suspicious_does_not_pass() {
    let mut rig = Rig::new(&errors_compared());
    for user in 0..100 {
        rig.observe(Side::Candidate, Unit::Sticky(user), good());
    }
    for user in 500..502 {
        rig.observe(Side::Stable, Unit::Sticky(user), failed());
    }
    for user in 200..203 {
        rig.observe(Side::Candidate, Unit::Sticky(user), failed());
        rig.observe(Side::Candidate, Unit::Sticky(user + 100), good());
    }
    assert_eq!(rig.verdict(100), Verdict::Inconclusive);
    assert!(rig.because().contains("suspicious"), "{}", rig.because());
}

#[test]
fn few_units_that_are_all_bad_are_not_passed_either() {
    let mut rig =
        Rig::new(&json!([{ "event": "slow_request", "over": "5s", "compare": "stable" }]));
    for _ in 0..1_000 {
        rig.observe(Side::Candidate, Unit::Sticky(1), slow());
    }
    assert_eq!(rig.verdict(100), Verdict::Inconclusive);
    assert!(
        rig.because().contains("too few units to tell"),
        "{}",
        rig.because()
    );
}

#[test]
fn what_a_limit_allows_is_not_unclear() {
    let mut rig = Rig::new(&json!([{ "shadow_agreement": { "min": 0.7 } }]));
    // Eighty people, of whom each meets a difference now and then: one answer in four.
    for pair in 0..2_000_u64 {
        rig.now = rig.now.after(Duration::from_millis(100));
        let unit = Unit::Sticky(pair % 80);
        rig.analyser
            .compared(rig.now, unit, pair * 2_654_435_761 % 97 >= 25);
    }
    assert_eq!(rig.verdict(50), Verdict::Pass, "{}", rig.because());
}

#[test]
fn client_faults_and_people_who_hang_up_are_nobodys_error() {
    let mut rig = Rig::new(&json!([{ "event": "error", "max_ratio": 0.01 }]));
    for class in [Class::ClientFault, Class::Cancelled] {
        for _ in 0..500 {
            rig.observe(Side::Candidate, Unit::Single, Facts { class, ..good() });
        }
    }
    assert_eq!(rig.verdict(1), Verdict::NoData);
}

#[test]
fn who_gives_up_after_the_limit_has_met_a_slow_request() {
    let limit = Duration::from_secs(1);
    let hung_up = |total| Facts {
        class: Class::Cancelled,
        ..Facts::ok(total)
    };
    let bar = Bar::Time(limit);
    let met = |facts: Facts, event| facts.met(event, &Bars::default());
    assert_eq!(met(hung_up(2 * limit), Event::SlowRequest(bar)), Some(true));
    assert_eq!(met(hung_up(2 * limit), Event::SlowTtft(bar)), Some(true));
    assert_eq!(met(hung_up(limit / 2), Event::SlowRequest(bar)), None);
    assert_eq!(met(hung_up(limit / 2), Event::SlowTtft(bar)), None);
    let streamed = Facts {
        ttft: Some(limit / 2),
        token_time: Some(2 * limit),
        output_tokens: Some(7),
        ..hung_up(9 * limit)
    };
    assert_eq!(met(streamed, Event::SlowTtft(bar)), Some(false));
    assert_eq!(met(streamed, Event::SlowToken(bar)), Some(true));
    assert_eq!(met(streamed, Event::LongOutput(5)), None);
}

#[test]
fn cohorts_and_copies_count_for_limits_only() {
    let objectives = json!([
        { "event": "error", "compare": "stable" },
        { "event": "error", "max_ratio": 0.1 },
    ]);
    for exposure in [Exposure::Cohort, Exposure::Shadow] {
        let mut rig = Rig::new(&objectives);
        for user in 0..100 {
            rig.expose(Side::Candidate, exposure, Unit::Sticky(user), failed());
        }
        let verdicts: Vec<Verdict> = rig
            .analyser
            .assess(1, rig.now)
            .objectives
            .iter()
            .map(|it| it.verdict)
            .collect();
        assert_eq!(verdicts, [Verdict::NoData, Verdict::Breach]);
    }
}

#[test]
fn cold_caches_are_not_held_against_latencies_but_errors_are() {
    let mut rig = Rig::new(&json!([
        { "event": "slow_request", "over": "5s", "max_ratio": 0.05 },
        { "event": "error", "max_ratio": 0.05 },
    ]));
    rig.analyser.begin_step(rig.now);
    for _ in 0..100 {
        rig.observe(Side::Candidate, Unit::Single, slow());
    }
    assert!(!rig.analyser.is_breached());
    rig.pass(15);
    for _ in 0..400 {
        rig.observe(Side::Candidate, Unit::Single, slow());
    }
    assert!(rig.analyser.is_breached(), "{}", rig.because());

    let mut rig = Rig::new(&json!([{ "event": "error", "max_ratio": 0.05 }]));
    rig.analyser.begin_step(rig.now);
    for _ in 0..20 {
        rig.observe(Side::Candidate, Unit::Single, failed());
    }
    assert!(rig.analyser.is_breached());
}

/// One application with one key: at some weight all of its traffic moves at once.
#[test]
fn the_only_client_is_held_against_its_own_past() {
    let objective = json!([{ "event": "slow_request", "over": "5s", "compare": "stable" }]);
    for (before, breaches) in [(good(), true), (slow(), false)] {
        let mut rig = Rig::new(&objective);
        for _ in 0..50 {
            rig.observe(Side::Stable, Unit::Sticky(1), before);
        }
        rig.share = Share::percent(50.0);
        rig.analyser.begin_step(rig.now);
        rig.pass(30);
        for _ in 0..30 {
            rig.observe(Side::Candidate, Unit::Sticky(1), slow());
            rig.pass(1);
        }
        assert_eq!(rig.analyser.is_breached(), breaches, "{}", rig.because());
    }
}

/// And if it has none, what stable makes of the very same requests tells the candidate from the client.
#[test]
fn a_retry_on_stable_tells_whose_fault_it_was() {
    for (stable_answered, breaches) in [(true, true), (false, false)] {
        let mut rig = Rig::new(&errors_compared());
        for _ in 0..50 {
            let facts = Facts {
                stable_answered: Some(stable_answered),
                ..failed()
            };
            rig.observe(Side::Candidate, Unit::Sticky(1), facts);
            rig.pass(3);
        }
        assert_eq!(rig.analyser.is_breached(), breaches, "{}", rig.because());
    }
}

#[test]
fn an_incident_that_hits_both_is_nobodys_fault() {
    let mut rig = Rig::new(&errors_compared());
    rig.share = Share::percent(50.0);
    for round in 0..2_000_u64 {
        let facts = if (500..700).contains(&round) && round % 2 == 0 {
            failed()
        } else {
            good()
        };
        rig.observe(Side::Stable, Unit::Sticky(2 * round), facts);
        rig.observe(Side::Candidate, Unit::Sticky(2 * round + 1), facts);
    }
    assert_eq!(rig.verdict(100), Verdict::Pass, "{}", rig.because());
}

#[test]
fn answers_that_do_not_agree_are_a_breach() {
    let mut rig = Rig::new(&json!([{ "shadow_agreement": { "min": 0.9 } }]));
    assert_eq!(rig.verdict(1), Verdict::NoData);
    for pair in 0..200 {
        rig.analyser.compared(rig.now, Unit::Single, pair % 20 != 0);
    }
    assert_eq!(rig.verdict(1), Verdict::Pass, "{}", rig.because());
    rig.analyser.begin_step(rig.now);
    assert_eq!(
        rig.verdict(1),
        Verdict::Pass,
        "no copies are sent in later steps"
    );
    for pair in 0..300 {
        rig.analyser.compared(rig.now, Unit::Single, pair % 3 != 0);
    }
    assert_eq!(rig.verdict(1), Verdict::Breach);
}

#[test]
fn an_evaluation_decides_by_its_difference() {
    let mut rig = Rig::new(&json!([{ "evaluation": "qa", "min_delta": -0.01 }]));
    assert_eq!(rig.verdict(1), Verdict::NoData);
    rig.analyser.evaluated("another", -1.0);
    assert_eq!(rig.verdict(1), Verdict::NoData);
    rig.analyser.evaluated("qa", 0.02);
    assert_eq!(rig.verdict(1), Verdict::Pass);
    rig.analyser.evaluated("qa", -0.02);
    assert!(rig.analyser.is_breached());
    assert_eq!(rig.verdict(1), Verdict::Breach);
    rig.analyser.rearm(rig.now);
    assert_eq!(rig.verdict(1), Verdict::Breach, "a score is a score");
}

#[test]
fn a_person_who_goes_on_starts_the_evidence_anew() {
    let mut rig = Rig::new(&errors_compared());
    for user in 0..50 {
        rig.observe(Side::Candidate, Unit::Sticky(user), failed());
        rig.observe(Side::Candidate, Unit::Sticky(1_000 + user), good());
    }
    assert_eq!(rig.verdict(1), Verdict::Breach);
    rig.analyser.rearm(rig.now);
    assert_eq!(rig.verdict(1), Verdict::NoData);
}

#[test]
fn evidence_is_kept_as_it_was() {
    let mut rig = Rig::new(&json!([
        { "event": "error", "compare": "stable" },
        { "event": "slow_ttft", "over": "1s", "max_ratio": 0.05 },
        { "shadow_agreement": { "min": 0.9 } },
        { "evaluation": "qa" },
    ]));
    for user in 0..500 {
        let facts = Facts {
            ttft: Some(Duration::from_millis(user)),
            ..failed()
        };
        rig.observe(Side::Candidate, Unit::Sticky(user), facts);
        rig.observe(Side::Stable, Unit::Sticky(user + 1_000), good());
    }
    let assessment = rig.analyser.assess(100, rig.now);
    let text = serde_json::to_string(&assessment).unwrap();
    let again: Assessment = serde_json::from_str(&text).unwrap();
    // A decimal number is read back to its last place but one.
    assert_eq!(again.because(), assessment.because());
    assert_eq!(again.objectives.len(), 4);
    assert!(matches!(
        again.objectives[0].measure,
        Measure::Requests { candidate: Ratio { events: 500, of: 500 }, limit, .. } if (limit - 100.0 / 0.75).abs() < 1e-6
    ));
    assert!(text.contains("\"verdict\":\"breach\""), "{text}");
    assert!(text.contains("\"randomised units\""), "{text}");
}

#[test]
fn the_verdict_over_all_is_the_worst() {
    use Verdict::{Breach, Inconclusive, NoData, Pass};
    let evidence = |verdict| Evidence {
        objective: "error".into(),
        basis: Basis::Requests,
        asked: true,
        verdict,
        because: String::new(),
        breached_at: None,
        measure: Measure::Evaluation {
            delta: None,
            min_delta: 0.0,
        },
    };
    for (verdicts, all) in [
        (vec![], NoData),
        (vec![Pass, Pass], Pass),
        (vec![Pass, NoData], NoData),
        (vec![NoData, Inconclusive, Pass], Inconclusive),
        (vec![NoData, Breach, Inconclusive], Breach),
    ] {
        let objectives = verdicts.into_iter().map(evidence).collect();
        let at = Timestamp::from_micros(0);
        assert_eq!(Assessment::new(at, objectives).verdict, all);
    }
}

/// What a step cannot learn any more is not waited for: a release would stand still until somebody looks.
#[test]
fn a_step_waits_only_for_what_it_can_learn() {
    let mut rig = Rig::new(&json!([
        { "event": "error", "compare": "stable" },
        { "shadow_agreement": { "min": 0.9 } },
    ]));
    let wanted = |answers, copies| Wanted {
        requests: 10,
        pairs: 0,
        answers,
        copies,
    };
    for user in 0..49 {
        let unit = Unit::Sticky(user);
        rig.analyser.compared(rig.now, unit, true);
    }
    let copying = rig.analyser.assess(wanted(false, true), rig.now);
    assert_eq!(copying.verdict, Verdict::Inconclusive);
    let lacks = "shadow agreement, at least 0.9: 49 of 50 copies compared";
    assert_eq!(
        (copying.lacking(), copying.lacking_copies()),
        (lacks.into(), lacks.into())
    );
    // An analysis of copies may ask for more of them.
    let more = Wanted {
        pairs: 120,
        ..wanted(false, true)
    };
    let lacks = rig.analyser.assess(more, rig.now).lacking();
    assert!(lacks.ends_with("49 of 120 copies compared"), "{lacks}");
    for user in 0..20 {
        rig.observe(Side::Candidate, Unit::Sticky(user), good());
    }
    let serving = rig.analyser.assess(wanted(true, false), rig.now);
    assert_eq!(serving.verdict, Verdict::Pass, "{}", serving.because());
    assert!(!serving.objectives[1].asked && serving.lacking().is_empty());
    // What was known of the copies before counts for ever.
    for user in 0..500 {
        let unit = Unit::Sticky(user);
        rig.analyser.compared(rig.now, unit, false);
    }
    let serving = rig.analyser.assess(wanted(true, false), rig.now);
    assert_eq!(serving.verdict, Verdict::Breach);
}

#[test]
fn quantiles_of_both_and_their_difference() {
    let mut rig = Rig::new(&errors_compared());
    assert!(rig.analyser.quantiles().is_empty());
    for index in 0..5_000_u64 {
        let facts = |factor: u64| Facts::ok(Duration::from_millis((100 + index % 100) * factor));
        rig.observe(Side::Stable, Unit::Single, facts(1));
        rig.observe(Side::Candidate, Unit::Single, facts(3));
    }
    let pairs = rig.analyser.quantiles();
    let median = pairs
        .iter()
        .find(|it| it.latency == "total" && it.p == 0.5)
        .unwrap();
    let (low, high) = median.difference.unwrap();
    assert!(low > 0.25 && high.unwrap() < 0.35, "{median:?}");
}
