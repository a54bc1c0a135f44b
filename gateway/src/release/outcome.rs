//! What became of one request, as the analysis of a release wants it: a value.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use sluice_engine::request::FinishReason;

use super::body::Kept;
use super::{Placement, answer};
use crate::context::Fault;
use crate::endpoint::Kind;
use crate::metrics::Completed;
use crate::metrics::observer::Record;
use crate::router::split::{Assignment, Side, Weight};

/// How a request ended, for the revision that it was put to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// As asked.
    Answered,
    /// The request could not have succeeded (4xx).
    ClientFault,
    /// The client hung up.
    Cancelled,
    /// Not in time (504).
    Timeout,
    /// In any other way (5xx, a stream that broke).
    Failed,
}

/// One request of a deployment under release.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseOutcome {
    /// [`crate::router::Release::id`].
    pub release: Arc<str>,
    /// Name of the deployment.
    pub deployment: Arc<str>,
    /// Revision that the request was put to; not the one that answered when `retried`.
    pub revision: Arc<str>,
    /// Which of the two that is.
    pub side: Side,
    /// Why it was put there.
    pub assignment: Assignment,
    /// The candidate's share when it was put there.
    pub weight: Weight,
    /// Hash of its unit.
    pub unit: u64,
    /// When it ended.
    pub ended: SystemTime,
    /// How it ended for that revision.
    pub class: Class,
    /// Status of that revision's answer; 499 when the client hung up before.
    pub status: u16,
    /// The candidate failed and stable was asked. Then only `class`, `status` and `total`
    /// (of both attempts) tell of the candidate; it gave no answer to describe.
    pub retried: bool,
    /// When it was retried: whether stable's answer was what had been asked for.
    pub stable_answered: bool,
    /// What was asked.
    pub kind: Kind,
    /// From the request's head to the first token.
    pub ttft: Option<Duration>,
    /// Mean time of an output token, the first excluded.
    pub tpot: Option<Duration>,
    /// From the request's head to the end of the answer.
    pub total: Duration,
    /// Prompt tokens.
    pub prompt_tokens: usize,
    /// Generated tokens.
    pub output_tokens: usize,
    /// Why the generation ended.
    pub finish: Option<FinishReason>,
    /// The answer had neither text nor calls.
    pub empty: bool,
    /// The model said that it would not: by the protocol's own sign, or by how the answer
    /// begins.
    pub refused: bool,
    /// JSON was asked for, or a call was made, and it is none.
    pub violation: bool,
}

impl ReleaseOutcome {
    pub(super) fn of(record: &Record, placement: &Placement, kept: Option<&Kept>) -> Self {
        let outcome = &record.context.outcome;
        let completed = &record.completed;
        let (release, pick) = (placement.release(), placement.pick());
        let revision = release.side(pick.side);
        let base = Self {
            release: Arc::clone(release.id()),
            deployment: Arc::clone(&revision.name),
            revision: Arc::clone(&revision.revision),
            side: pick.side,
            assignment: pick.assignment,
            weight: pick.weight,
            unit: pick.unit,
            ended: record.ended,
            class: class(completed),
            status: completed.status,
            retried: false,
            stable_answered: false,
            kind: completed.endpoint.kind,
            ttft: None,
            tpot: None,
            total: completed.total,
            prompt_tokens: 0,
            output_tokens: 0,
            finish: None,
            empty: false,
            refused: false,
            violation: false,
        };
        if let Some(failure) = placement.failure() {
            return Self {
                class: class_of_failure(failure, completed.status),
                status: failure.as_u16(),
                retried: true,
                stable_answered: completed.fault.is_none(),
                ..base
            };
        }
        let (usage, ttft, finish) = (outcome.usage(), outcome.ttft(), outcome.finish());
        let generated = completed.endpoint.kind.is_generation();
        let answered = base.class == Class::Answered && generated;
        let facts = kept
            .filter(|_| answered)
            .map(|kept| answer::Facts::of(kept, finish))
            .unwrap_or_default();
        Self {
            ttft,
            tpot: tpot(completed.total, ttft, usage.completion),
            prompt_tokens: usage.prompt,
            output_tokens: usage.completion,
            finish,
            empty: facts.empty,
            refused: facts.refused,
            violation: facts.violation,
            ..base
        }
    }
}

fn class(completed: &Completed) -> Class {
    match completed.fault {
        None => Class::Answered,
        Some(Fault::Client) => Class::ClientFault,
        Some(Fault::Cancelled) => Class::Cancelled,
        Some(Fault::Server) if completed.status == 504 => Class::Timeout,
        Some(Fault::Server) => Class::Failed,
    }
}

/// `after` is how stable ended: where it refused the same request with the same 4xx, the
/// request was at fault.
fn class_of_failure(failure: StatusCode, after: u16) -> Class {
    if failure.is_client_error() && failure == after {
        Class::ClientFault
    } else if failure == StatusCode::GATEWAY_TIMEOUT {
        Class::Timeout
    } else {
        Class::Failed
    }
}

/// As `vllm:request_time_per_output_token_seconds`.
fn tpot(total: Duration, ttft: Option<Duration>, tokens: usize) -> Option<Duration> {
    let intervals = u32::try_from(tokens.checked_sub(1)?).ok()?;
    (intervals > 0).then_some(total.saturating_sub(ttft?) / intervals.max(1))
}
