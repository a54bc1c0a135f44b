//! Clients and servers that are not nice: agents, pauses, outages, people who leave, refusals, keys.

use super::*;

const FIVE: std::ops::Range<u64> = 0..5;

/// Agents make five requests within 0.3 s, and the one that fails is not the first.
#[test]
fn a_unit_is_hurt_though_its_first_request_went_well() {
    for objective in [
        errors_compared(),
        json!([{ "event": "error", "max_ratio": 0.05 }]),
    ] {
        let mut rig = Rig::new(&objective);
        for agent in 0..400 {
            for request in FIVE {
                let facts = if request == 3 { failed() } else { good() };
                rig.observe(Side::Candidate, Unit::Sticky(agent), facts);
                rig.observe(Side::Stable, Unit::Sticky(10_000 + agent), good());
            }
            rig.pass(1);
        }
        assert!(rig.analyser.is_breached(), "{objective}: {}", rig.because());
    }
}

/// 0.8 s of failures about once a minute, on each side by itself.
#[test]
fn pauses_of_either_side_are_nobodys_fault() {
    let mut rig = Rig::new(&json!([
        { "event": "error", "compare": "stable" },
        { "event": "error", "max_ratio": 0.1 },
    ]));
    rig.share = Share::percent(50.0);
    for round in 0..48_000_u64 {
        // Ten milliseconds a request; the candidate's pauses fall elsewhere than stable's.
        let paused = |from: u64| (from..from + 80).contains(&(round % 6_000));
        let side = if round % 2 == 0 {
            Side::Stable
        } else {
            Side::Candidate
        };
        let pauses = match side {
            Side::Stable => paused(1_000),
            Side::Candidate => paused(4_000),
        };
        let facts = if pauses { failed() } else { good() };
        rig.observe(side, Unit::Sticky(round), facts);
        assert!(!rig.analyser.is_breached(), "{}", rig.because());
    }
    assert_eq!(rig.verdict(100), Verdict::Pass, "{}", rig.because());
}

#[test]
fn what_is_broken_for_three_seconds_is_no_pause() {
    for objective in [
        errors_compared(),
        json!([{ "event": "error", "max_ratio": 0.1 }]),
        json!([{ "event": "error", "max_ratio": 0.9 }]),
    ] {
        let mut rig = Rig::new(&objective);
        for user in 0..20 {
            rig.observe(Side::Candidate, Unit::Sticky(user), good());
        }
        let began = rig.now;
        for user in 100..2_000 {
            rig.observe(Side::Candidate, Unit::Sticky(user), failed());
            for other in 0..9 {
                rig.observe(Side::Stable, Unit::Sticky(user * 10_000 + other), good());
            }
            if rig.analyser.is_breached() {
                break;
            }
        }
        let lasted = rig.now.since(began).as_secs_f64();
        assert!((3.0..4.0).contains(&lasted), "{objective}: {lasted}");
    }
}

#[test]
fn what_never_answers_is_found_by_those_who_leave() {
    let abandoned = |total| Facts {
        class: Class::Abandoned,
        ..Facts::ok(total)
    };
    // Who waits for less than nearly everybody on stable does shows nothing.
    for (waits, breaches) in [
        (Duration::from_millis(500), true),
        (Duration::from_millis(50), false),
    ] {
        let mut rig = Rig::new(&json!([{ "event": "abandoned", "compare": "stable" }]));
        rig.share = Share::percent(50.0);
        for user in 0..40 {
            rig.observe(Side::Stable, Unit::Sticky(user), good());
            rig.observe(Side::Candidate, Unit::Sticky(100 + user), abandoned(waits));
        }
        assert_eq!(rig.analyser.is_breached(), breaches, "{}", rig.because());
    }
    let deadline = Facts {
        class: Class::OwnDeadline,
        ..good()
    };
    let mut rig = Rig::new(&json!([{ "event": "error", "max_ratio": 0.1 }]));
    for user in 0..40 {
        rig.observe(Side::Candidate, Unit::Sticky(user), deadline);
    }
    assert_eq!(rig.verdict(1), Verdict::NoData, "the caller's own");
}

#[test]
fn refusals_that_stable_does_not_make_are_compared() {
    for (stable_answered, breaches) in [(Some(true), true), (Some(false), false), (None, true)] {
        let mut rig = Rig::new(&json!([{ "event": "rejected", "compare": "stable" }]));
        for user in 0..100 {
            let refused = Facts {
                class: Class::Rejected,
                stable_answered,
                ..good()
            };
            rig.observe(Side::Candidate, Unit::Sticky(2 * user), good());
            rig.observe(Side::Candidate, Unit::Sticky(2 * user + 1), refused);
            rig.observe(Side::Stable, Unit::Sticky(10_000 + user), good());
        }
        assert_eq!(rig.analyser.is_breached(), breaches, "{}", rig.because());
    }
    // A refusal is no error, a broken answer is one.
    let of = |class| Facts { class, ..good() }.met(Event::Error, &Bars::default());
    assert_eq!((of(Class::Rejected), of(Class::Broken)), (None, Some(true)));
}

#[test]
fn what_only_one_of_several_keys_has_met_may_be_its_own_doing() {
    for (second_key, breaches) in [(false, true), (true, false)] {
        let mut rig = Rig::new(&errors_compared());
        for round in 0..300 {
            rig.key = u64::from(second_key);
            rig.observe(Side::Candidate, Unit::Sticky(100_000 + round), good());
            rig.observe(Side::Stable, Unit::Sticky(200_000 + round), good());
            rig.key = 0;
            let bad = if round % 2 == 0 { failed() } else { good() };
            rig.observe(Side::Candidate, Unit::Sticky(round), bad);
        }
        assert_eq!(rig.analyser.is_breached(), breaches, "{}", rig.because());
        // When others meet it as well, it is the candidate's.
        rig.key = 1;
        for user in 900_000..900_100 {
            rig.observe(Side::Candidate, Unit::Sticky(user), failed());
        }
        assert!(rig.analyser.is_breached());
    }
}

#[test]
fn while_promoting_each_objective_is_held_against_stables_past() {
    let empty = Facts {
        empty: true,
        ..good()
    };
    for (objective, bad) in [
        (json!([{ "event": "empty", "compare": "stable" }]), empty),
        (
            json!([{ "event": "slow_request", "over": "5x stable", "compare": "stable" }]),
            slow(),
        ),
        (errors_compared(), failed()),
    ] {
        for every in [1, 3] {
            // A third of slow ones may be a bad moment of what both stand on.
            let found_at_all = every == 1 || !objective.to_string().contains("slow");
            let mut rig = Rig::new(&objective);
            for user in 0..200 {
                rig.observe(Side::Stable, Unit::Sticky(user), good());
                rig.observe(Side::Candidate, Unit::Sticky(1_000 + user), good());
            }
            rig.share = Share::ALL;
            rig.analyser.begin_promoting(rig.now);
            let found = (0..100).find(|user| {
                let facts = if user % every == 0 { bad } else { good() };
                rig.observe(Side::Candidate, Unit::Sticky(5_000 + user), facts);
                rig.pass(u64::from(every == 1));
                rig.analyser.is_breached()
            });
            let found = found.is_some_and(|it| it < 40);
            assert_eq!(found, found_at_all, "{objective} {every}");
        }
    }
}

/// A pause makes answers fail or late. It makes none that says nothing, so that those count however close they are.
#[test]
fn what_an_answer_says_is_no_pauses_doing() {
    let empty = Facts {
        empty: true,
        ..good()
    };
    for (objective, bad, at_once) in [
        (
            json!([{ "event": "empty", "compare": "stable" }]),
            empty,
            true,
        ),
        (errors_compared(), failed(), false),
    ] {
        for share in [Share::percent(50.0), Share::ALL] {
            let mut rig = Rig::new(&objective);
            for user in 0..200 {
                rig.observe(Side::Stable, Unit::Sticky(user), good());
                rig.observe(Side::Candidate, Unit::Sticky(1_000 + user), good());
            }
            rig.share = share;
            if share == Share::ALL {
                rig.analyser.begin_promoting(rig.now);
            }
            // Ten milliseconds from one to the next.
            let found = (0..100).find(|user| {
                rig.observe(Side::Candidate, Unit::Sticky(5_000 + user), bad);
                rig.analyser.is_breached()
            });
            assert_eq!(
                found.is_some_and(|it| it < 12),
                at_once,
                "{objective} {share:?} {found:?}"
            );
        }
    }
}
