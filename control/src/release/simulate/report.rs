//! Many simulated releases, summed up.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::thread;

use serde::{Deserialize, Serialize};
use statrs::distribution::{Beta, ContinuousCDF};

use super::run::{Ended, Run, Taken, run};
use super::source::{Recorded, mix};
use super::traffic::Traffic;
use crate::release::strategy::Strategy;

/// How often something happened, and between what its probability lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Chance {
    pub times: u64,
    pub of: u64,
    /// 95 %, after Clopper & Pearson.
    pub low: f64,
    pub high: f64,
}

/// The cost until somebody's rule took the release back. Where it did not in half of the runs, there is no median time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    pub rolled_back: Chance,
    pub median_s: Option<f64>,
    pub p90_s: Option<f64>,
    pub median_requests: u64,
    pub p90_requests: u64,
    pub median_users: u64,
    pub p90_users: u64,
}

/// What came of so many releases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub releases: u64,
    pub promoted: Chance,
    pub paused: Chance,
    pub unfinished: Chance,
    /// How long a promoted release took, in the median.
    pub promoted_after_s: Option<f64>,
    /// Which objectives took releases back or held them up, and how often.
    pub because: BTreeMap<String, u64>,
    pub sluice: Spent,
    pub flagger: Spent,
    pub argo: Spent,
}

/// What is told after each release that has been simulated, by whichever thread did it.
pub type Tick<'a> = &'a (dyn Fn() + Sync);

/// Simulates releases on all processors. The same seed gives the same runs, however many there are.
#[must_use]
pub fn simulate(
    strategy: &Strategy,
    traffic: &Traffic,
    recorded: &[Recorded],
    releases: u64,
    seed: u64,
    rivals: bool,
    tick: Tick<'_>,
) -> Summary {
    let workers = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let runs: Vec<Run> = thread::scope(|scope| {
        let worker = |first: u64| {
            let mine = (first..releases).step_by(usize::try_from(workers).unwrap_or(1));
            mine.map(|index| {
                let own_seed = mix(seed.wrapping_add(mix(index)));
                let run = run(strategy, traffic, recorded, own_seed, rivals);
                tick();
                run
            })
            .collect::<Vec<Run>>()
        };
        let handles: Vec<_> = (0..workers)
            .map(|first| scope.spawn(move || worker(first)))
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| match handle.join() {
                Ok(runs) => runs,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    Summary::new(&runs)
}

impl Chance {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2⁵² releases")]
    fn new(times: u64, of: u64) -> Self {
        let end = |a: u64, b: u64, p: f64, degenerate: f64| {
            Beta::new(a as f64, b as f64).map_or(degenerate, |beta| beta.inverse_cdf(p))
        };
        let misses = of.saturating_sub(times);
        Self {
            times,
            of,
            low: if times == 0 {
                0.0
            } else {
                end(times, misses + 1, 0.025, 0.0)
            },
            high: if misses == 0 {
                1.0
            } else {
                end(times + 1, misses, 0.975, 1.0)
            },
        }
    }

    /// The observed share.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2⁵² releases")]
    pub fn share(self) -> f64 {
        self.times as f64 / self.of.max(1) as f64
    }
}

impl Spent {
    fn new(taken: &[Taken]) -> Self {
        let mut times: Vec<f64> = taken
            .iter()
            .map(|it| it.after_s.unwrap_or(f64::INFINITY))
            .collect();
        times.sort_by(f64::total_cmp);
        let mut requests: Vec<u64> = taken.iter().map(|it| it.requests).collect();
        requests.sort_unstable();
        let mut users: Vec<u64> = taken.iter().map(|it| it.users).collect();
        users.sort_unstable();
        let time = |p| quantile(&times, p).filter(|it| it.is_finite());
        let back = taken.iter().filter(|it| it.after_s.is_some()).count();
        Self {
            rolled_back: Chance::new(back as u64, taken.len() as u64),
            median_s: time(0.5),
            p90_s: time(0.9),
            median_requests: quantile(&requests, 0.5).unwrap_or(0),
            p90_requests: quantile(&requests, 0.9).unwrap_or(0),
            median_users: quantile(&users, 0.5).unwrap_or(0),
            p90_users: quantile(&users, 0.9).unwrap_or(0),
        }
    }
}

impl Summary {
    fn new(runs: &[Run]) -> Self {
        let releases = runs.len() as u64;
        let count = |test: fn(&Ended) -> bool| {
            Chance::new(
                runs.iter().filter(|it| test(&it.ended)).count() as u64,
                releases,
            )
        };
        let mut because = BTreeMap::new();
        let mut promoted = Vec::new();
        for run in runs {
            match &run.ended {
                Ended::RolledBack { because: why } | Ended::Paused { because: why } => {
                    *because.entry(why.clone()).or_insert(0) += 1;
                }
                Ended::Promoted => promoted.push(run.after_s),
                Ended::Unfinished => {}
            }
        }
        promoted.sort_by(f64::total_cmp);
        let spent =
            |pick: fn(&Run) -> Taken| Spent::new(&runs.iter().map(pick).collect::<Vec<_>>());
        Self {
            releases,
            promoted: count(|it| matches!(it, Ended::Promoted)),
            paused: count(|it| matches!(it, Ended::Paused { .. })),
            unfinished: count(|it| matches!(it, Ended::Unfinished)),
            promoted_after_s: quantile(&promoted, 0.5),
            because,
            sluice: spent(|it| it.sluice),
            flagger: spent(|it| it.flagger),
            argo: spent(|it| it.argo),
        }
    }
}

/// Of sorted values: the least that so large a share of them does not exceed.
fn quantile<T: Copy>(sorted: &[T], p: f64) -> Option<T> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let index = (sorted.len() as f64 * p).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied()
}
