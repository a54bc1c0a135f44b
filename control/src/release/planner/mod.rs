//! What a release does next: a pure function of its state, its strategy and the evidence.
//!
//! Whoever applies an action writes [`Release::after`] it and publishes the share; asked again at once, the planner
//! says something else or to wait. So a controller that is killed between the two, or that asks twice, ends where one does
//! that was not. Three things hold in every phase in which the candidate has traffic: a breach is answered first, a step is
//! left only through its own condition or by a person, and no share rises past the gate.

mod command;
mod waits;

use serde::{Deserialize, Serialize};

pub use command::{Command, Refused, command};
pub use waits::waits_for;

use super::analysis::{Assessment, Measure, Share, Verdict, Wanted};
use super::strategy::{DEFAULT_MIN_REQUESTS, OnBreach, OnInconclusive, Pause, Step, Strategy};
use crate::time::Timestamp;

/// Where a release stands. Kept in the database; all that a restarted controller needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    pub phase: Phase,
    /// The index of the step that is being done.
    pub step: usize,
    /// Whether a person has said that this step is done.
    pub passed: bool,
    /// When the step, or its extension, began.
    pub since: Timestamp,
    /// The candidate's share of the units.
    pub share: Share,
    /// The share of requests that are copied to the candidate.
    pub shadow: Share,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// The candidate is loaded, and nothing reaches it.
    Prepared,
    Running,
    /// Holds its share and waits for a person.
    Paused {
        why: Why,
        /// Whether it was promoting, and goes on so.
        promoting: bool,
    },
    /// All traffic is the candidate's, and stable is ready to take it back.
    Promoting,
    Promoted,
    RollingBack {
        why: Why,
    },
    RolledBack {
        why: Why,
    },
    Aborted,
}

/// What a pause or a rollback is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", content = "because", rename_all = "snake_case")]
pub enum Why {
    /// The strategy has a pause here.
    Step,
    Person,
    Breach(String),
    Inconclusive(String),
    /// What the approval gate misses.
    Gate(Vec<String>),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Nothing, until then or until something else changes.
    Wait {
        until: Option<Timestamp>,
    },
    /// Begin this step with this traffic.
    Enter {
        step: usize,
        share: Share,
        shadow: Share,
    },
    /// Give the analysis of this step its duration once more.
    Extend {
        because: String,
    },
    Pause {
        why: Why,
    },
    /// Go on where it was paused.
    Resume,
    /// All traffic to the candidate.
    Promote,
    /// No new request to the candidate.
    RollBack {
        why: Why,
    },
    /// What was begun has been done.
    Finish,
    /// Give up before anything reached the candidate.
    Abort,
}

impl Action {
    /// Whether it brings the candidate more requests, or copies of them, than it has: what the gate is asked before.
    #[must_use]
    pub fn raises(&self, release: &Release) -> bool {
        match self {
            Self::Promote => true,
            Self::Enter { share, shadow, .. } => {
                share.parts() > release.share.parts() || shadow.parts() > release.shadow.parts()
            }
            Self::Wait { .. }
            | Self::Extend { .. }
            | Self::Pause { .. }
            | Self::Resume
            | Self::RollBack { .. }
            | Self::Finish
            | Self::Abort => false,
        }
    }
}

/// What the planner looks at beside the state.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The analyser's, made with [`Release::wanted`].
    pub assessment: &'a Assessment,
    /// What the approval gate misses at this moment; empty when it is open.
    pub gate: &'a [String],
}

impl Release {
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self {
            phase: Phase::Prepared,
            step: 0,
            passed: false,
            since: now,
            share: Share::NONE,
            shadow: Share::NONE,
        }
    }

    /// What the step needs to pass, and can have.
    #[must_use]
    pub fn wanted(&self, strategy: &Strategy) -> Wanted {
        let step = strategy.steps.get(self.step);
        let requests = match step.filter(|_| !self.is_promoting()) {
            Some(Step::Analyse(analyse)) => analyse.min_requests.unwrap_or(DEFAULT_MIN_REQUESTS),
            _ => DEFAULT_MIN_REQUESTS,
        };
        let copies = self.shadow != Share::NONE;
        // An analysis of copies counts copies.
        let pairs = match step {
            Some(Step::Analyse(analyse)) if copies => analyse.min_requests.unwrap_or_default(),
            _ => 0,
        };
        Wanted {
            requests,
            pairs,
            answers: self.share != Share::NONE,
            copies,
        }
    }

    /// Whether requests, or copies of them, may reach the candidate, and it may still be taken back.
    #[must_use]
    pub const fn is_armed(&self) -> bool {
        matches!(
            self.phase,
            Phase::Running | Phase::Paused { .. } | Phase::Promoting
        )
    }

    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(
            self.phase,
            Phase::Promoted | Phase::RolledBack { .. } | Phase::Aborted
        )
    }

    const fn is_promoting(&self) -> bool {
        matches!(
            self.phase,
            Phase::Promoting
                | Phase::Paused {
                    promoting: true,
                    ..
                }
        )
    }

    /// The state after `action`.
    #[must_use]
    pub fn after(&self, action: &Action, now: Timestamp) -> Self {
        let mut next = self.clone();
        match action {
            Action::Wait { .. } => {}
            Action::Enter {
                step,
                share,
                shadow,
            } => {
                next = Self {
                    phase: Phase::Running,
                    step: *step,
                    passed: false,
                    since: now,
                    share: *share,
                    shadow: *shadow,
                };
            }
            Action::Extend { .. } => next.since = now,
            Action::Pause { why } => {
                next.phase = Phase::Paused {
                    why: why.clone(),
                    promoting: self.is_promoting(),
                };
            }
            Action::Resume => {
                // What a person resumes is done where the pause asked for their judgement of the step, and is
                // done anew where it was interrupted.
                next.passed |= matches!(
                    self.phase,
                    Phase::Paused {
                        why: Why::Step | Why::Inconclusive(_) | Why::Gate(_),
                        ..
                    }
                );
                next.phase = if self.is_promoting() {
                    Phase::Promoting
                } else {
                    Phase::Running
                };
                next.since = now;
            }
            Action::Promote => {
                next.phase = Phase::Promoting;
                next.share = Share::ALL;
                next.shadow = Share::NONE;
                next.since = now;
            }
            Action::RollBack { why } => {
                next.phase = Phase::RollingBack { why: why.clone() };
                next.share = Share::NONE;
                next.shadow = Share::NONE;
            }
            Action::Finish => {
                next.phase = match &self.phase {
                    Phase::Promoting => Phase::Promoted,
                    Phase::RollingBack { why } => Phase::RolledBack { why: why.clone() },
                    other => other.clone(),
                };
            }
            Action::Abort => next.phase = Phase::Aborted,
        }
        next
    }
}

/// The next action of a release.
#[must_use]
pub fn plan(
    release: &Release,
    strategy: &Strategy,
    observed: Observed<'_>,
    now: Timestamp,
) -> Action {
    if release.is_armed() && observed.assessment.verdict == Verdict::Breach {
        return on_breach(release, strategy, observed.assessment);
    }
    match &release.phase {
        Phase::Prepared => enter(0, release, strategy, observed),
        Phase::Running => run(release, strategy, observed, now),
        Phase::Promoting => {
            // Stable takes back what breaks in the first moments with all the traffic. What nobody asks for hurts nobody.
            let settled = release.since.after(strategy.settle);
            // Where nothing ends any more, traffic may be over, or hang.
            let watch = match observed.assessment.verdict {
                Verdict::NoData => strategy.longest_watch().min(strategy.settle * 2),
                Verdict::Pass | Verdict::Breach | Verdict::Inconclusive => strategy.longest_watch(),
            };
            let until = settled.after(watch);
            let waits_for = match now {
                now if now < settled => Some(settled),
                now if now < until && !is_judged(observed.assessment) => Some(until),
                _ => None,
            };
            match waits_for {
                Some(until) => Action::Wait { until: Some(until) },
                None => Action::Finish,
            }
        }
        Phase::RollingBack { .. } => Action::Finish,
        Phase::Paused { .. } | Phase::Promoted | Phase::RolledBack { .. } | Phase::Aborted => {
            Action::Wait { until: None }
        }
    }
}

/// Whether more requests would show more: each objective that can be judged has been, or there is no traffic to judge.
fn is_judged(assessment: &Assessment) -> bool {
    let requests = || {
        let asked = assessment.objectives.iter().filter(|it| it.asked);
        asked.filter_map(|it| match &it.measure {
            Measure::Requests {
                stable,
                candidate,
                judged_in_step,
                ..
            } => Some((stable.of + candidate.of, *judged_in_step)),
            Measure::Evaluation { .. } => None,
        })
    };
    match assessment.verdict {
        Verdict::Pass => true,
        // Some have nothing to judge, such as the time of a token where nothing is generated.
        Verdict::NoData => requests().all(|(seen, _)| seen == 0) || requests().any(|it| it.1 > 0),
        Verdict::Inconclusive | Verdict::Breach => false,
    }
}

fn on_breach(release: &Release, strategy: &Strategy, assessment: &Assessment) -> Action {
    let why = Why::Breach(assessment.because());
    match (strategy.on_breach, &release.phase) {
        (OnBreach::Rollback, _) => Action::RollBack { why },
        (
            OnBreach::Freeze,
            Phase::Paused {
                why: Why::Breach(_),
                ..
            },
        ) => Action::Wait { until: None },
        (OnBreach::Freeze, _) => Action::Pause { why },
    }
}

fn run(release: &Release, strategy: &Strategy, observed: Observed<'_>, now: Timestamp) -> Action {
    let next = || enter(release.step + 1, release, strategy, observed);
    if release.passed {
        return next();
    }
    let lasting = |lasts| {
        let until = release.since.after(lasts);
        if now < until {
            Action::Wait { until: Some(until) }
        } else {
            next()
        }
    };
    match strategy.steps.get(release.step) {
        None | Some(Step::Weight(_) | Step::Promote(_)) => next(),
        Some(Step::Shadow(shadow)) => {
            // No later step copies: what its pairs have to say is heard now, or never.
            let until = release.since.after(shadow.most());
            let judged = observed.assessment.lacking_copies().is_empty();
            if judged || now < release.since.after(shadow.lasts) {
                lasting(shadow.lasts)
            } else if now < until {
                Action::Wait { until: Some(until) }
            } else {
                inconclusive(strategy, observed.assessment)
            }
        }
        Some(Step::Pause(Pause { lasts: Some(lasts) })) => lasting(*lasts),
        Some(Step::Pause(Pause { lasts: None })) => Action::Pause { why: Why::Step },
        Some(Step::Analyse(analyse)) => {
            let until = release.since.after(analyse.max_duration);
            let passes = observed.assessment.verdict == Verdict::Pass;
            // With a number of requests the step may end early; without, it takes its time.
            match (passes, now < until) {
                (true, true) if analyse.min_requests.is_some() => next(),
                (true, false) => next(),
                (_, true) => Action::Wait { until: Some(until) },
                (false, false) => inconclusive(strategy, observed.assessment),
            }
        }
    }
}

fn inconclusive(strategy: &Strategy, assessment: &Assessment) -> Action {
    let because = format!("{}: {}", assessment.verdict, assessment.because());
    match strategy.on_inconclusive {
        OnInconclusive::Pause => Action::Pause {
            why: Why::Inconclusive(because),
        },
        OnInconclusive::Extend => Action::Extend { because },
    }
}

/// Begins a step, or promotes after the last. Whatever brings the candidate more requests, or copies of them, passes the
/// gate first.
fn enter(step: usize, release: &Release, strategy: &Strategy, observed: Observed<'_>) -> Action {
    let (share, shadow) = match strategy.steps.get(step) {
        Some(Step::Weight(percent)) => (Share::percent(*percent), Share::NONE),
        Some(Step::Shadow(shadow)) => (release.share, Share::percent(shadow.percent)),
        // An analysis right after copying goes on copying: its pairs are what it waits for.
        Some(Step::Analyse(_)) if release.share == Share::NONE => (release.share, release.shadow),
        Some(Step::Analyse(_) | Step::Pause(_)) => (release.share, Share::NONE),
        Some(Step::Promote(_)) | None => {
            return through_the_gate(Action::Promote, release, observed);
        }
    };
    let enter = Action::Enter {
        step,
        share,
        shadow,
    };
    through_the_gate(enter, release, observed)
}

fn through_the_gate(action: Action, release: &Release, observed: Observed<'_>) -> Action {
    if observed.gate.is_empty() || !action.raises(release) {
        return action;
    }
    match release.phase {
        // Nothing reaches the candidate, and nobody is to resume what has not begun.
        Phase::Prepared => Action::Abort,
        _ => Action::Pause {
            why: Why::Gate(observed.gate.to_vec()),
        },
    }
}

#[cfg(test)]
mod tests;
