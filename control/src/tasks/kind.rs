//! What is done for a kind of task, and the list of kinds that a worker knows.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::queue::{KindLimit, Queue};
use super::{TaskContext, TaskFailure};

/// The work of one kind of task.
///
/// It may be begun more than once: what it does to the world outside its scratch folder should be safe to do again.
pub trait Task: Send + Sync + 'static {
    /// The `kind` of its rows.
    const NAME: &'static str;
    type Params: DeserializeOwned + Send;
    type Output: Serialize;

    /// Does it. Dropped some seconds after [`TaskContext::stopped`], if it has not ended by then.
    fn run(
        &self,
        params: Self::Params,
        context: &TaskContext,
    ) -> impl Future<Output = Result<Self::Output, TaskFailure>> + Send;

    /// Brings records in line with tasks that ended without this kind's doing: cancelled in the queue, lost too often.
    /// Called at each sweep of every worker that takes the kind, so it is idempotent and cheap when there is nothing.
    fn settle(&self, _queue: &Queue) -> impl Future<Output = Result<(), TaskFailure>> + Send {
        std::future::ready(Ok(()))
    }
}

/// A [`Task`] whose types are JSON.
pub(super) trait AnyTask: Send + Sync {
    fn run<'a>(
        &'a self,
        params: Json,
        context: &'a TaskContext,
    ) -> BoxFuture<'a, Result<Json, TaskFailure>>;
    fn settle<'a>(&'a self, queue: &'a Queue) -> BoxFuture<'a, Result<(), TaskFailure>>;
}

impl<T: Task> AnyTask for T {
    fn run<'a>(
        &'a self,
        params: Json,
        context: &'a TaskContext,
    ) -> BoxFuture<'a, Result<Json, TaskFailure>> {
        async move {
            let params = serde_json::from_value(params)
                .map_err(|error| TaskFailure::lasting("bad_params", format!("params: {error}")))?;
            let output = Task::run(self, params, context).await?;
            serde_json::to_value(output)
                .map_err(|error| TaskFailure::lasting("bad_output", error.to_string()))
        }
        .boxed()
    }

    fn settle<'a>(&'a self, queue: &'a Queue) -> BoxFuture<'a, Result<(), TaskFailure>> {
        Task::settle(self, queue).boxed()
    }
}

/// The kinds that a worker takes.
#[derive(Clone, Default)]
pub struct Kinds(BTreeMap<&'static str, (Arc<dyn AnyTask>, Option<u32>)>);

impl Kinds {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind, as many at once as there are slots.
    #[must_use]
    pub fn with<T: Task>(mut self, task: T) -> Self {
        self.0.insert(T::NAME, (Arc::new(task), None));
        self
    }

    /// Adds a kind of which at most `limit` run at once, on all workers together.
    #[must_use]
    pub fn with_limit<T: Task>(mut self, task: T, limit: u32) -> Self {
        self.0.insert(T::NAME, (Arc::new(task), Some(limit)));
        self
    }

    pub(super) fn get(&self, kind: &str) -> Option<Arc<dyn AnyTask>> {
        self.0.get(kind).map(|(task, _)| Arc::clone(task))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &Arc<dyn AnyTask>)> {
        self.0.iter().map(|(kind, (task, _))| (*kind, task))
    }

    pub(super) fn limits(&self) -> Vec<KindLimit> {
        let limits = self.0.iter().map(|(kind, (_, limit))| KindLimit {
            kind: (*kind).to_owned(),
            limit: *limit,
        });
        limits.collect()
    }
}

impl std::fmt::Debug for Kinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
