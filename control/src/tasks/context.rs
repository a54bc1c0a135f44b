//! What the work of a task sees of the engine: where to report, what earlier attempts finished, when to
//! stop, and how to run a program.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use super::attempt::locked;
use super::executor::{Command, Executor, Exit, Output};
use super::journal::{ClaimName, EventKind};
use super::queue::Queue;
use super::recorder::Recorder;
use super::{TaskError, TaskFailure};
use crate::domain::record::{Principal, Task};
use crate::id::{DepartmentId, TaskId};
use crate::store::{Actor, Column as _, Document, StoreError, arguments, read};

/// Why an attempt should end before its work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Cancelled,
    TimedOut,
    /// The worker is leaving; another one goes on.
    Draining,
    /// Another worker has the task by now.
    Fenced,
}

/// Tells an attempt to stop; the first reason counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Stopper {
    token: CancellationToken,
    reason: Arc<OnceLock<StopReason>>,
}

impl Stopper {
    pub(super) fn stop(&self, reason: StopReason) {
        _ = self.reason.set(reason);
        self.token.cancel();
    }

    pub(super) async fn stopped(&self) {
        self.token.cancelled().await;
    }

    pub(super) fn reason(&self) -> Option<StopReason> {
        self.reason.get().copied()
    }
}

/// Who wanted a task done, and to which department its results belong.
#[derive(Debug, Clone)]
pub struct Owner {
    pub department: DepartmentId,
    pub actor: Actor,
}

/// One attempt at a task, as its work sees it.
pub struct TaskContext {
    pub(super) queue: Queue,
    pub(super) claim: ClaimName,
    pub(super) recorder: Arc<Recorder>,
    pub(super) checkpoints: Mutex<HashMap<String, Json>>,
    pub(super) stopper: Stopper,
    pub(super) scratch: PathBuf,
    pub(super) executor: Arc<dyn Executor>,
    /// Steps that a program has finished, and of how many: its progress is that of one step.
    pub(super) stage: Mutex<(f64, f64)>,
}

impl TaskContext {
    pub const fn task(&self) -> TaskId {
        self.claim.id
    }

    /// From 1.
    pub const fn attempt(&self) -> u32 {
        self.claim.attempt
    }

    /// A folder of this attempt's own, empty at first, deleted when the attempt ends.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    pub const fn queue(&self) -> &Queue {
        &self.queue
    }

    /// For whom the task is done.
    ///
    /// # Errors
    /// `no_department` for a task that belongs to none.
    pub async fn owner(&self) -> Result<Owner, TaskFailure> {
        let task = self.queue.store.get::<Task>(self.claim.id).await?;
        let department = task.department.ok_or_else(|| {
            TaskFailure::lasting("no_department", "department: the task belongs to none")
        })?;
        let actor = match task.principal {
            Some(principal) => {
                let person = self.queue.store.get::<Principal>(principal).await?;
                Actor::person(principal, person.record.name)
            }
            None => Actor::system(&format!("task {}", task.id)),
        };
        Ok(Owner { department, actor })
    }

    /// Does `work`, unless an earlier attempt has: then that one's result is returned. Names are unique
    /// within a kind of task. What `work` leaves in the scratch folder does not outlive the attempt.
    ///
    /// # Errors
    /// Those of `work`; and if its result cannot be kept.
    pub async fn step<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T, TaskFailure>> + Send,
    ) -> Result<T, TaskFailure> {
        let kept = self.checkpoints.lock().get(name).cloned();
        // A result in another form is one of an older binary.
        if let Some(result) = kept.and_then(|kept| serde_json::from_value(kept).ok()) {
            self.recorder
                .event(EventKind::Step, json!({"name": name, "resumed": true}));
            return Ok(result);
        }
        self.recorder.event(EventKind::Step, json!({"name": name}));
        let result = work.await?;
        let kept = serde_json::to_value(&result)
            .map_err(|error| TaskFailure::lasting("bad_output", error.to_string()))?;
        self.queue.keep(&self.claim, name, &kept).await?;
        self.checkpoints.lock().insert(name.to_owned(), kept);
        Ok(result)
    }

    /// How much is done, 0 to 1.
    pub fn progress(&self, fraction: f64, message: impl Into<String>) {
        self.recorder.progress(fraction, Some(message.into()));
    }

    pub fn metric(&self, name: &str, value: f64, step: Option<i64>) {
        let body = json!({"name": name, "value": value, "step": step});
        self.recorder.event(EventKind::Metric, body);
    }

    pub fn warning(&self, message: &str) {
        self.recorder
            .event(EventKind::Warning, json!({"message": message}));
    }

    /// A line of the log.
    pub fn log(&self, line: &str) {
        self.recorder.log(line);
    }

    /// Resolves when the attempt should end, soon.
    pub async fn stopped(&self) -> StopReason {
        self.stopper.stopped().await;
        self.stopper.reason().unwrap_or(StopReason::Fenced)
    }

    /// Runs a program; its output goes into the log, its events into the journal. It ends with the attempt.
    ///
    /// # Errors
    /// [`TaskFailure`] if it cannot be started. How it ended is not an error.
    pub async fn execute(&self, command: Command) -> Result<Exit, TaskFailure> {
        *self.stage.lock() = (0.0, 1.0);
        let sink = |output: Output<'_>| match output {
            Output::Line(line) => self.recorder.log(line),
            Output::Event(event) => self.child_event(event),
        };
        let mark = format!("{}.{}", self.claim.id, self.claim.token);
        self.executor
            .run(command, &mark, &sink, &self.stopper.token)
            .await
            .map_err(|error| TaskFailure::passing("not_started", error.to_string()))
    }

    /// A JSON line of a pipeline. What is not one is part of the log: nothing that a program says is lost.
    fn child_event(&self, line: &str) {
        let Ok(Json::Object(mut body)) = serde_json::from_str(line) else {
            return self.recorder.log(line);
        };
        let kind = body.remove("event");
        let body = Json::Object(body);
        match kind.as_ref().and_then(Json::as_str) {
            Some("progress") => match body["fraction"].as_f64() {
                Some(fraction) => {
                    let (before, of) = *self.stage.lock();
                    let message = body["message"].as_str().map(str::to_owned);
                    self.recorder.progress((before + fraction) / of, message);
                }
                None => self.recorder.log(line),
            },
            Some("step") => {
                if let (Some(index), Some(of)) = (body["index"].as_f64(), body["of"].as_f64())
                    && index >= 1.0
                    && of >= index
                {
                    *self.stage.lock() = (index - 1.0, of);
                    let name = body["name"].as_str().map(str::to_owned);
                    self.recorder.progress((index - 1.0) / of, name);
                }
                self.recorder.event(EventKind::Step, body);
            }
            Some("metric") => self.recorder.event(EventKind::Metric, body),
            Some("warning") => self.recorder.event(EventKind::Warning, body),
            _ => self.recorder.log(line),
        }
    }
}

impl Queue {
    /// What earlier attempts finished.
    pub(super) async fn checkpoints(&self, id: TaskId) -> Result<HashMap<String, Json>, TaskError> {
        let rows = sqlx::query_with(
            "SELECT step, result FROM task_checkpoints WHERE task = $1",
            arguments([id.to_value()])?,
        )
        .fetch_all(&mut *self.store.reader().await?)
        .await?;
        let steps = rows.iter().map(|row| {
            let result: Document = read(row, "result")?;
            Ok((read(row, "step")?, result.0))
        });
        Ok(steps.collect::<Result<_, StoreError>>()?)
    }

    /// Keeps a step's result for later attempts.
    async fn keep(&self, claim: &ClaimName, step: &str, result: &Json) -> Result<(), TaskError> {
        let mut tx = self.store.begin().await?;
        let task = locked(&mut tx, claim.id).await?;
        if task.fencing_token != claim.token || task.finished_at.is_some() {
            return Err(TaskError::Fenced {
                task: claim.id.to_string(),
                token: claim.token,
            });
        }
        sqlx::query_with(
            "INSERT INTO task_checkpoints (task, step, attempt, at, result) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (task, step) DO UPDATE SET attempt = excluded.attempt, at = excluded.at, \
             result = excluded.result",
            arguments([
                claim.id.to_value(),
                step.to_owned().to_value(),
                claim.attempt.to_value(),
                tx.now().to_value(),
                result.to_string().to_value(),
            ])?,
        )
        .execute(tx.connection())
        .await?;
        Ok(tx.commit().await?)
    }
}
