//! What happened to a task, in order: its moves, and what its attempts reported. Whoever watches reads
//! from here, so it does not matter which process does the work.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value as Json, json};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;
use tokio::sync::broadcast;

use super::TaskError;
use super::queue::{Claim, Queue, places};
use crate::domain::record;
use crate::domain::task::{TaskEvent, TaskState};
use crate::domain::words::words;
use crate::id::TaskId;
use crate::store::{Column as _, StoreError, Stored, Tx, arguments, read};
use crate::time::Timestamp;

words! {
    /// What a line of a task's journal is about.
    pub enum EventKind ("kind of task event") {
        /// `{"from", "event", "to"}`
        State = "state",
        /// `{"name", "index", "of"}`; `{"name", "resumed": true}` for one that an earlier attempt finished.
        Step = "step",
        /// `{"fraction", "message"}`
        Progress = "progress",
        /// `{"name", "value", "step"}`
        Metric = "metric",
        /// `{"message"}`
        Warning = "warning",
        /// `{"text"}`: one or more whole lines.
        Log = "log",
    }
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskLogEvent {
    /// Grows within a task; a reader goes on after the last it has seen. Gaps are old log text.
    pub sequence: i64,
    pub attempt: u32,
    pub at: Timestamp,
    pub kind: EventKind,
    pub body: Json,
}

impl TaskLogEvent {
    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        let body: crate::store::Document = read(row, "body")?;
        Ok(Self {
            sequence: read(row, "sequence")?,
            attempt: read(row, "attempt")?,
            at: read(row, "at")?,
            kind: read(row, "kind")?,
            body: body.0,
        })
    }
}

/// One try at a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    pub attempt: u32,
    pub worker: String,
    pub claimed_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// `succeeded`, `failed`, `timed_out`, `lost`, `given_back` or `cancelled`.
    pub outcome: Option<String>,
    pub error: Option<Json>,
}

/// What an attempt has to report since the last time.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) progress: Option<(f64, Option<String>)>,
    pub(super) events: Vec<(Timestamp, EventKind, Json)>,
}

impl Report {
    pub(super) const fn is_empty(&self) -> bool {
        self.progress.is_none() && self.events.is_empty()
    }
}

/// Rows a statement; six places each stay below SQLite's and PostgreSQL's limits.
const ROWS: usize = 200;

/// Appends a move to the journal of a task whose row is locked.
pub(super) async fn append_move(
    tx: &mut Tx,
    task: &Stored<record::Task>,
    from: TaskState,
    event: TaskEvent,
) -> Result<(), TaskError> {
    let mut body = json!({"from": from, "event": event, "to": task.state});
    if let Some(error) = &task.error {
        body["error"] = error.0.clone();
    }
    let values = arguments([
        task.id.to_value(),
        task.attempt.to_value(),
        tx.now().to_value(),
        EventKind::State.to_value(),
        body.to_string().to_value(),
    ])?;
    sqlx::query_with(
        "INSERT INTO task_events (task, sequence, attempt, at, kind, body) \
         SELECT $1, COALESCE(MAX(sequence), 0) + 1, $2, $3, $4, $5 FROM task_events WHERE task = $1",
        values,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

impl Queue {
    /// Writes a report of a claim's attempt.
    pub(super) async fn report(&self, claim: &ClaimName, report: &Report) -> Result<(), TaskError> {
        let mut tx = self.store.begin().await?;
        let (set, progress) = match report.progress.clone() {
            Some((fraction, message)) => (
                "progress_fraction = $3, progress_message = COALESCE($4, progress_message)",
                vec![fraction.to_value(), message.to_value()],
            ),
            // Changes nothing, and is the lock under which sequence numbers are given.
            None => ("updated_at = updated_at", Vec::new()),
        };
        let sql = format!(
            "UPDATE tasks SET {set} WHERE id = $1 AND fencing_token = $2 AND state IN ('running', 'cancelling')"
        );
        let head = [claim.id.to_value(), claim.token.to_value()];
        let values = arguments(head.into_iter().chain(progress))?;
        // Safe: made of constants.
        let updated = sqlx::query_with(AssertSqlSafe(sql), values)
            .execute(tx.connection())
            .await?;
        if updated.rows_affected() == 0 {
            return Err(TaskError::Fenced {
                task: claim.id.to_string(),
                token: claim.token,
            });
        }
        let row = sqlx::query_with(
            "SELECT COALESCE(MAX(sequence), 0) AS last FROM task_events WHERE task = $1",
            arguments([claim.id.to_value()])?,
        )
        .fetch_one(tx.connection())
        .await?;
        let mut sequence: i64 = read(&row, "last")?;
        for events in report.events.chunks(ROWS) {
            insert(&mut tx, claim, sequence, events).await?;
            sequence += i64::try_from(events.len()).unwrap_or(0);
        }
        if report
            .events
            .iter()
            .any(|(_, kind, _)| *kind == EventKind::Log)
        {
            forget_old_log(&mut tx, claim.id, self.settings.log_bytes).await?;
        }
        tx.commit().await?;
        self.changed(claim.id);
        Ok(())
    }

    /// The journal after `sequence`, at most `limit` lines.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn events(
        &self,
        id: TaskId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<TaskLogEvent>, TaskError> {
        let sql = format!(
            "SELECT sequence, attempt, at, kind, body FROM task_events WHERE task = $1 AND sequence > $2 \
             ORDER BY sequence LIMIT {limit}"
        );
        let values = arguments([id.to_value(), after.to_value()])?;
        // Safe: a constant and a number.
        let rows = sqlx::query_with(AssertSqlSafe(sql), values)
            .fetch_all(&mut *self.store.reader().await?)
            .await?;
        Ok(rows
            .iter()
            .map(TaskLogEvent::from_row)
            .collect::<Result<_, _>>()?)
    }

    /// Every try at a task, the first one first.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn attempts(&self, id: TaskId) -> Result<Vec<Attempt>, TaskError> {
        let rows = sqlx::query_with(
            "SELECT * FROM task_attempts WHERE task = $1 ORDER BY attempt",
            arguments([id.to_value()])?,
        )
        .fetch_all(&mut *self.store.reader().await?)
        .await?;
        let attempts = rows.iter().map(|row| {
            let error: Option<crate::store::Document> = read(row, "error")?;
            Ok(Attempt {
                attempt: read(row, "attempt")?,
                worker: read(row, "worker")?,
                claimed_at: read(row, "claimed_at")?,
                started_at: read(row, "started_at")?,
                finished_at: read(row, "finished_at")?,
                outcome: read(row, "outcome")?,
                error: error.map(|error| error.0),
            })
        });
        Ok(attempts.collect::<Result<_, StoreError>>()?)
    }

    /// Follows a task from after `sequence` on: `0` for all of it.
    pub fn watch(&self, id: TaskId, after: i64) -> Watch {
        Watch {
            queue: self.clone(),
            id,
            after,
            changes: self.signals.changed.subscribe(),
        }
    }
}

/// A claim as its reports name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClaimName {
    pub(super) id: TaskId,
    pub(super) token: i64,
    pub(super) attempt: u32,
}

impl From<&Claim> for ClaimName {
    fn from(claim: &Claim) -> Self {
        Self {
            id: claim.id,
            token: claim.token(),
            attempt: claim.attempt(),
        }
    }
}

async fn insert(
    tx: &mut Tx,
    claim: &ClaimName,
    last: i64,
    events: &[(Timestamp, EventKind, Json)],
) -> Result<(), TaskError> {
    let rows: Vec<String> = (0..events.len())
        .map(|row| format!("({})", places(1 + 6 * row, 6)))
        .collect();
    let values = events
        .iter()
        .zip(last + 1..)
        .flat_map(|((at, kind, body), sequence)| {
            [
                claim.id.to_value(),
                sequence.to_value(),
                claim.attempt.to_value(),
                at.to_value(),
                kind.to_value(),
                body.to_string().to_value(),
            ]
        });
    let sql = format!(
        "INSERT INTO task_events (task, sequence, attempt, at, kind, body) VALUES {}",
        rows.join(", ")
    );
    // Safe: a constant and places.
    sqlx::query_with(AssertSqlSafe(sql), arguments(values)?)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// Keeps the end of a task's log: as many of the newest lines as fit into `bytes`.
async fn forget_old_log(tx: &mut Tx, id: TaskId, bytes: usize) -> Result<(), TaskError> {
    let rows = sqlx::query_with(
        "SELECT sequence, CAST(LENGTH(body) AS BIGINT) AS bytes FROM task_events WHERE task = $1 AND kind = 'log' \
         ORDER BY sequence DESC",
        arguments([id.to_value()])?,
    )
    .fetch_all(tx.connection())
    .await?;
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let mut kept = 0;
    for row in &rows {
        kept += read::<i64>(row, "bytes")?;
        if kept > bytes {
            let newest: i64 = read(row, "sequence")?;
            sqlx::query_with(
                "DELETE FROM task_events WHERE task = $1 AND kind = 'log' AND sequence <= $2",
                arguments([id.to_value(), newest.to_value()])?,
            )
            .execute(tx.connection())
            .await?;
            break;
        }
    }
    Ok(())
}

/// How often a watcher looks for what other processes wrote.
const LOOK: Duration = Duration::from_secs(1);
/// Lines at once.
const BATCH: u32 = 500;

/// A reader of a task's journal who waits for more.
#[derive(Debug)]
pub struct Watch {
    queue: Queue,
    id: TaskId,
    after: i64,
    changes: broadcast::Receiver<TaskId>,
}

impl Watch {
    /// The next lines; empty once the task has ended and all was read.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and the database's own.
    pub async fn next(&mut self) -> Result<Vec<TaskLogEvent>, TaskError> {
        loop {
            // The state first: a line that is written between the two reads is then seen the next time.
            let task = self.queue.store.get::<record::Task>(self.id).await?;
            let events = self.queue.events(self.id, self.after, BATCH).await?;
            if let Some(last) = events.last() {
                self.after = last.sequence;
                return Ok(events);
            }
            if task.finished_at.is_some() {
                return Ok(events);
            }
            self.changed().await;
        }
    }

    /// Until something happened to the task in this process, or it is time to look what others did.
    async fn changed(&mut self) {
        let deadline = tokio::time::sleep(LOOK);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = &mut deadline => return,
                change = self.changes.recv() => match change {
                    Ok(id) if id != self.id => {}
                    // Its own, or too many to tell: look.
                    _ => return,
                },
            }
        }
    }
}
