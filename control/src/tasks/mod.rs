//! Work that takes longer than a request, and that a crash must neither lose nor finish twice.
//!
//! A task is a row. Whoever wants work done puts one into the [`Queue`]; a [`Worker`], in this process or another,
//! claims it for the time of a lease and keeps the lease by heartbeats. Every claim raises the task's fencing token, and
//! every later write names the token it was given: a worker that was thought dead and comes back is refused.
//! So a task may be *begun* several times, but it is *completed* once.
//!
//! What a worker does for a kind of task is a [`Task`]. It reports through its [`TaskContext`] and remembers what it has
//! finished by steps; a later attempt goes on after the last of them. Programs that it starts run through an
//! [`Executor`](executor::Executor), which limits them and ends them with all that they started.
//!
//! Leases are measured by the workers' clocks. If those differ by more than a lease, tasks are begun more often than
//! needed, never completed twice.

mod attempt;
pub mod backoff;
mod context;
mod error;
pub mod executor;
mod follow;
mod journal;
mod kind;
mod new_task;
mod queue;
mod recorder;
mod sweep;
mod worker;

pub use backoff::Backoff;
pub use context::{Owner, StopReason, TaskContext};
pub use error::{TaskError, TaskFailure};
pub use follow::Follower;
pub use journal::{Attempt, EventKind, TaskLogEvent, Watch};
pub use kind::{Kinds, Task};
pub use new_task::NewTask;
pub use queue::{Claim, KindLimit, Queue, QueueSettings};
pub use sweep::Swept;
pub use worker::{Worker, WorkerSettings};

#[cfg(test)]
mod tests;
