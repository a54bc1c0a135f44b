//! What it costs to allow for pauses: how many good releases are taken back, against how soon a bad one is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::report::{Chance, Spent, Tick, simulate};
use super::traffic::{Change, Stops, Traffic};
use crate::release::strategy::{Analyse, Pauses, Step, Strategy};

/// How long a release is watched, in the table of false rollbacks and in that of true ones.
const LASTS: Duration = Duration::from_secs(480);
/// The weights at which good releases are watched, in percent.
pub const WEIGHTS: [f64; 3] = [5.0, 25.0, 50.0];

/// A setting, and what it comes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub name: String,
    pub pauses: Pauses,
    /// Good releases that were taken back, at each of [`WEIGHTS`], while each side stopped about once a minute for
    /// 0.2 to 2 s by itself.
    pub good: Vec<Chance>,
    /// At 100 requests a second, 5 %, and errors of 20 % instead of 0.5 %.
    pub bad: Spent,
}

/// The settings that the table has, by name; the default is among them.
#[must_use]
pub fn settings() -> Vec<(String, Pauses)> {
    let of = |every: u64, strict| Pauses {
        every: Duration::from_secs(every),
        strict,
        ..Pauses::default()
    };
    let blind = Pauses {
        every: Duration::from_secs(365 * 86_400),
        longest: Duration::from_millis(1),
        strict: false,
    };
    vec![
        ("as if there were none".into(), blind),
        ("every 10m".into(), of(600, false)),
        ("every 1m (default)".into(), of(60, false)),
        ("every 20s".into(), of(20, false)),
        ("every 5m, strict".into(), of(300, true)),
        ("every 1m, strict".into(), of(60, true)),
    ]
}

/// How many releases one setting takes, for each that is asked for.
pub const PARTS: u64 = WEIGHTS.len() as u64 + 1;

/// Simulates one setting: the default strategy with these pauses allowed for, at one weight that is held.
#[must_use]
pub fn point(name: &str, pauses: &Pauses, releases: u64, seed: u64, tick: Tick<'_>) -> Point {
    let strategy = |weight| Strategy {
        steps: vec![
            Step::Weight(weight),
            Step::Analyse(Analyse {
                min_requests: None,
                max_duration: LASTS * 2,
            }),
        ],
        pauses: pauses.clone(),
        ..Strategy::default()
    };
    let traffic = Traffic {
        rate: 100.0,
        lasts: LASTS,
        users: 10_000,
        ..Traffic::default()
    };
    let good = Traffic {
        pauses: Some(Stops {
            every: Duration::from_secs(60),
            shortest: Duration::from_millis(200),
            longest: Duration::from_secs(2),
            error: 1.0,
        }),
        ..traffic.clone()
    };
    let bad = Traffic {
        candidate: Change {
            error: 0.196,
            ..Change::default()
        },
        ..traffic
    };
    let back = |weight| {
        let strategy = strategy(weight);
        let summary = simulate(&strategy, &good, &[], releases, seed, false, tick);
        summary.sluice.rolled_back
    };
    Point {
        name: name.to_owned(),
        pauses: pauses.clone(),
        good: WEIGHTS.map(back).to_vec(),
        bad: simulate(&strategy(5.0), &bad, &[], releases, seed, false, tick).sluice,
    }
}
