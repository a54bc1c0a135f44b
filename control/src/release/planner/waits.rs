//! What a release waits for, in words: whoever sees one stand still must not have to guess.

use super::{Phase, Release};
use crate::release::analysis::Assessment;
use crate::release::strategy::{Pause, Step, Strategy};
use crate::time::Timestamp;

/// What has to happen before a release goes on, and until when it is waited for. `assessment` is `None` where the
/// candidate is not loaded. `None` for what is over.
#[must_use]
pub fn waits_for(
    release: &Release,
    strategy: &Strategy,
    assessment: Option<&Assessment>,
) -> Option<String> {
    match &release.phase {
        // What for is said by the pause itself.
        Phase::Paused { .. } => Some("a person, to resume or to take it back".to_owned()),
        Phase::Prepared | Phase::Running | Phase::Promoting if assessment.is_none() => {
            Some("the candidate to be loaded by the server that drives the release".to_owned())
        }
        Phase::Running => running(release, strategy, assessment?),
        Phase::Promoting => Some(promoting(release, strategy, assessment?)),
        Phase::RollingBack { .. } => Some("the records to say that it was taken back".to_owned()),
        Phase::Prepared | Phase::Promoted | Phase::RolledBack { .. } | Phase::Aborted => None,
    }
}

fn running(release: &Release, strategy: &Strategy, assessment: &Assessment) -> Option<String> {
    let after = |lasts| release.since.after(lasts);
    if release.passed {
        return None;
    }
    match strategy.steps.get(release.step)? {
        Step::Shadow(shadow) => {
            let least = after(shadow.lasts);
            let lacks = assessment.lacking_copies();
            Some(if lacks.is_empty() || assessment.at < least {
                time(least)
            } else {
                at_most(&lacks, after(shadow.most()))
            })
        }
        Step::Analyse(analyse) => {
            let until = after(analyse.max_duration);
            let lacks = assessment.lacking();
            Some(match (lacks.is_empty(), analyse.min_requests) {
                (false, _) => at_most(&lacks, until),
                (true, None) => time(until),
                (true, Some(_)) => return None,
            })
        }
        Step::Pause(Pause { lasts: Some(lasts) }) => Some(time(after(*lasts))),
        Step::Pause(Pause { lasts: None }) | Step::Weight(_) | Step::Promote(_) => None,
    }
}

fn promoting(release: &Release, strategy: &Strategy, assessment: &Assessment) -> String {
    let settled = release.since.after(strategy.settle);
    let lacks = assessment.lacking();
    if lacks.is_empty() || assessment.at < settled {
        time(settled)
    } else {
        at_most(&lacks, settled.after(strategy.longest_watch()))
    }
}

fn time(until: Timestamp) -> String {
    format!("the end of its time at {}", clock(until))
}

fn at_most(what: &str, until: Timestamp) -> String {
    format!("{what}; until {} at most", clock(until))
}

/// To the second, which is how people read clocks.
fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    let whole = text.get(..19).unwrap_or(&text);
    format!("{} UTC", whole.replace('T', " "))
}
