//! Releases as the API tells of them: what is printed for people is made from these alone.

use serde::Deserialize;
use serde_json::Value;
use sluice_control::domain::record::DecisionKind;
use sluice_control::release::analysis::{Evidence, QuantilePair, Verdict};
use sluice_control::release::planner::{Action, Release, Why};
use sluice_control::release::strategy::Step;
use sluice_control::time::Timestamp;

/// A release; of a list, without steps and evidence.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct View {
    pub id: String,
    pub endpoint: String,
    pub state: String,
    /// `None` before the candidate is prepared.
    pub phase: Option<String>,
    pub why: Option<Why>,
    /// Who paused it, and what was said to that; an older server does not tell.
    #[serde(default)]
    pub paused_by: Option<String>,
    #[serde(default)]
    pub paused_because: Option<String>,
    pub waits_for: Option<String>,
    pub step: usize,
    #[serde(default)]
    pub step_count: usize,
    #[serde(default)]
    pub steps: Vec<Value>,
    pub step_text: String,
    pub since: Option<Timestamp>,
    /// Percent of the units.
    pub weight: f64,
    /// Percent of the requests that are copied.
    pub shadow: f64,
    pub stable: Option<Revision>,
    pub candidate: Revision,
    pub reason: String,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub ended_because: Option<String>,
    #[serde(default)]
    pub evidence: Option<Gathered>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Revision {
    version: String,
    /// Empty before there is one.
    revision: String,
}

/// What one process knows of a candidate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Gathered {
    pub process: String,
    pub at: Timestamp,
    pub verdict: Verdict,
    pub objectives: Vec<Evidence>,
    pub quantiles: Vec<QuantilePair>,
    pub requests: Requests,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Requests {
    pub stable: u64,
    pub candidate: u64,
}

/// A line of a release's history.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Decision {
    pub at: Timestamp,
    pub actor: String,
    pub kind: DecisionKind,
    pub action: Option<Action>,
    pub reason: Option<String>,
    /// The release after it.
    pub state: Release,
    pub evidence: Option<Gathered>,
}

/// Two answers to one request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Pair {
    pub at: Timestamp,
    pub request_id: String,
    pub agrees: bool,
    /// From 0 to 1.
    pub similarity: f64,
    pub how: String,
    /// The request's body, or the beginning of it.
    pub request: String,
    pub live: Answer,
    pub candidate: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Answer {
    pub revision: String,
    pub status: u16,
    pub failed: bool,
    pub text: String,
    /// The text goes on.
    pub cut: bool,
    pub tokens: u64,
    pub finish: Option<String>,
    pub ttft_us: Option<u64>,
    pub total_us: u64,
}

/// How a release ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Promoted,
    /// Rolled back, aborted, rejected.
    NotPromoted,
}

impl View {
    /// `None` while it goes on.
    pub(super) fn end(&self) -> Option<End> {
        match (self.phase.as_deref(), self.state.as_str()) {
            (Some("promoted"), _) => Some(End::Promoted),
            (Some("rolled_back" | "aborted"), _) => Some(End::NotPromoted),
            (_, "promoted") if self.finished_at.is_some() => Some(End::Promoted),
            _ => self.finished_at.map(|_| End::NotPromoted),
        }
    }

    /// The steps in words.
    pub(super) fn steps(&self) -> Vec<String> {
        self.steps.iter().map(step).collect()
    }
}

fn step(value: &Value) -> String {
    match Step::deserialize(value) {
        Ok(step) => step.to_string(),
        // A newer server's.
        Err(_) => value.to_string(),
    }
}

impl Revision {
    /// What answers say in `x-sluice-revision`; before there is one, the version.
    pub(super) fn name(&self) -> &str {
        match self.revision.as_str() {
            "" => &self.version,
            revision => revision,
        }
    }
}
