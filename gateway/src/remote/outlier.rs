//! When a replica is left alone for a while: an outlier detector as one state
//! and one `match`. Pure; times are values.
//!
//! Failures in a row eject; after the ejection one request goes through as a
//! probe; its success readmits, its failure ejects for twice as long.

use std::time::{Duration, Instant};

/// When and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Failures in a row that eject; 0 is never.
    pub after: u32,
    /// First ejection.
    pub base: Duration,
    /// Longest ejection.
    pub max: Duration,
}

/// A replica's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlier {
    /// In use.
    Healthy {
        /// In a row, up to now.
        failures: u32,
        /// Ejections before this spell of health.
        ejections: u32,
        /// When the spell began; `None` when it has never been ejected.
        since: Option<Instant>,
    },
    /// Left alone.
    Ejected {
        /// Until then; afterwards one probe may go through.
        until: Instant,
        /// Including this one.
        ejections: u32,
    },
    /// One request is on its way to find out.
    Probing {
        /// Including the one that it may end.
        ejections: u32,
    },
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An answer that is not the replica's fault (a 4xx is the client's).
    Success,
    /// No connection, a lost connection, no answer in time, or a 5xx.
    Failure,
    /// The client left or its deadline passed: nothing is known.
    Unknown,
}

/// Whether a request may go to the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Open,
    /// One may, as the probe.
    Probe,
    /// No.
    Closed,
}

impl Default for Outlier {
    fn default() -> Self {
        Self::Healthy {
            failures: 0,
            ejections: 0,
            since: None,
        }
    }
}

impl Outlier {
    /// Whether a request may go.
    #[must_use]
    pub fn admission(&self, now: Instant) -> Admission {
        match self {
            Self::Healthy { .. } => Admission::Open,
            Self::Ejected { until, .. } if now >= *until => Admission::Probe,
            Self::Ejected { .. } | Self::Probing { .. } => Admission::Closed,
        }
    }

    /// Takes the probe's place; `false` if another request was first.
    pub fn begin_probe(&mut self, now: Instant) -> bool {
        match *self {
            Self::Ejected { until, ejections } if now >= until => {
                *self = Self::Probing { ejections };
                true
            }
            _ => false,
        }
    }

    /// Whether it is out of use, a probe included.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        !matches!(self, Self::Healthy { .. })
    }

    /// Whether nothing needs to be remembered: no failure since the last success.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Healthy { failures: 0, .. })
    }

    /// Takes note of an outcome. `may_eject` is whether the pool can spare it;
    /// `probe` whether the request was the probe.
    pub fn on(
        &mut self,
        event: Event,
        now: Instant,
        probe: bool,
        may_eject: bool,
        policy: &Policy,
    ) {
        *self = match (*self, event) {
            (Self::Probing { ejections }, Event::Success) if probe => Self::Healthy {
                failures: 0,
                ejections,
                since: Some(now),
            },
            (Self::Probing { ejections }, Event::Failure) if probe => {
                Self::eject(ejections, now, policy)
            }
            // The probe told nothing: the next request may be one.
            (Self::Probing { ejections }, Event::Unknown) if probe => Self::Ejected {
                until: now,
                ejections,
            },
            (
                Self::Healthy {
                    ejections, since, ..
                },
                Event::Success,
            ) => Self::Healthy {
                failures: 0,
                ejections,
                since,
            },
            (
                Self::Healthy {
                    failures,
                    ejections,
                    since,
                },
                Event::Failure,
            ) => {
                let failures = failures.saturating_add(1);
                if may_eject && policy.after > 0 && failures >= policy.after {
                    // A long spell of health wipes the slate.
                    let healthy = since.map(|since| now.saturating_duration_since(since));
                    let past = if healthy.is_some_and(|spell| spell > policy.max) {
                        0
                    } else {
                        ejections
                    };
                    Self::eject(past, now, policy)
                } else {
                    Self::Healthy {
                        failures,
                        ejections,
                        since,
                    }
                }
            }
            // Answers that were under way when it was ejected change nothing.
            (state, _) => state,
        };
    }

    fn eject(past: u32, now: Instant, policy: &Policy) -> Self {
        let factor = 1_u32.checked_shl(past).unwrap_or(u32::MAX);
        let spell = policy.base.saturating_mul(factor).min(policy.max);
        Self::Ejected {
            until: now + spell,
            ejections: past.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy {
        after: 3,
        base: Duration::from_secs(10),
        max: Duration::from_secs(60),
    };

    fn fail(outlier: &mut Outlier, now: Instant, times: u32) {
        for _ in 0..times {
            outlier.on(Event::Failure, now, false, true, &POLICY);
        }
    }

    #[test]
    fn only_failures_in_a_row_eject() {
        let (mut outlier, now) = (Outlier::default(), Instant::now());
        fail(&mut outlier, now, 2);
        outlier.on(Event::Success, now, false, true, &POLICY);
        fail(&mut outlier, now, 2);
        assert_eq!(outlier.admission(now), Admission::Open);
        fail(&mut outlier, now, 1);
        assert_eq!(outlier.admission(now), Admission::Closed);
    }

    #[test]
    fn one_probe_goes_through_and_its_success_readmits() {
        let (mut outlier, now) = (Outlier::default(), Instant::now());
        fail(&mut outlier, now, 3);
        let later = now + POLICY.base;
        assert_eq!(
            outlier.admission(later - Duration::from_millis(1)),
            Admission::Closed
        );
        assert_eq!(outlier.admission(later), Admission::Probe);
        assert!(outlier.begin_probe(later));
        assert!(!outlier.begin_probe(later));
        // A straggler from before the ejection is not the probe.
        outlier.on(Event::Success, later, false, true, &POLICY);
        assert_eq!(outlier.admission(later), Admission::Closed);
        outlier.on(Event::Success, later, true, true, &POLICY);
        assert_eq!(outlier.admission(later), Admission::Open);
    }

    #[test]
    fn ejections_double_up_to_the_longest_and_health_forgives() {
        let (mut outlier, mut now) = (Outlier::default(), Instant::now());
        fail(&mut outlier, now, 3);
        for expected in [10, 20, 40, 60, 60] {
            let Outlier::Ejected { until, .. } = outlier else {
                panic!("not ejected: {outlier:?}");
            };
            assert_eq!(until - now, Duration::from_secs(expected));
            now = until;
            assert!(outlier.begin_probe(now));
            outlier.on(Event::Failure, now, true, true, &POLICY);
        }
        now += POLICY.max;
        assert!(outlier.begin_probe(now));
        outlier.on(Event::Success, now, true, true, &POLICY);
        now += POLICY.max + Duration::from_secs(1);
        fail(&mut outlier, now, 3);
        assert!(matches!(outlier, Outlier::Ejected { until, .. } if until - now == POLICY.base));
    }

    #[test]
    fn a_probe_that_tells_nothing_makes_room_for_another() {
        let (mut outlier, now) = (Outlier::default(), Instant::now());
        fail(&mut outlier, now, 3);
        let later = now + POLICY.base;
        assert!(outlier.begin_probe(later));
        outlier.on(Event::Unknown, later, true, true, &POLICY);
        assert_eq!(outlier.admission(later), Admission::Probe);
    }

    #[test]
    fn a_pool_that_cannot_spare_it_keeps_it() {
        let (mut outlier, now) = (Outlier::default(), Instant::now());
        for _ in 0..100 {
            outlier.on(Event::Failure, now, false, false, &POLICY);
        }
        assert_eq!(outlier.admission(now), Admission::Open);
    }

    proptest! {
        /// Whatever happens, a replica is never shut out for longer than the
        /// longest ejection, and there is never more than one probe.
        #[test]
        fn no_replica_is_lost(steps in proptest::collection::vec((0_u8..5, 0_u64..20_000), 1..200)) {
            let (mut outlier, mut now) = (Outlier::default(), Instant::now());
            let mut probing = false;
            for (kind, ms) in steps {
                now += Duration::from_millis(ms);
                match kind {
                    0 => {
                        let began = outlier.begin_probe(now);
                        prop_assert!(!(began && probing));
                        probing |= began;
                    }
                    1 => outlier.on(Event::Success, now, false, true, &POLICY),
                    2 => outlier.on(Event::Failure, now, false, true, &POLICY),
                    _ if probing => {
                        let event = if kind == 3 { Event::Failure } else { Event::Unknown };
                        outlier.on(event, now, true, true, &POLICY);
                        probing = false;
                    }
                    _ => {}
                }
                let later = now + POLICY.max;
                prop_assert!(probing || outlier.admission(later) != Admission::Closed);
            }
        }
    }
}
