//! A run follows its task. The task is how the work is done, with its attempts and leases; the run is what stays in the
//! lineage. Whatever moves the task moves the run in the same transaction, whoever does it: a worker, the sweeper
//! that found the worker gone, or the person who cancelled. So no run waits for a task that has ended.

use crate::domain::machine::Machine as _;
use crate::domain::record::{ConversionRun, Task};
use crate::domain::run::{RunEvent, RunStatus};
use crate::domain::task::{TaskEvent, TaskState};
use crate::id::{ArtifactId, ConversionRunId, Id};
use crate::store::{Actor, Stateful, Stored, Tx};

use super::TaskError;

/// A run that a task works for: the task's subject.
pub trait Follower: Stateful<State = RunStatus> {
    /// Takes over what the task that has ended says of its result or failure. Returns what the run needs kept.
    fn settle(&mut self, task: &Task) -> Option<ArtifactId>;
}

/// To be called after each move of a task, in its transaction.
pub(super) async fn follow(
    tx: &mut Tx,
    task: &Stored<Task>,
    event: TaskEvent,
) -> Result<(), TaskError> {
    let (Some(kind), Some(id)) = (&task.subject_kind, &task.subject_id) else {
        return Ok(());
    };
    match kind.as_str() {
        ConversionRunId::KIND => moved::<ConversionRun>(tx, task, event, id).await,
        _ => Ok(()),
    }
}

async fn moved<R: Follower>(
    tx: &mut Tx,
    task: &Stored<Task>,
    event: TaskEvent,
    id: &str,
) -> Result<(), TaskError> {
    let Ok(id) = id.parse::<R::Id>() else {
        tracing::error!(task = %task.id, subject = id, "a task works for what is no {}", R::Id::KIND);
        return Ok(());
    };
    let status = tx.get::<R>(id).await?.state();
    let Some(event) = told(task, event).filter(|event| status.transition(*event).is_some()) else {
        return Ok(());
    };
    let actor = Actor::system(&format!("task {}", task.id));
    let mut needed = None;
    let after = tx
        .transition::<R>(&actor, id, None, event, |run| {
            if task.finished_at.is_some() {
                needed = run.settle(task);
            }
        })
        .await?;
    if let Some(artifact) = needed {
        tx.hold_artifact(artifact, after.id).await?;
    }
    Ok(())
}

/// What a task's move means for its run.
fn told(task: &Task, event: TaskEvent) -> Option<RunEvent> {
    if task.finished_at.is_some() {
        return Some(match task.state {
            TaskState::Succeeded => RunEvent::Succeed,
            TaskState::Cancelled => RunEvent::Cancel,
            _ => RunEvent::Fail,
        });
    }
    match event {
        TaskEvent::Start => Some(RunEvent::Start),
        TaskEvent::Retry => Some(RunEvent::Requeue),
        _ => None,
    }
}
