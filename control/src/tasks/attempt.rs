//! The life of one attempt: its start, its heartbeats, its end and what follows it.
//!
//! Every move locks the task's row, asks [`TaskState`] whether the event is legal, and appends it to
//! the task's journal in the same transaction.

use std::time::Duration;

use serde_json::Value as Json;
use sqlx::AssertSqlSafe;

use super::follow::follow;
use super::journal::append_move;
use super::queue::{Claim, Queue};
use super::{TaskError, TaskFailure};
use crate::domain::machine::Machine as _;
use crate::domain::record;
use crate::domain::task::{TaskEvent, TaskState, may_retry};
use crate::id::TaskId;
use crate::store::{
    self, Column as _, Dialect, Record as _, StoreError, Stored, Tx, arguments, read,
};

/// How an attempt came to its end.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ending {
    Succeeded(Json),
    Failed(TaskFailure),
    TimedOut(TaskFailure),
    /// Its worker is silent for longer than a lease.
    Lost,
    /// Its worker is leaving; the attempt does not count.
    GivenBack,
    /// Its worker was told to stop it, and did.
    Cancelled,
}

impl Ending {
    /// As it stands in the list of attempts.
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Succeeded(_) => "succeeded",
            Self::Failed(_) => "failed",
            Self::TimedOut(_) => "timed_out",
            Self::Lost => "lost",
            Self::GivenBack => "given_back",
            Self::Cancelled => "cancelled",
        }
    }

    fn failure(&self) -> Option<TaskFailure> {
        match self {
            Self::Failed(failure) | Self::TimedOut(failure) => Some(failure.clone()),
            Self::Lost => Some(TaskFailure::passing(
                "lost",
                "the worker stopped answering; it was killed, or its machine or network is gone",
            )),
            Self::Succeeded(_) | Self::GivenBack | Self::Cancelled => None,
        }
    }

    /// The events that this end means for a task in `state`; `again`: another attempt follows.
    fn events(&self, state: TaskState, again: bool) -> Vec<TaskEvent> {
        let first = match (state, self) {
            (TaskState::Cancelling, _) => return vec![TaskEvent::Stop],
            (TaskState::Claimed, _) => return vec![TaskEvent::LeaseExpire],
            (_, Self::Succeeded(_)) => return vec![TaskEvent::Succeed],
            (_, Self::Cancelled) => return vec![TaskEvent::Cancel, TaskEvent::Stop],
            (_, Self::Lost | Self::GivenBack) if !again => {
                return vec![TaskEvent::Lose, TaskEvent::Fail];
            }
            (_, Self::Lost | Self::GivenBack) => TaskEvent::Lose,
            (_, Self::Failed(_)) => TaskEvent::Fail,
            (_, Self::TimedOut(_)) => TaskEvent::TimeOut,
        };
        if again {
            vec![first, TaskEvent::Retry]
        } else {
            vec![first]
        }
    }
}

impl Queue {
    /// Begins the attempt; its timeout counts from here.
    ///
    /// # Errors
    /// [`TaskError::Fenced`] if the claim was lost meanwhile, or the task cancelled.
    pub async fn start(&self, claim: &mut Claim) -> Result<(), TaskError> {
        let mut tx = self.store.begin().await?;
        let now = tx.now();
        let held = self.held(&mut tx, claim).await?;
        if held.state == TaskState::Cancelling {
            return Err(fenced(claim));
        }
        let lease = now.after(self.settings.lease);
        let task = advance(&mut tx, &held, TaskEvent::Start, |task| {
            task.started_at.get_or_insert(now);
            task.lease_until = Some(lease);
            task.deadline_at = task
                .timeout_us
                .map(|us| now.after(Duration::from_micros(us.unsigned_abs())));
            task.progress_fraction = Some(0.0);
            task.progress_message = None;
        })
        .await?;
        sqlx::query_with(
            "UPDATE task_attempts SET started_at = $1 WHERE task = $2 AND attempt = $3",
            arguments([
                now.to_value(),
                claim.id.to_value(),
                claim.attempt().to_value(),
            ])?,
        )
        .execute(tx.connection())
        .await?;
        tx.commit().await?;
        self.changed(claim.id);
        claim.task = task.record;
        Ok(())
    }

    /// Renews the leases of all that `worker` holds, and says what that is now.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn heartbeat(
        &self,
        worker: &str,
    ) -> Result<Vec<(TaskId, i64, TaskState)>, TaskError> {
        let mut tx = self.store.begin().await?;
        let now = tx.now();
        // Without a new version: a heartbeat is no change that somebody else's edit could overlook.
        let rows = sqlx::query_with(
            "UPDATE tasks SET lease_until = $1, heartbeat_at = $2 WHERE worker = $3 AND finished_at IS NULL \
             AND lease_until IS NOT NULL RETURNING id, fencing_token, state",
            arguments([
                now.after(self.settings.lease).to_value(),
                now.to_value(),
                worker.to_owned().to_value(),
            ])?,
        )
        .fetch_all(tx.connection())
        .await?;
        tx.commit().await?;
        let held = rows.iter().map(|row| {
            Ok((
                read(row, "id")?,
                read(row, "fencing_token")?,
                read(row, "state")?,
            ))
        });
        Ok(held.collect::<Result<_, StoreError>>()?)
    }

    /// The work is done.
    ///
    /// # Errors
    /// [`TaskError::Fenced`]: the result is not kept.
    pub async fn succeed(&self, claim: &Claim, result: Json) -> Result<TaskState, TaskError> {
        self.finish(claim, Ending::Succeeded(result)).await
    }

    /// The work failed; another attempt follows if that may help and attempts are left.
    ///
    /// # Errors
    /// [`TaskError::Fenced`].
    pub async fn fail(&self, claim: &Claim, failure: &TaskFailure) -> Result<TaskState, TaskError> {
        self.finish(claim, Ending::Failed(failure.clone())).await
    }

    /// Ends the attempt of a claim. A task that is being cancelled ends as cancelled, however the work went.
    pub(super) async fn finish(
        &self,
        claim: &Claim,
        ending: Ending,
    ) -> Result<TaskState, TaskError> {
        let mut tx = self.store.begin().await?;
        let held = self.held(&mut tx, claim).await?;
        let ended = self.end(&mut tx, held, ending).await?;
        tx.commit().await?;
        self.changed(claim.id);
        Ok(ended.state)
    }

    /// Reads the claim's row under a lock, or refuses if it is no longer the claim's.
    async fn held(&self, tx: &mut Tx, claim: &Claim) -> Result<Stored<record::Task>, TaskError> {
        let task = locked(tx, claim.id).await?;
        let moves = matches!(
            task.state,
            TaskState::Claimed | TaskState::Running | TaskState::Cancelling
        );
        if task.fencing_token != claim.token() || !moves {
            return Err(fenced(claim));
        }
        Ok(task)
    }

    /// What follows the end of an attempt, whoever found it ended: its worker or the sweeper.
    pub(super) async fn end(
        &self,
        tx: &mut Tx,
        task: Stored<record::Task>,
        ending: Ending,
    ) -> Result<Stored<record::Task>, TaskError> {
        let now = tx.now();
        close(tx, &task, &ending).await?;
        let failure = ending.failure();
        let counted = match failure {
            Some(_) => counted_attempts(tx, task.id).await?,
            None => 0,
        };
        let again = match &failure {
            Some(failure) => may_retry(counted, task.max_attempts, failure.may_pass),
            None => ending == Ending::GivenBack,
        };
        let wait = match ending {
            Ending::GivenBack => Duration::ZERO,
            _ => self.settings.backoff.delay(counted, seed(task.id)),
        };
        let events = ending.events(task.state, again);
        let (last, earlier) = events
            .split_last()
            .map_or((None, &[][..]), |(last, rest)| (Some(*last), rest));
        let mut task = task;
        for &event in earlier {
            task = advance(tx, &task, event, |_| {}).await?;
        }
        let Some(last) = last else { return Ok(task) };
        advance(tx, &task, last, |task| {
            task.worker = None;
            task.lease_until = None;
            task.deadline_at = None;
            task.error = failure.map(|failure| store::Json(failure.document()));
            match (task.state, ending) {
                (TaskState::Queued, _) => return,
                (TaskState::Retrying, _) => {
                    task.run_at = now.after(wait);
                    return;
                }
                (TaskState::Succeeded, Ending::Succeeded(result)) => {
                    task.result = Some(store::Json(result));
                    task.progress_fraction = Some(1.0);
                }
                _ => {}
            }
            task.finished_at = Some(now);
        })
        .await
    }
}

/// Marks the attempt as ended, unless it was before.
async fn close(tx: &mut Tx, task: &Stored<record::Task>, ending: &Ending) -> Result<(), TaskError> {
    let error = ending
        .failure()
        .map(|failure| failure.document().to_string());
    sqlx::query_with(
        "UPDATE task_attempts SET finished_at = $1, outcome = $2, error = $3 \
         WHERE task = $4 AND attempt = $5 AND finished_at IS NULL",
        arguments([
            tx.now().to_value(),
            ending.outcome().to_owned().to_value(),
            error.to_value(),
            task.id.to_value(),
            task.attempt.to_value(),
        ])?,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Attempts that were begun and not given back.
async fn counted_attempts(tx: &mut Tx, id: TaskId) -> Result<u32, TaskError> {
    let row = sqlx::query_with(
        "SELECT COUNT(*) AS counted FROM task_attempts \
         WHERE task = $1 AND started_at IS NOT NULL AND (outcome IS NULL OR outcome <> 'given_back')",
        arguments([id.to_value()])?,
    )
    .fetch_one(tx.connection())
    .await?;
    Ok(read(&row, "counted")?)
}

/// Reads a task and keeps others from changing it until the transaction ends.
pub(super) async fn locked(tx: &mut Tx, id: TaskId) -> Result<Stored<record::Task>, TaskError> {
    let sql = format!(
        "SELECT {} FROM {} WHERE id = $1 AND deleted_at IS NULL{}",
        store::columns::<record::Task>(),
        record::Task::TABLE,
        match tx.dialect() {
            Dialect::Postgres => " FOR UPDATE",
            // The transaction holds the only write lock.
            Dialect::Sqlite => "",
        }
    );
    // Safe: table and columns are constants of the program.
    let row = sqlx::query_with(AssertSqlSafe(sql), arguments([id.to_value()])?)
        .fetch_optional(tx.connection())
        .await?;
    let row = row.ok_or_else(|| StoreError::NotFound {
        kind: "task",
        id: id.to_string(),
    })?;
    Ok(Stored::from_row(&row)?)
}

/// Lets `event` happen to a locked task. `edit` sets what changes along with the state.
pub(super) async fn advance(
    tx: &mut Tx,
    before: &Stored<record::Task>,
    event: TaskEvent,
    edit: impl FnOnce(&mut record::Task) + Send,
) -> Result<Stored<record::Task>, TaskError> {
    let mut task = before.record.clone();
    task.state = before.state.apply(event)?;
    edit(&mut task);
    let after = tx.replace(before, task).await?;
    append_move(tx, &after, before.state, event).await?;
    follow(tx, &after, event).await?;
    Ok(after)
}

fn fenced(claim: &Claim) -> TaskError {
    TaskError::Fenced {
        task: claim.id.to_string(),
        token: claim.token(),
    }
}

/// A number of its own for each task.
fn seed(id: TaskId) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
