//! The queue and its workers on both databases.

#![expect(clippy::unwrap_used, reason = "tests")]

mod crash;
mod follow;
mod queue;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::executor::LocalExecutor;
use super::*;
use crate::domain::record;
use crate::domain::task::TaskState;
use crate::id::TaskId;
use crate::store::rig::{Fresh, on_both, system};
use crate::store::{Store, Stored};

fn settings() -> QueueSettings {
    QueueSettings {
        lease: Duration::from_secs(60),
        backoff: Backoff {
            base: Duration::from_millis(1),
            max: Duration::from_millis(10),
        },
        log_bytes: 10_000,
    }
}

/// With leases that are over at once: as if every worker had died.
fn hasty() -> QueueSettings {
    QueueSettings {
        lease: Duration::ZERO,
        ..settings()
    }
}

fn kinds(names: &[&str]) -> Vec<KindLimit> {
    let kinds = names.iter().map(|kind| KindLimit {
        kind: (*kind).to_owned(),
        limit: None,
    });
    kinds.collect()
}

async fn enqueue(queue: &Queue, new: NewTask) -> TaskId {
    queue.enqueue(&system(), new).await.unwrap().id
}

async fn read(queue: &Queue, id: TaskId) -> Stored<record::Task> {
    queue.store().get(id).await.unwrap()
}

async fn claim_one(queue: &Queue, worker: &str) -> Claim {
    let mut claims = queue.claim(worker, &kinds(&["k"]), 1).await.unwrap();
    claims.pop().unwrap()
}

/// The states that a task went through, from its journal.
async fn path(queue: &Queue, id: TaskId) -> Vec<String> {
    let events = queue.events(id, 0, 10_000).await.unwrap();
    let moves = events.iter().filter(|event| event.kind == EventKind::State);
    moves
        .map(|event| event.body["to"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits until a task has ended, by the way that watchers do.
async fn ended(queue: &Queue, id: TaskId) -> Stored<record::Task> {
    let mut watch = queue.watch(id, 0);
    while !watch.next().await.unwrap().is_empty() {}
    read(queue, id).await
}
