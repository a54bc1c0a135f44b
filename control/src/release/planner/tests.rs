#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::{Just, Strategy as _, any, prop};
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::json;

use super::*;
use crate::release::analysis::{Basis, Evidence, Measure};

fn strategy(on_breach: &str, on_inconclusive: &str) -> Strategy {
    Strategy::parse(json!({
        "steps": [
            { "shadow": { "percent": 20, "for": "1m" } },
            { "weight": 5 },
            { "analyse": { "min_requests": 100, "max_duration": "10m" } },
            { "pause": {} },
            { "pause": { "for": "1m" } },
            { "weight": 50 },
            { "analyse": { "max_duration": "10m" } },
            { "promote": {} },
        ],
        "on_breach": on_breach,
        "on_inconclusive": on_inconclusive,
    }))
    .unwrap()
}

fn found(verdict: Verdict) -> Assessment {
    let evidence = Evidence {
        objective: "error".into(),
        basis: Basis::Requests,
        asked: true,
        verdict,
        because: "numbers".into(),
        breached_at: None,
        measure: Measure::Evaluation {
            delta: None,
            min_delta: 0.0,
        },
    };
    Assessment::new(at(0), vec![evidence])
}

const fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

/// A release, its strategy, and a clock.
struct Walk {
    strategy: Strategy,
    release: Release,
    now: i64,
    gate: Vec<String>,
}

impl Walk {
    fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            release: Release::new(at(0)),
            now: 0,
            gate: Vec::new(),
        }
    }

    fn plan(&self, verdict: Verdict) -> Action {
        let assessment = found(verdict);
        let observed = Observed {
            assessment: &assessment,
            gate: &self.gate,
        };
        plan(&self.release, &self.strategy, observed, at(self.now))
    }

    /// Follows the plan until it waits, and says what was done.
    fn go(&mut self, verdict: Verdict) -> Vec<Action> {
        let mut done = Vec::new();
        loop {
            let action = self.plan(verdict);
            if matches!(action, Action::Wait { .. }) {
                return done;
            }
            self.release = self.release.after(&action, at(self.now));
            done.push(action);
            assert!(done.len() < 50, "it never waits: {done:?}");
        }
    }

    fn ask(&mut self, asked: Command, verdict: Verdict) -> Result<Action, Refused> {
        let assessment = found(verdict);
        let observed = Observed {
            assessment: &assessment,
            gate: &self.gate,
        };
        let action = command(&self.release, asked, observed)?;
        self.release = self.release.after(&action, at(self.now));
        Ok(action)
    }
}

#[test]
fn a_good_candidate_goes_through_every_step() {
    let mut walk = Walk::new(strategy("rollback", "pause"));
    walk.go(Verdict::NoData);
    assert_eq!(walk.release.shadow, Share::percent(20.0));
    assert_eq!(walk.release.share, Share::NONE);
    walk.now += 60;
    walk.go(Verdict::Inconclusive);
    assert_eq!(
        (walk.release.step, walk.release.share, walk.release.shadow),
        (2, Share::percent(5.0), Share::NONE)
    );
    // Enough requests end the analysis early, and a person is asked.
    walk.now += 5;
    walk.go(Verdict::Pass);
    assert!(matches!(
        walk.release.phase,
        Phase::Paused { why: Why::Step, .. }
    ));
    walk.now += 10_000;
    assert!(walk.go(Verdict::Pass).is_empty());
    walk.ask(Command::Resume, Verdict::Pass).unwrap();
    walk.go(Verdict::Pass);
    assert_eq!(walk.release.step, 4);
    walk.now += 60;
    walk.go(Verdict::Pass);
    assert_eq!(walk.release.share, Share::percent(50.0));
    // Without a number of requests the analysis takes its time.
    walk.now += 599;
    assert!(walk.go(Verdict::Pass).is_empty());
    walk.now += 1;
    assert_eq!(walk.go(Verdict::Pass), [Action::Promote]);
    assert_eq!(walk.release.share, Share::ALL);
    walk.now += 15;
    walk.go(Verdict::Pass);
    assert_eq!(walk.release.phase, Phase::Promoted);
}

#[test]
fn copies_go_on_until_their_objective_has_judged_them() {
    let agreement = |verdict| {
        let mut assessment = found(verdict);
        assessment.objectives[0].basis = Basis::Copies;
        assessment
    };
    let strategy = |rest: &str| {
        let shadow = json!({ "percent": 20, "for": "1m", "max_duration": "5m" });
        Strategy::parse(json!({
            "steps": [{ "shadow": shadow }, { "weight": 5 }],
            "on_inconclusive": rest,
        }))
        .unwrap()
    };
    let planned = |strategy: &Strategy, seconds, assessment: &Assessment| {
        let mut release = Release::new(at(0));
        release.phase = Phase::Running;
        release.shadow = Share::percent(20.0);
        let observed = Observed {
            assessment,
            gate: &[],
        };
        plan(&release, strategy, observed, at(seconds))
    };
    let pauses = strategy("pause");
    let until = |second| Action::Wait {
        until: Some(at(second)),
    };
    let few = agreement(Verdict::Inconclusive);
    assert_eq!(planned(&pauses, 59, &few), until(60));
    assert_eq!(planned(&pauses, 60, &few), until(300));
    assert!(matches!(
        planned(&pauses, 60, &agreement(Verdict::Pass)),
        Action::Enter { step: 1, .. }
    ));
    // Other objectives are none of its business.
    assert!(matches!(
        planned(&pauses, 60, &found(Verdict::NoData)),
        Action::Enter { step: 1, .. }
    ));
    let over = planned(&pauses, 300, &few);
    assert!(
        matches!(&over, Action::Pause { why: Why::Inconclusive(why) } if why.contains("numbers")),
        "{over:?}"
    );
    assert!(matches!(
        planned(&strategy("extend"), 300, &few),
        Action::Extend { .. }
    ));
}

#[test]
fn a_release_that_waits_says_for_what() {
    let strategy = strategy("rollback", "pause");
    let mut release = Release::new(at(0));
    let said = |release: &Release, found: Option<&Assessment>| waits_for(release, &strategy, found);
    assert_eq!(
        said(&release, None).unwrap(),
        "the candidate to be loaded by the server that drives the release"
    );
    release.phase = Phase::Running;
    let good = found(Verdict::Pass);
    assert_eq!(
        said(&release, Some(&good)).unwrap(),
        "the end of its time at 1970-01-01 00:01:00 UTC"
    );
    release.step = 2;
    let few = found(Verdict::Inconclusive);
    assert_eq!(
        said(&release, Some(&few)).unwrap(),
        "error: numbers; until 1970-01-01 00:10:00 UTC at most"
    );
    release.phase = Phase::Paused {
        why: Why::Step,
        promoting: false,
    };
    assert_eq!(
        said(&release, None).unwrap(),
        "a person, to resume or to take it back"
    );
    release.phase = Phase::Promoted;
    assert_eq!(said(&release, Some(&few)), None);
}

#[test]
fn without_a_verdict_a_person_is_asked_or_time_is_given() {
    for verdict in [Verdict::Inconclusive, Verdict::NoData] {
        let mut walk = Walk::new(strategy("rollback", "pause"));
        walk.go(verdict);
        walk.now += 60;
        walk.go(verdict);
        walk.now += 600;
        walk.go(verdict);
        assert!(matches!(
            &walk.release.phase,
            Phase::Paused { why: Why::Inconclusive(why), .. } if why.contains(verdict.word())
        ));
        walk.ask(Command::Resume, verdict).unwrap();
        walk.go(verdict);
        assert_eq!(walk.release.step, 3, "a person takes it as passed");

        let mut walk = Walk::new(strategy("rollback", "extend"));
        walk.go(verdict);
        walk.now += 60;
        walk.go(verdict);
        for _ in 0..3 {
            walk.now += 600;
            let done = walk.go(verdict);
            assert!(matches!(done[..], [Action::Extend { .. }]), "{done:?}");
        }
        assert_eq!(walk.release.step, 2);
    }
}

#[test]
fn the_gate_is_asked_at_the_end_and_by_promote() {
    let mut walk = Walk::new(strategy("rollback", "pause"));
    walk.go(Verdict::Pass);
    walk.gate = vec!["evidence withdrawn".into()];
    assert_eq!(
        walk.ask(Command::Promote, Verdict::Pass),
        Err(Refused::Gate(walk.gate.clone()))
    );
    walk.release.step = 6;
    walk.now += 600;
    walk.go(Verdict::Pass);
    assert!(matches!(
        &walk.release.phase,
        Phase::Paused {
            why: Why::Gate(_),
            ..
        }
    ));
    // Going on does not go past it.
    walk.ask(Command::Resume, Verdict::Pass).unwrap();
    walk.go(Verdict::Pass);
    assert!(matches!(walk.release.phase, Phase::Paused { .. }));
    walk.gate.clear();
    walk.ask(Command::Resume, Verdict::Pass).unwrap();
    walk.go(Verdict::Pass);
    assert_eq!(walk.release.phase, Phase::Promoting);
}

#[test]
fn the_gate_is_asked_before_every_rise() {
    let closed = vec!["it was archived".to_owned()];
    let is_held = |walk: &Walk| {
        matches!(
            walk.release.phase,
            Phase::Paused {
                why: Why::Gate(_),
                ..
            }
        )
    };
    // Before the first share of the traffic, after copies of it.
    let mut walk = Walk::new(strategy("rollback", "pause"));
    walk.go(Verdict::Pass);
    walk.gate.clone_from(&closed);
    walk.now += 60;
    walk.go(Verdict::Pass);
    assert!(is_held(&walk));
    assert_eq!(walk.release.share, Share::NONE);
    // And before the second.
    walk.gate.clear();
    walk.ask(Command::Resume, Verdict::Pass).unwrap();
    walk.go(Verdict::Pass);
    walk.ask(Command::Resume, Verdict::Pass).unwrap();
    walk.go(Verdict::Pass);
    assert_eq!(walk.release.share, Share::percent(5.0));
    walk.gate.clone_from(&closed);
    walk.now += 60;
    walk.go(Verdict::Pass);
    assert!(is_held(&walk), "{:?}", walk.release);
    assert_eq!(walk.release.share, Share::percent(5.0));
    // What has not begun does not begin.
    let mut walk = Walk::new(strategy("rollback", "pause"));
    walk.gate = closed;
    assert_eq!(walk.go(Verdict::NoData), [Action::Abort]);
}

#[test]
fn a_frozen_release_holds_its_weight() {
    let mut walk = Walk::new(strategy("freeze", "pause"));
    walk.go(Verdict::Pass);
    walk.now += 60;
    walk.go(Verdict::Inconclusive);
    walk.go(Verdict::Breach);
    assert!(matches!(
        walk.release.phase,
        Phase::Paused {
            why: Why::Breach(_),
            ..
        }
    ));
    assert_eq!(walk.release.share, Share::percent(5.0));
    assert!(walk.go(Verdict::Breach).is_empty());
    assert!(matches!(
        walk.ask(Command::Promote, Verdict::Breach),
        Err(Refused::Breach(_))
    ));
    walk.ask(Command::Resume, Verdict::Breach).unwrap();
    assert_eq!(walk.release.phase, Phase::Running);
    assert!(!walk.release.passed, "the step is done anew");
    walk.ask(Command::RollBack, Verdict::NoData).unwrap();
    walk.go(Verdict::NoData);
    assert_eq!(walk.release.phase, Phase::RolledBack { why: Why::Person });
}

#[test]
fn a_pause_while_promoting_goes_on_promoting() {
    let mut walk = Walk::new(strategy("rollback", "pause"));
    walk.go(Verdict::Pass);
    walk.ask(Command::Promote, Verdict::Pass).unwrap();
    walk.ask(Command::Pause, Verdict::Pass).unwrap();
    assert_eq!(walk.release.share, Share::ALL);
    walk.ask(Command::Resume, Verdict::Pass).unwrap();
    assert_eq!(walk.release.phase, Phase::Promoting);
}

#[test]
fn what_has_not_begun_is_aborted_and_what_is_over_is_over() {
    let mut walk = Walk::new(strategy("rollback", "pause"));
    assert_eq!(
        walk.ask(Command::Resume, Verdict::NoData)
            .unwrap_err()
            .to_string(),
        "a release that has not begun does not take \"resume\""
    );
    walk.ask(Command::Abort, Verdict::NoData).unwrap();
    assert_eq!(walk.release.phase, Phase::Aborted);
    assert!(walk.go(Verdict::Breach).is_empty());
    assert!(walk.ask(Command::RollBack, Verdict::NoData).is_err());
}

#[derive(Debug, Clone)]
enum Happens {
    Time(i64),
    Found(Verdict),
    Asked(Command),
    Gate(bool),
    /// The controller dies after writing the state and is asked again.
    Restart,
}

fn happens() -> impl proptest::strategy::Strategy<Value = Happens> {
    prop_oneof![
        (1_i64..700).prop_map(Happens::Time),
        prop::sample::select(Verdict::ALL).prop_map(Happens::Found),
        prop::sample::select(Command::ALL).prop_map(Happens::Asked),
        any::<bool>().prop_map(Happens::Gate),
        Just(Happens::Restart),
    ]
}

/// What may never happen from one state to the next, whatever led there.
fn check(before: &Release, action: &Action, after: &Release, gate_open: bool, strategy: &Strategy) {
    match action {
        Action::Enter { step, share, .. } => {
            let expected = match before.phase {
                Phase::Prepared => 0,
                _ => before.step + 1,
            };
            assert_eq!(*step, expected, "a step was skipped or repeated");
            assert!(*share >= before.share, "the weight fell");
            assert!(
                gate_open || !action.raises(before),
                "more traffic past the gate"
            );
        }
        Action::Promote => assert!(gate_open, "promoted past the gate"),
        Action::RollBack { .. } => assert!(before.is_armed()),
        _ => {}
    }
    if before.is_over() {
        assert_eq!(before, after, "what is over changed");
    }
    match &after.phase {
        Phase::RollingBack { .. } | Phase::RolledBack { .. } | Phase::Aborted | Phase::Prepared => {
            assert_eq!((after.share, after.shadow), (Share::NONE, Share::NONE));
        }
        Phase::Promoting | Phase::Promoted => assert_eq!(after.share, Share::ALL),
        Phase::Running | Phase::Paused { .. } => {}
    }
    assert!(after.step < strategy.steps.len().max(1));
}

proptest! {
    #[test]
    fn whatever_happens(
        events in prop::collection::vec(happens(), 1..80),
        freeze in any::<bool>(),
        extend in any::<bool>(),
    ) {
        let strategy = strategy(
            if freeze { "freeze" } else { "rollback" },
            if extend { "extend" } else { "pause" },
        );
        let mut walk = Walk::new(strategy.clone());
        let mut verdict = Verdict::NoData;
        for event in events {
            match event {
                Happens::Time(seconds) => walk.now += seconds,
                Happens::Found(found) => verdict = found,
                Happens::Gate(open) => {
                    walk.gate = if open { Vec::new() } else { vec!["closed".into()] };
                }
                Happens::Restart => {
                    let text = serde_json::to_string(&walk.release).unwrap();
                    walk.release = serde_json::from_str(&text).unwrap();
                }
                Happens::Asked(asked) => {
                    let before = walk.release.clone();
                    if let Ok(action) = walk.ask(asked, verdict) {
                        check(&before, &action, &walk.release, walk.gate.is_empty(), &strategy);
                        if action == Action::Resume {
                            // The analyser is rearmed.
                            verdict = Verdict::NoData;
                        }
                    }
                }
            }
            let armed = walk.release.is_armed();
            for _ in 0..20 {
                let action = walk.plan(verdict);
                prop_assert_eq!(&action, &walk.plan(verdict), "asked twice, it says two things");
                let before = walk.release.clone();
                walk.release = before.after(&action, at(walk.now));
                check(&before, &action, &walk.release, walk.gate.is_empty(), &strategy);
                if matches!(action, Action::Wait { .. }) {
                    break;
                }
            }
            let waits = matches!(walk.plan(verdict), Action::Wait { .. });
            prop_assert!(waits, "it does not come to rest");
            if armed && verdict == Verdict::Breach && !freeze {
                let rolled_back = matches!(walk.release.phase, Phase::RolledBack { .. });
                prop_assert!(rolled_back, "{:?}", walk.release);
            }
        }
    }

    /// However long a good release is watched, at whatever intervals, it ends promoted.
    #[test]
    fn a_good_one_ends_promoted(steps in prop::collection::vec(1_i64..2_000, 40..60)) {
        let mut walk = Walk::new(strategy("rollback", "pause"));
        for seconds in steps {
            walk.go(Verdict::Pass);
            _ = walk.ask(Command::Resume, Verdict::Pass);
            walk.now += seconds + Duration::from_secs(20).as_secs() as i64;
        }
        walk.go(Verdict::Pass);
        prop_assert_eq!(walk.release.phase, Phase::Promoted);
    }
}
