//! The queue: putting tasks in, claiming and cancelling them. What happens to a claimed one is in `attempt`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sqlx::AssertSqlSafe;
use tokio::sync::{Notify, broadcast};

use super::TaskError;
use super::attempt::{advance, locked};
use super::backoff::{Backoff, RANK};
use super::follow::follow;
use super::journal::{EventKind, append_move};
use super::new_task::NewTask;
use crate::domain::machine::Machine as _;
use crate::domain::record;
use crate::domain::task::{TaskEvent, TaskState};
use crate::id::TaskId;
use crate::store::{
    self, Actor, Column as _, Dialect, Record as _, Store, StoreError, Stored, Tx, arguments, read,
};
use crate::time::Timestamp;

/// How long things may take before the queue acts.
#[derive(Debug, Clone, Copy)]
pub struct QueueSettings {
    /// A claim without a heartbeat for this long is given to another worker.
    pub lease: Duration,
    pub backoff: Backoff,
    /// Bytes of log text that the store keeps for a task: its end. The whole is in the attempt's scratch folder.
    pub log_bytes: usize,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            backoff: Backoff::default(),
            log_bytes: 256 * 1024,
        }
    }
}

/// A kind that a worker takes, and how many of it may run at once on all workers together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindLimit {
    pub kind: String,
    pub limit: Option<u32>,
}

/// The right to work on a task, as long as its lease lasts. Not to be cloned: one claim, one worker.
#[derive(Debug)]
#[must_use = "a claimed task waits for its worker"]
pub struct Claim {
    pub id: TaskId,
    pub task: record::Task,
}

impl Claim {
    /// Names this claim in every later write.
    pub const fn token(&self) -> i64 {
        self.task.fencing_token
    }

    pub const fn attempt(&self) -> u32 {
        self.task.attempt
    }
}

/// The queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    pub(super) store: Store,
    pub(super) settings: QueueSettings,
    pub(super) signals: Arc<Signals>,
}

/// What this process knows before the database is asked again.
#[derive(Debug)]
pub(super) struct Signals {
    /// There may be something to claim.
    pub(super) work: Notify,
    /// Something happened to a task.
    pub(super) changed: broadcast::Sender<TaskId>,
}

/// Claimed at most at once: a claim is one statement with a place for each.
const CLAIM_MAX: usize = 200;

impl Queue {
    pub fn new(store: Store, settings: QueueSettings) -> Self {
        let signals = Arc::new(Signals {
            work: Notify::new(),
            changed: broadcast::Sender::new(1024),
        });
        Self {
            store,
            settings,
            signals,
        }
    }

    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Puts a task into the queue, or finds the one that was put there with the same key.
    ///
    /// # Errors
    /// [`TaskError::OtherParams`]; [`StoreError::Invalid`] and [`StoreError::Reference`] among others.
    pub async fn enqueue(
        &self,
        actor: &Actor,
        new: NewTask,
    ) -> Result<Stored<record::Task>, TaskError> {
        let mut enqueued = self.try_enqueue(actor, new.clone()).await;
        if let Err(TaskError::Store(StoreError::Conflict { .. })) = enqueued {
            // Somebody with the same key was faster by less than a transaction.
            enqueued = self.try_enqueue(actor, new).await;
        }
        let task = enqueued?;
        self.announce(task.id);
        Ok(task)
    }

    async fn try_enqueue(
        &self,
        actor: &Actor,
        new: NewTask,
    ) -> Result<Stored<record::Task>, TaskError> {
        let mut tx = self.store.begin().await?;
        let task = self.enqueue_in(&mut tx, actor, new).await?;
        tx.commit().await?;
        Ok(task)
    }

    /// The same as part of a larger change, such as making the record that the task works for. Call
    /// [`announce`](Self::announce) after the commit.
    ///
    /// # Errors
    /// As there, and [`StoreError::Conflict`] if another transaction uses the key just now.
    pub async fn enqueue_in(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        new: NewTask,
    ) -> Result<Stored<record::Task>, TaskError> {
        if let Some(key) = &new.idempotency_key
            && let Some(earlier) = with_key(tx, &new.kind, key).await?
        {
            return if earlier.params.0 == new.params {
                Ok(earlier)
            } else {
                Err(TaskError::OtherParams { kind: new.kind })
            };
        }
        let task = new.into_record(tx.now())?;
        Ok(tx.create(actor, task).await?)
    }

    /// Wakes the workers of this process; others look by themselves.
    pub fn announce(&self, task: TaskId) {
        self.signals.work.notify_waiters();
        self.changed(task);
    }

    /// Lets workers look again: something was committed later than it was announced.
    pub(crate) fn look_again(&self) {
        self.signals.work.notify_waiters();
    }

    /// The same queue for what writes by another store, such as one that holds a claim.
    #[must_use]
    pub fn with_store(&self, store: Store) -> Self {
        Self {
            store,
            ..self.clone()
        }
    }

    pub(super) fn changed(&self, task: TaskId) {
        // Fails if nobody watches, which is fine.
        _ = self.signals.changed.send(task);
    }

    /// Claims up to `count` due tasks, the most urgent first.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn claim(
        &self,
        worker: &str,
        kinds: &[KindLimit],
        count: usize,
    ) -> Result<Vec<Claim>, TaskError> {
        // Looking costs no write lock; most looks find nothing.
        if count == 0 || !self.any_due(kinds).await? {
            return Ok(Vec::new());
        }
        let mut tx = self.store.begin().await?;
        let ids = due(&mut tx, kinds, count.min(CLAIM_MAX)).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut claims = self.take(&mut tx, worker, &ids).await?;
        tx.commit().await?;
        claims.sort_by_key(|claim| (ids.iter().position(|&id| id == claim.id), claim.id));
        for claim in &claims {
            self.changed(claim.id);
        }
        Ok(claims)
    }

    /// How many tasks of a kind have not ended.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn waiting(&self, kind: &str) -> Result<u64, TaskError> {
        let row = sqlx::query_with(
            "SELECT COUNT(*) AS waiting FROM tasks WHERE kind = $1 AND finished_at IS NULL AND deleted_at IS NULL",
            arguments([kind.to_owned().to_value()])?,
        )
        .fetch_one(&mut *self.store.reader().await?)
        .await?;
        let waiting: i64 = read(&row, "waiting")?;
        Ok(waiting.unsigned_abs())
    }

    async fn any_due(&self, kinds: &[KindLimit]) -> Result<bool, TaskError> {
        let now = Timestamp::now();
        let mut reader = self.store.reader().await?;
        for KindLimit { kind, .. } in kinds {
            let found = sqlx::query_with(
                "SELECT 1 AS found FROM tasks WHERE state = 'queued' AND kind = $1 AND run_at <= $2 LIMIT 1",
                arguments([kind.to_value(), now.to_value()])?,
            )
            .fetch_optional(&mut *reader)
            .await?;
            if found.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Turns locked, queued rows into claims: three statements, however many they are.
    async fn take(
        &self,
        tx: &mut Tx,
        worker: &str,
        ids: &[TaskId],
    ) -> Result<Vec<Claim>, TaskError> {
        let claimed = TaskState::Queued.apply(TaskEvent::Claim)?;
        let now = tx.now();
        let places = places(4, ids.len());
        let sql = format!(
            "UPDATE tasks SET state = '{claimed}', attempt = attempt + 1, fencing_token = fencing_token + 1, \
             worker = $1, lease_until = $2, heartbeat_at = $3, updated_at = $3, version = version + 1 \
             WHERE state = '{}' AND id IN ({places}) RETURNING {}",
            TaskState::Queued,
            store::columns::<record::Task>()
        );
        let head = [
            worker.to_owned().to_value(),
            now.after(self.settings.lease).to_value(),
            now.to_value(),
        ];
        let values = arguments(head.into_iter().chain(ids.iter().map(|id| id.to_value())))?;
        // Safe, here and below: made of constants, words of an enum and numbers; every value is bound.
        let rows = sqlx::query_with(AssertSqlSafe(sql), values)
            .fetch_all(tx.connection())
            .await?;
        let claims = rows
            .iter()
            .map(|row| {
                let Stored { id, record, .. } = Stored::<record::Task>::from_row(row)?;
                Ok(Claim { id, task: record })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let sql = format!(
            "INSERT INTO task_attempts (task, attempt, fencing_token, worker, claimed_at) \
             SELECT id, attempt, fencing_token, worker, heartbeat_at FROM tasks WHERE id IN ({})",
            self::places(1, ids.len())
        );
        sqlx::query_with(
            AssertSqlSafe(sql),
            arguments(ids.iter().map(|id| id.to_value()))?,
        )
        .execute(tx.connection())
        .await?;
        let body = json!({"from": TaskState::Queued, "event": TaskEvent::Claim, "to": claimed, "worker": worker});
        let sql = format!(
            "INSERT INTO task_events (task, sequence, attempt, at, kind, body) SELECT id, \
             (SELECT COALESCE(MAX(sequence), 0) + 1 FROM task_events WHERE task = tasks.id), attempt, heartbeat_at, $1, \
             $2 FROM tasks WHERE id IN ({})",
            self::places(3, ids.len())
        );
        let head = [EventKind::State.to_value(), body.to_string().to_value()];
        let values = arguments(head.into_iter().chain(ids.iter().map(|id| id.to_value())))?;
        sqlx::query_with(AssertSqlSafe(sql), values)
            .execute(tx.connection())
            .await?;
        Ok(claims)
    }

    /// Asks for the end of a task: at once if nobody works on it, else its worker stops it.
    ///
    /// # Errors
    /// [`StoreError::IllegalTransition`] if it has ended, [`StoreError::NotFound`].
    pub async fn cancel(
        &self,
        actor: &Actor,
        id: TaskId,
    ) -> Result<Stored<record::Task>, TaskError> {
        let mut tx = self.store.begin().await?;
        let task = locked(&mut tx, id).await?;
        if task.state == TaskState::Cancelling {
            return Ok(task);
        }
        let (from, now) = (task.state, tx.now());
        let task = tx
            .transition::<record::Task>(actor, id, None, TaskEvent::Cancel, |it| {
                it.cancel_requested = true;
                if !matches!(from, TaskState::Claimed | TaskState::Running) {
                    it.lease_until = None;
                }
            })
            .await?;
        append_move(&mut tx, &task, from, TaskEvent::Cancel).await?;
        follow(&mut tx, &task, TaskEvent::Cancel).await?;
        // Between two attempts, or waiting for people, no worker would answer.
        let task = if task.state == TaskState::Cancelling && task.lease_until.is_none() {
            advance(&mut tx, &task, TaskEvent::Stop, |task| {
                task.finished_at = Some(now)
            })
            .await?
        } else {
            task
        };
        tx.commit().await?;
        self.changed(id);
        Ok(task)
    }
}

/// Chooses and locks the most urgent due tasks of kinds that have room.
async fn due(tx: &mut Tx, kinds: &[KindLimit], count: usize) -> Result<Vec<TaskId>, TaskError> {
    let mut found: Vec<(i64, TaskId)> = Vec::new();
    if tx.dialect() == Dialect::Postgres {
        // Of a queue that was filled a moment ago the planner thinks that it is empty, and would sort all of it
        // rather than read the first of `tasks__claim`.
        sqlx::query("SET LOCAL enable_sort = off")
            .execute(tx.connection())
            .await?;
    }
    for kind in kinds {
        let room = match kind.limit {
            Some(limit) => room(tx, &kind.kind, limit).await?.min(count),
            None => count,
        };
        if room == 0 {
            continue;
        }
        // The one place where the two databases differ: SQLite's transactions that write come one after the other.
        let skip = match tx.dialect() {
            Dialect::Postgres => " FOR UPDATE SKIP LOCKED",
            Dialect::Sqlite => "",
        };
        let sql = format!(
            "SELECT id, {RANK} AS place FROM tasks WHERE state = 'queued' AND kind = $1 AND run_at <= $2 \
             AND deleted_at IS NULL ORDER BY {RANK}, id LIMIT {room}{skip}"
        );
        let values = arguments([kind.kind.to_value(), tx.now().to_value()])?;
        // Safe: made of constants and a number.
        let rows = sqlx::query_with(AssertSqlSafe(sql), values)
            .fetch_all(tx.connection())
            .await?;
        for row in &rows {
            found.push((read(row, "place")?, read(row, "id")?));
        }
    }
    found.sort_unstable();
    found.truncate(count);
    Ok(found.into_iter().map(|(_, id)| id).collect())
}

/// How many more of a kind may run. Two claims of a limited kind come one after the other, so that they
/// do not both take the last place.
async fn room(tx: &mut Tx, kind: &str, limit: u32) -> Result<usize, TaskError> {
    if tx.dialect() == Dialect::Postgres {
        sqlx::query_with(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
            arguments([format!("sluice task kind {kind}").to_value()])?,
        )
        .execute(tx.connection())
        .await?;
    }
    let row = sqlx::query_with(
        "SELECT COUNT(*) AS busy FROM tasks WHERE kind = $1 AND finished_at IS NULL \
         AND state IN ('claimed', 'running', 'cancelling')",
        arguments([kind.to_owned().to_value()])?,
    )
    .fetch_one(tx.connection())
    .await?;
    let busy: i64 = read(&row, "busy")?;
    Ok(usize::try_from(i64::from(limit) - busy).unwrap_or(0))
}

async fn with_key(
    tx: &mut Tx,
    kind: &str,
    key: &str,
) -> Result<Option<Stored<record::Task>>, TaskError> {
    let sql = format!(
        "SELECT {} FROM {} WHERE kind = $1 AND idempotency_key = $2",
        store::columns::<record::Task>(),
        record::Task::TABLE
    );
    let values = arguments([kind.to_owned().to_value(), key.to_owned().to_value()])?;
    // Safe: table and columns are constants of the program.
    let row = sqlx::query_with(AssertSqlSafe(sql), values)
        .fetch_optional(tx.connection())
        .await?;
    Ok(row.as_ref().map(Stored::from_row).transpose()?)
}

/// `$4, $5, $6` for three values from place 4.
pub(super) fn places(first: usize, count: usize) -> String {
    (first..first + count)
        .map(|place| format!("${place}"))
        .collect::<Vec<_>>()
        .join(", ")
}
