//! The rules of others, on the same traffic: a look a minute at a ratio over the last minute.
//!
//! Flagger's defaults: interval 60 s, rollback at the fifth failed check, a metric without data is a failed check, and failed checks add up
//! over a release (`pkg/controller/scheduler.go`). Argo Rollouts: interval 60 s, `failureLimit: 0`, the
//! first failed measurement ends it; one without data is inconclusive and ends nothing here. Both are given
//! their metrics without delay, and Flagger rolls back at the fifth failure rather than a tick after it,
//! so that the comparison errs in their favour.

use std::time::Duration;

use crate::release::analysis::{Bars, Facts};
use crate::release::strategy::{Event, Objective, Rule, Strategy};

const INTERVAL: Duration = Duration::from_secs(60);
/// The usual `request-success-rate: 99`, and a 99th percentile's hundredth.
const MAX_RATIO: f64 = 0.01;

#[derive(Debug, Clone)]
pub(super) struct Rival {
    checks: Vec<Check>,
    failures_left: u32,
    no_data_fails: bool,
    next: Duration,
    /// When it took the release back.
    pub(super) rolled_back: Option<Duration>,
}

#[derive(Debug, Clone)]
struct Check {
    event: Event,
    max_ratio: f64,
    events: u64,
    of: u64,
}

impl Rival {
    pub(super) fn flagger(strategy: &Strategy) -> Self {
        Self::new(strategy, 5, true)
    }

    pub(super) fn argo(strategy: &Strategy) -> Self {
        Self::new(strategy, 1, false)
    }

    fn new(strategy: &Strategy, failures: u32, no_data_fails: bool) -> Self {
        let check = |objective: &Objective| match objective {
            Objective::Event { event, rule, .. } => {
                let max_ratio = match rule {
                    Rule::MaxRatio(ratio) => *ratio,
                    // They compare with no one: what they have for errors and latencies is a threshold.
                    Rule::CompareStable if *event == Event::Error || event.is_latency() => {
                        MAX_RATIO
                    }
                    Rule::CompareStable => return None,
                };
                Some(Check {
                    event: *event,
                    max_ratio,
                    events: 0,
                    of: 0,
                })
            }
            _ => None,
        };
        Self {
            checks: strategy.objectives.iter().filter_map(check).collect(),
            failures_left: failures,
            no_data_fails,
            next: INTERVAL,
            rolled_back: None,
        }
    }

    /// A request of the candidate that finished.
    pub(super) fn observe(&mut self, facts: &Facts, bars: &Bars) {
        for check in &mut self.checks {
            if let Some(event) = facts.met(check.event, bars) {
                check.events += u64::from(event);
                check.of += 1;
            }
        }
    }

    /// Lets time pass. `since` is how long the candidate has had traffic.
    #[expect(clippy::cast_precision_loss, reason = "requests of a minute")]
    pub(super) fn tick(&mut self, since: Duration) {
        while since >= self.next && self.rolled_back.is_none() {
            let no_data_fails = self.no_data_fails;
            let failed = self.checks.iter().any(|check| match check.of {
                0 => no_data_fails,
                of => check.events as f64 / of as f64 > check.max_ratio,
            });
            if failed {
                self.failures_left -= 1;
                if self.failures_left == 0 {
                    self.rolled_back = Some(self.next);
                }
            }
            for check in &mut self.checks {
                (check.events, check.of) = (0, 0);
            }
            self.next += INTERVAL;
        }
    }
}
