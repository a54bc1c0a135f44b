//! What people may ask of a release, and when.

use serde::{Deserialize, Serialize};

use super::{Action, Observed, Phase, Release, Why};
use crate::domain::words::words;
use crate::release::analysis::Verdict;

words! {
    /// What a person asks of a release.
    pub enum Command ("command to a release") {
        Pause = "pause",
        Resume = "resume",
        /// Leave out the remaining steps. Not the gate.
        Promote = "promote",
        /// Give it up: roll back, or if nothing has reached the candidate, just end.
        Abort = "abort",
        RollBack = "rollback",
    }
}

/// Why a command is not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    #[error("a release that {0} does not take \"{1}\"")]
    Phase(String, String),
    #[error("the approval gate is closed: {}", .0.join("; "))]
    Gate(Vec<String>),
    #[error(
        "an objective is broken: {0}; roll back, or resume first to overrule what was found so far"
    )]
    Breach(String),
}

/// The action that a command amounts to. What is so already is a [`Action::Wait`], so that asking twice is no error.
///
/// # Errors
/// The command makes no sense now, or may not be followed.
pub fn command(
    release: &Release,
    command: Command,
    observed: Observed<'_>,
) -> Result<Action, Refused> {
    let nothing = Action::Wait { until: None };
    let why = Why::Person;
    Ok(match (&release.phase, command) {
        (Phase::Running | Phase::Promoting, Command::Pause) => Action::Pause { why },
        (Phase::Paused { .. }, Command::Pause)
        | (Phase::Running | Phase::Promoting, Command::Resume)
        | (Phase::Promoting | Phase::Promoted, Command::Promote)
        | (
            Phase::RollingBack { .. } | Phase::RolledBack { .. },
            Command::RollBack | Command::Abort,
        )
        | (Phase::Aborted, Command::Abort) => nothing,
        (Phase::Paused { .. }, Command::Resume) => Action::Resume,
        (Phase::Running | Phase::Paused { .. }, Command::Promote) => {
            if observed.assessment.verdict == Verdict::Breach {
                return Err(Refused::Breach(observed.assessment.because()));
            }
            if !observed.gate.is_empty() {
                return Err(Refused::Gate(observed.gate.to_vec()));
            }
            Action::Promote
        }
        (Phase::Prepared, Command::Abort) => Action::Abort,
        (
            Phase::Running | Phase::Paused { .. } | Phase::Promoting,
            Command::Abort | Command::RollBack,
        ) => Action::RollBack { why },
        (phase, command) => return Err(Refused::Phase(phase.in_words(), command.to_string())),
    })
}

impl Phase {
    fn in_words(&self) -> String {
        match self {
            Self::Prepared => "has not begun",
            Self::Running => "is running",
            Self::Paused { .. } => "is paused",
            Self::Promoting => "is promoting",
            Self::Promoted => "was promoted",
            Self::RollingBack { .. } => "is rolling back",
            Self::RolledBack { .. } => "was rolled back",
            Self::Aborted => "was aborted",
        }
        .to_owned()
    }
}
