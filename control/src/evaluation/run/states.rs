//! What a run does to the records: its own states, and those of the version that it is about, each time in one
//! transaction.

use serde_json::Value;

use crate::domain::Verdict;
use crate::domain::model_version::{ModelVersionEvent as Event, ModelVersionState as State};
use crate::domain::record::{EvaluationRun, ModelVersion};
use crate::domain::run::{RunEvent, RunStatus};
use crate::domain::task::TaskState;
use crate::id::EvaluationRunId;
use crate::store::{AbandonedRun, Actor, Json, Store, StoreError, Stored, Tx};

pub(super) fn actor() -> Actor {
    Actor::system("evaluation")
}

/// The numbers that a run ends with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub(super) samples: i64,
    pub(super) scores: Value,
    /// `None` for a baseline.
    pub(super) verdict: Option<Verdict>,
    pub(super) report: Value,
}

/// The run begins, and so does the evaluation of its version, if that is where the version stands. A second attempt
/// finds both begun.
pub(super) async fn begin(
    store: &Store,
    id: EvaluationRunId,
) -> Result<Stored<EvaluationRun>, StoreError> {
    let mut tx = store.begin().await?;
    let mut run = tx.get::<EvaluationRun>(id).await?;
    if run.status == RunStatus::Queued {
        run = tx
            .transition::<EvaluationRun>(&actor(), id, None, RunEvent::Start, |_| {})
            .await?;
        let version = tx.get::<ModelVersion>(run.model_version).await?;
        if matches!(version.state, State::Registered | State::EvalFailed) {
            tx.transition::<ModelVersion>(&actor(), version.id, None, Event::Evaluate, |_| {})
                .await?;
        }
    }
    tx.commit().await?;
    Ok(run)
}

/// The run ends with its numbers. A version under evaluation has passed or failed by them; one that is elsewhere by now
/// stays there, and the run is evidence that the gate finds.
pub(super) async fn finish(
    store: &Store,
    id: EvaluationRunId,
    outcome: Outcome,
) -> Result<Stored<EvaluationRun>, StoreError> {
    let mut tx = store.begin().await?;
    let before = tx.get::<EvaluationRun>(id).await?;
    // An attempt that was thought lost was faster; the samples were the same.
    if before.status == RunStatus::Succeeded {
        return Ok(before);
    }
    let verdict = outcome.verdict;
    let run = tx
        .transition::<EvaluationRun>(
            &actor(),
            id,
            Some(before.version),
            RunEvent::Succeed,
            |it| {
                it.samples = outcome.samples;
                it.scores = Json(outcome.scores);
                it.verdict = outcome.verdict;
                it.report = Json(outcome.report);
            },
        )
        .await?;
    let version = tx.get::<ModelVersion>(run.model_version).await?;
    let same = version.digest.as_deref() == Some(&*run.artifact_digest);
    if let Some(verdict) = verdict
        && version.state == State::Evaluating
        && same
    {
        let event = match verdict {
            Verdict::Passed => Event::EvaluationPass,
            // Missing evidence is no evidence.
            Verdict::Failed | Verdict::Inconclusive => Event::EvaluationFail,
        };
        tx.transition::<ModelVersion>(&actor(), version.id, Some(version.version), event, |it| {
            it.evidence = Some(id);
        })
        .await?;
    }
    tx.commit().await?;
    Ok(run)
}

/// Ends the runs whose tasks have ended without them, and lets their versions go back to where they can be evaluated
/// again. Idempotent; any number of processes may do it.
///
/// # Errors
/// Only the database's own.
pub async fn settle(store: &Store) -> Result<usize, StoreError> {
    let abandoned = store.abandoned_runs().await?;
    let count = abandoned.len();
    for found in abandoned {
        match end(store, &found).await {
            // Somebody else was faster.
            Ok(()) | Err(StoreError::Stale { .. } | StoreError::IllegalTransition(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

async fn end(store: &Store, found: &AbandonedRun) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let (event, why) = match found.state {
        TaskState::Cancelled => (RunEvent::Cancel, "it was cancelled".to_owned()),
        _ => (RunEvent::Fail, failure(found)),
    };
    let run = tx
        .transition::<EvaluationRun>(&actor(), found.run, None, event, |it| {
            it.error = Some(why.clone());
        })
        .await?;
    give_back(&mut tx, &run, &why).await?;
    tx.commit().await
}

fn failure(found: &AbandonedRun) -> String {
    let message = found
        .error
        .as_ref()
        .and_then(|error| error.0["message"].as_str().map(str::to_owned));
    message.unwrap_or_else(|| format!("its task ended {}", found.state))
}

/// A version that nobody evaluates any more is registered, as before; nothing is said about it.
async fn give_back(tx: &mut Tx, run: &Stored<EvaluationRun>, why: &str) -> Result<(), StoreError> {
    let version = tx.get::<ModelVersion>(run.model_version).await?;
    if version.state != State::Evaluating || tx.is_being_evaluated(version.id).await? {
        return Ok(());
    }
    let actor = actor().because(format!("evaluation run {}: {why}", run.id));
    tx.transition::<ModelVersion>(
        &actor,
        version.id,
        Some(version.version),
        Event::Invalidate,
        |it| {
            it.evidence = None;
        },
    )
    .await?;
    Ok(())
}

/// Takes back what a run said. A version that rests on it and is not live is registered again.
///
/// # Errors
/// [`StoreError::Stale`], [`StoreError::Invalid`] for a run that has not said anything.
pub async fn withdraw(
    tx: &mut Tx,
    actor: &Actor,
    run: &Stored<EvaluationRun>,
    expected: i64,
) -> Result<Stored<EvaluationRun>, StoreError> {
    if run.status != RunStatus::Succeeded {
        let problem = format!(
            "a run that is {} is no evidence; cancel its task if it should stop",
            run.status
        );
        return Err(StoreError::invalid("status", problem));
    }
    let version = tx.get::<ModelVersion>(run.model_version).await?;
    let is_evidence = version.evidence == Some(run.id) || counts(tx, run, &version).await?;
    let now = tx.now();
    let stored = tx
        .update::<EvaluationRun>(actor, run.id, Some(expected), |it| {
            it.withdrawn_at = it.withdrawn_at.or(Some(now));
        })
        .await?;
    let rests_on_it = is_evidence
        && matches!(
            version.state,
            State::EvalPassed | State::EvalFailed | State::PendingApproval | State::Approved
        );
    if rests_on_it {
        tx.transition::<ModelVersion>(
            actor,
            version.id,
            Some(version.version),
            Event::Invalidate,
            |it| {
                it.approver = None;
                it.approved_at = None;
                it.evidence = None;
            },
        )
        .await?;
    }
    Ok(stored)
}

/// Whether it is the newest verdict of an evaluation that is required of the version.
async fn counts(
    tx: &mut Tx,
    run: &Stored<EvaluationRun>,
    version: &Stored<ModelVersion>,
) -> Result<bool, StoreError> {
    let verdicts = tx.verdicts_on(version.id).await?;
    let is_newest = verdicts
        .get(&run.evaluation)
        .is_some_and(|evidence| evidence.run == run.id);
    if !is_newest {
        return Ok(false);
    }
    let required = tx.required_of(version.model).await?;
    Ok(required
        .iter()
        .any(|((evaluation, _), history)| *evaluation == run.evaluation && history[0].required))
}
