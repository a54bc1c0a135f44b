#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use super::*;
use crate::context::Owner;

fn percent(percent: f64) -> Weight {
    Weight::percent(percent).unwrap()
}

fn by_user(weight: Weight) -> Split {
    Split::new(SplitConfig {
        salt: "helpdesk".to_owned(),
        weight,
        sticky: vec![StickyKey::User],
        ..SplitConfig::default()
    })
}

fn pick(split: &Split, user: &str) -> Pick {
    split.pick(&Subject {
        headers: &HeaderMap::new(),
        user: Some(user),
        principal: None,
    })
}

fn principal(name: &str) -> Principal {
    Principal {
        key_id: format!("key-of-{name}").into(),
        name: name.into(),
        priority: sluice_engine::request::Priority::Normal,
        models: None,
        role: None,
        owner: Some(Arc::new(Owner {
            department: "support".into(),
            ..Owner::default()
        })),
        rights: crate::access::Rights::default(),
    }
}

/// A million users' sides, by weight.
#[test]
fn a_share_is_right_to_a_thousandth() {
    const UNITS: u32 = 1_000_000;
    let split = by_user(Weight::NONE);
    let users: Vec<u64> = (0..UNITS)
        .map(|user| pick(&split, &format!("user-{user}")).unit)
        .collect();
    for weight in [0.01, 1.0, 5.0, 10.0, 50.0, 99.0] {
        let weight = percent(weight);
        for (what, share) in [
            (
                "weight",
                users.iter().filter(|unit| weight.holds(**unit)).count(),
            ),
            (
                "shadow",
                users
                    .iter()
                    .filter(|unit| weight.holds(other_place(**unit)))
                    .count(),
            ),
        ] {
            let share = share as f64 / f64::from(UNITS);
            let off = (share - weight.share()).abs();
            assert!(off <= 0.001, "{what} {} is {share}", weight.share());
        }
    }
}

/// Pearson's test over 100 bins: 148.2 is the 99.9th percentile of chi-square with 99
/// degrees of freedom.
#[test]
fn units_lie_evenly() {
    const UNITS: usize = 1_000_000;
    for (salt, place) in [
        ("a", (|unit| unit) as fn(u64) -> u64),
        ("b", |unit| unit),
        ("a", other_place),
    ] {
        let split = Split::new(SplitConfig {
            salt: salt.to_owned(),
            sticky: vec![StickyKey::User],
            ..SplitConfig::default()
        });
        let mut bins = [0_f64; 100];
        for user in 0..UNITS {
            let unit = place(pick(&split, &user.to_string()).unit);
            bins[((u128::from(unit) * 100) >> 64) as usize] += 1.0;
        }
        let expected = UNITS as f64 / 100.0;
        let chi_square: f64 = bins.iter().map(|n| (n - expected).powi(2) / expected).sum();
        assert!(chi_square < 148.2, "{chi_square} with salt {salt}");
    }
}

/// Who is copied says nothing about who is moved: a quarter of the units at half and half.
#[test]
fn shadow_and_weight_are_independent() {
    let half = percent(50.0);
    let split = by_user(half);
    let both = (0..100_000)
        .map(|user| pick(&split, &format!("user-{user}")).unit)
        .filter(|unit| half.holds(*unit) && half.holds(other_place(*unit)))
        .count();
    assert!((24_500..25_500).contains(&both), "{both}");
}

/// Fixed for good: another build or node must not move a unit. The number is that of
/// another implementation: SipHash-1-3 of "\0alice", the first 16 bytes of
/// SHA-256("helpdesk") being the key, as two big-endian words.
#[test]
fn the_hash_is_the_same_everywhere() {
    let unit = pick(&by_user(Weight::NONE), "alice").unit;
    assert_eq!(unit, 0xf73d_f75e_240d_61bf, "{unit:#x}");
}

#[test]
fn the_first_key_present_counts() {
    let split = Split::new(SplitConfig {
        sticky: ["x-session-id", "user", "api_key"]
            .map(|key| key.parse().unwrap())
            .to_vec(),
        ..SplitConfig::default()
    });
    let session = |id| {
        HeaderMap::from_iter([(
            "x-session-id".parse().unwrap(),
            HeaderValue::from_static(id),
        )])
    };
    let none = HeaderMap::new();
    let key = principal("ann");
    let unit = |headers: &HeaderMap, user, principal| {
        split
            .pick(&Subject {
                headers,
                user,
                principal,
            })
            .unit
    };
    let by_session = unit(&session("s1"), Some("u1"), Some(&key));
    assert_eq!(by_session, unit(&session("s1"), None, None));
    let by_user = unit(&none, Some("u1"), Some(&key));
    assert_eq!(by_user, unit(&none, Some("u1"), None));
    let by_key = unit(&none, None, Some(&key));
    assert_eq!(
        by_key,
        unit(&none, Some(""), Some(&key)),
        "nothing is no user"
    );
    // The same word as a session and as a user is two units.
    assert_ne!(unit(&session("u1"), None, None), by_user);
    // Without any, each request is a unit of its own.
    assert_ne!(unit(&none, None, None), unit(&none, None, None));
}

#[test]
fn cohorts_go_to_the_candidate_whatever_the_weight() {
    let split = Split::new(SplitConfig {
        cohorts: vec![
            Cohort::headers([("x-sluice-cohort", "beta")]).unwrap(),
            Cohort::Principals(["qa-team".into(), "support".into()].into()),
        ],
        ..SplitConfig::default()
    });
    let pick = |value: Option<&'static str>, principal: Option<&Principal>| {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert("x-sluice-cohort", HeaderValue::from_static(value));
        }
        split.pick(&Subject {
            headers: &headers,
            user: None,
            principal,
        })
    };
    let department_only = principal("ann");
    let by_name = Principal {
        owner: None,
        ..principal("qa-team")
    };
    let nobody = Principal {
        owner: None,
        ..principal("ann")
    };
    for (value, principal, side) in [
        (Some("beta"), None, Side::Candidate),
        (Some("alpha"), None, Side::Stable),
        (None, Some(&by_name), Side::Candidate),
        (None, Some(&department_only), Side::Candidate),
        (None, Some(&nobody), Side::Stable),
    ] {
        let pick = pick(value, principal);
        assert_eq!(pick.side, side, "{value:?} {principal:?}");
        let cohort = side == Side::Candidate;
        assert_eq!(pick.assignment == Assignment::Cohort, cohort);
    }
}

#[test]
fn only_requests_to_stable_are_copied() {
    let split = by_user(percent(50.0)).with(percent(50.0), Weight::ALL);
    for user in 0..1000 {
        let pick = pick(&split, &user.to_string());
        assert_eq!(pick.shadow, pick.side == Side::Stable);
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for weight in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
        let error = Weight::percent(weight).unwrap_err().to_string();
        assert!(error.contains("from 0 to 100"), "{error}");
    }
    assert_eq!(percent(0.0001), Weight(1));
    assert_eq!(percent(100.0), Weight::ALL);
    let error = "no header".parse::<StickyKey>().unwrap_err().to_string();
    assert!(
        error.contains("`no header`") && error.contains("api_key"),
        "{error}"
    );
    assert!(Cohort::headers([("x y", "z")]).is_err() && Cohort::headers([("x", "\n")]).is_err());
}

#[test]
fn picking_allocates_nothing() {
    let split = Split::new(SplitConfig {
        weight: percent(5.0),
        shadow: percent(20.0),
        cohorts: vec![
            Cohort::headers([("x-sluice-cohort", "beta")]).unwrap(),
            Cohort::Principals(["qa-team".into()].into()),
        ],
        sticky: ["x-session-id", "user", "api_key"]
            .map(|key| key.parse().unwrap())
            .to_vec(),
        ..SplitConfig::default()
    });
    let mut headers = HeaderMap::new();
    headers.insert("x-session-id", HeaderValue::from_static("session-1"));
    let key = principal("ann");
    let subject = Subject {
        headers: &headers,
        user: Some("ann"),
        principal: Some(&key),
    };
    let counted = allocation_counter::measure(|| {
        std::hint::black_box(split.pick(std::hint::black_box(&subject)));
    });
    assert_eq!(counted.count_total, 0);
}

proptest! {
    /// A unit's side depends on its place only: whatever the steps in between, it is with
    /// the candidate from one weight on and never below it.
    #[test]
    fn a_weight_only_adds_units_and_takes_the_last_back_first(
        salt in "[a-z]{0,8}", user in ".{1,40}", steps in proptest::collection::vec(0_u32..=PLACES, 1..20)
    ) {
        let base = Split::new(SplitConfig { salt, sticky: vec![StickyKey::User], ..SplitConfig::default() });
        let mut place = 0..PLACES + 1;
        while place.start < place.end {
            let middle = place.start + (place.end - place.start) / 2;
            let side = pick(&base.with(Weight(middle), Weight::NONE), &user).side;
            match side {
                Side::Stable => place.start = middle + 1,
                Side::Candidate => place.end = middle,
            }
        }
        let place = place.start;
        for weight in steps {
            let side = pick(&base.with(Weight(weight), Weight::NONE), &user).side;
            prop_assert_eq!(side == Side::Candidate, weight >= place);
        }
        prop_assert!(place > 0, "nobody is with a candidate of weight 0");
        prop_assert!(place <= PLACES, "everybody is with one of 100 %");
    }

    #[test]
    fn units_of_other_salts_are_other_units(salt in "[a-z]{1,8}", user in ".{1,40}") {
        let other = Split::new(SplitConfig { salt, sticky: vec![StickyKey::User], ..SplitConfig::default() });
        prop_assert_ne!(pick(&other, &user).unit, pick(&by_user(Weight::NONE), &user).unit);
    }
}
