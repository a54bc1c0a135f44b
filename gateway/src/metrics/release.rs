//! What a control plane knows of releases, read at scrape time.

use std::sync::Arc;

use metrics::Label;

use super::exposition::{Exposition, Kind, Value};
use crate::release::ReleaseSink;

/// One objective of a release as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// Name of the deployment.
    pub deployment: Arc<str>,
    /// The candidate.
    pub revision: Arc<str>,
    /// The objective in words.
    pub objective: String,
    /// One of [`VERDICTS`].
    pub verdict: String,
    /// The e-value and where it becomes a breach, for objectives that are tested.
    pub evidence: Option<(f64, f64)>,
}

/// What an analysis may say.
pub const VERDICTS: [&str; 4] = ["pass", "breach", "inconclusive", "no_data"];

/// Why a candidate was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenBack {
    /// An objective was broken.
    Breach,
    /// Somebody asked.
    Person,
    /// What it was approved by was withdrawn.
    Gate,
}

impl TakenBack {
    pub(super) const ALL: [(Self, &'static str); 3] = [
        (Self::Breach, "breach"),
        (Self::Person, "person"),
        (Self::Gate, "gate"),
    ];
}

pub(super) fn collect(into: &mut Exposition, sink: &dyn ReleaseSink) {
    const VERDICT: &str = "sluice_release_verdict";
    const EVIDENCE: &str = "sluice_release_evidence";
    const LIMIT: &str = "sluice_release_evidence_limit";
    for (name, help) in [
        (
            VERDICT,
            "1 for the verdict that stands on an objective of a release, 0 for the others.",
        ),
        (
            EVIDENCE,
            "Evidence against the candidate (e-value), by objective.",
        ),
        (LIMIT, "The e-value that is a breach of the objective."),
    ] {
        into.declare(name, Kind::Gauge, help);
    }
    for found in sink.objectives() {
        let labels = vec![
            Label::new("deployment", found.deployment.to_string()),
            Label::new("revision", found.revision.to_string()),
            Label::new("objective", found.objective),
        ];
        for verdict in VERDICTS {
            let mut labels = labels.clone();
            labels.push(Label::new("verdict", verdict));
            let stands = f64::from(u8::from(found.verdict == verdict));
            into.push(VERDICT, labels, Value::Number(stands));
        }
        if let Some((e_value, limit)) = found.evidence {
            into.push(EVIDENCE, labels.clone(), Value::Number(e_value));
            into.push(LIMIT, labels, Value::Number(limit));
        }
    }
}
