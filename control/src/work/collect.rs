//! The task kind that takes away what nobody needs, for those who do not want to wait for the hourly round.

use serde::{Deserialize, Serialize};

use super::failed;
use crate::artifacts::{Artifacts, Collected};
use crate::tasks::{Task, TaskContext, TaskFailure};

#[derive(Debug, Clone)]
pub struct CollectGarbage(pub Artifacts);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectParams {}

impl Task for CollectGarbage {
    const NAME: &'static str = "gc";
    type Params = CollectParams;
    type Output = Collected;

    async fn run(&self, _: CollectParams, context: &TaskContext) -> Result<Collected, TaskFailure> {
        tokio::select! {
            collected = self.0.collect() => collected.map_err(failed),
            _ = context.stopped() => Err(TaskFailure::passing("stopped", "the collection was stopped")),
        }
    }
}
