//! What became of one request, as the analysis of a release wants it: a value.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use sluice_engine::request::FinishReason;

use super::body::Kept;
use super::{Placement, answer};
use crate::Outcome;
use crate::context::Fault;
use crate::endpoint::Kind;
use crate::metrics::Completed;
use crate::metrics::observer::Record;
use crate::router::split::{Assignment, Side, Weight};

/// How a request ended, for the revision that it was put to.
///
/// Of a candidate's request that stable was asked again, the class is the candidate's, and
/// [`ReleaseOutcome::stable_answered`] says what stable made of the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// As asked.
    Answered,
    /// With something that is no answer by the endpoint's protocol: see [`crate::validate`].
    Broken,
    /// Refused by the model or its server (400, 402, 413, 422 …), where the gateway had let
    /// the request through. Of a candidate only where stable did not refuse it as well; of a
    /// stable revision nobody knows what the other would have said, so that this holds
    /// requests that could not have succeeded anywhere.
    Rejected,
    /// The request could not have succeeded: refused by this server, or by both revisions.
    ClientFault,
    /// The client left before the first token of a stream, or before any of another answer.
    /// How long it had waited is [`ReleaseOutcome::total`].
    Abandoned,
    /// The client left in the middle of the answer.
    Cancelled,
    /// The deadline that the client itself had set passed (`x-request-timeout-ms`), or could
    /// not be met from the beginning.
    OwnDeadline,
    /// Not in time (504).
    Timeout,
    /// In any other way (5xx, a connection that was lost, our own account's fault at an
    /// upstream: 401, 402, 403, 404, 407, 408, 429).
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
    /// Hash of the API key's id, under the release's salt; 0 without keys.
    pub key: u64,
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
            key: outcome
                .principal()
                .map_or(0, |principal| release.split().key_hash(&principal.key_id)),
            ended: record.ended,
            class: class(completed, outcome),
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
        if let Some((class, status)) = placement.failure() {
            return Self {
                class: class_of_failure(class, status, completed, outcome),
                status: status.as_u16(),
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

fn class(completed: &Completed, outcome: &Outcome) -> Class {
    let known = outcome.class();
    match completed.fault {
        None => Class::Answered,
        Some(Fault::Client) if known == Some(Class::Rejected) => Class::Rejected,
        Some(Fault::Client) => Class::ClientFault,
        Some(Fault::Cancelled) if outcome.ttft().is_none() => Class::Abandoned,
        Some(Fault::Cancelled) => Class::Cancelled,
        Some(Fault::Server) if completed.status == 504 => {
            whose_deadline(known.unwrap_or(Class::Timeout), completed, outcome)
        }
        Some(Fault::Server) => whose_deadline(known.unwrap_or(Class::Failed), completed, outcome),
    }
}

/// A deadline is the client's own if it has set one, and else the server's. One that had
/// passed by the end ended the request.
fn whose_deadline(class: Class, completed: &Completed, outcome: &Outcome) -> Class {
    match class {
        Class::OwnDeadline if !outcome.has_own_deadline() => Class::Failed,
        _ if outcome.is_past_own_deadline(completed.total) => Class::OwnDeadline,
        class => class,
    }
}

/// How a candidate's attempt ended that stable was asked again. Where stable refused the same
/// request as well, the request was at fault.
fn class_of_failure(
    class: Class,
    status: StatusCode,
    completed: &Completed,
    outcome: &Outcome,
) -> Class {
    let refused = (400..500).contains(&completed.status)
        && completed.fault != Some(Fault::Cancelled)
        && completed.status != 499;
    match class {
        Class::Rejected if refused => Class::ClientFault,
        Class::Failed if status.is_client_error() && status == completed.status => {
            Class::ClientFault
        }
        Class::OwnDeadline if !outcome.has_own_deadline() => Class::Failed,
        class => class,
    }
}

/// As `vllm:request_time_per_output_token_seconds`.
fn tpot(total: Duration, ttft: Option<Duration>, tokens: usize) -> Option<Duration> {
    let intervals = u32::try_from(tokens.checked_sub(1)?).ok()?;
    (intervals > 0).then_some(total.saturating_sub(ttft?) / intervals.max(1))
}
