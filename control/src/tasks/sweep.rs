//! What no worker does for itself: leases that ran out, waits that are over, tasks nobody wants any
//! more. A reconciler without input: it may run in every process at once, as often as it likes.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::attempt::{Ending, advance, locked};
use super::{Queue, TaskError, TaskFailure};
use crate::domain::record;
use crate::domain::task::{TaskEvent, TaskState};
use crate::id::TaskId;
use crate::store::{self, Column as _, StoreError, Stored, Tx, arguments, read};
use crate::time::Timestamp;

/// What one pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Attempts whose lease ran out.
    pub lost: usize,
    /// Attempts that their worker did not stop in time.
    pub timed_out: usize,
    /// Tasks whose wait for the next attempt is over.
    pub requeued: usize,
    /// Tasks that waited too long for their first start.
    pub expired: usize,
}

/// Tasks that need something, and how one recognises them; `$1` is now, `$2` a lease ago.
#[derive(Clone, Copy)]
enum Overdue {
    Lease,
    Deadline,
    Wait,
    Start,
}

impl Overdue {
    const ALL: [Self; 4] = [Self::Lease, Self::Deadline, Self::Wait, Self::Start];

    const fn condition(self) -> &'static str {
        match self {
            Self::Lease => "lease_until < $1 AND state IN ('claimed', 'running', 'cancelling')",
            // Its worker ends it in time; this is for one that renews its lease and does nothing else.
            Self::Deadline => "lease_until >= $1 AND state = 'running' AND deadline_at < $2",
            Self::Wait => "state = 'retrying' AND run_at <= $1",
            Self::Start => "state = 'queued' AND attempt = 0 AND expires_at < $1",
        }
    }

    /// The condition again, for a row that was read under a lock.
    fn holds(self, task: &record::Task, now: Timestamp, lease: Duration) -> bool {
        let past =
            |instant: Option<Timestamp>, limit| instant.is_some_and(|instant| instant < limit);
        match self {
            Self::Lease => {
                past(task.lease_until, now)
                    && matches!(
                        task.state,
                        TaskState::Claimed | TaskState::Running | TaskState::Cancelling
                    )
            }
            Self::Deadline => {
                task.state == TaskState::Running && past(task.deadline_at, now.before(lease))
            }
            Self::Wait => task.state == TaskState::Retrying && task.run_at <= now,
            Self::Start => {
                task.state == TaskState::Queued && task.attempt == 0 && past(task.expires_at, now)
            }
        }
    }
}

/// Rows of a kind in one pass; the rest comes with the next.
const BATCH: u32 = 500;
/// Rows in one transaction: others wait no longer than for these.
const TOGETHER: usize = 50;

impl Queue {
    /// One pass over everything that is overdue.
    ///
    /// # Errors
    /// Only the database's own; what was done until then stays done.
    pub async fn sweep(&self) -> Result<Swept, TaskError> {
        let mut swept = Swept::default();
        for overdue in Overdue::ALL {
            for ids in self.overdue(overdue).await?.chunks(TOGETHER) {
                let done = self.settle(overdue, ids).await?;
                *match overdue {
                    Overdue::Lease => &mut swept.lost,
                    Overdue::Deadline => &mut swept.timed_out,
                    Overdue::Wait => &mut swept.requeued,
                    Overdue::Start => &mut swept.expired,
                } += done;
            }
        }
        if swept.lost + swept.timed_out + swept.requeued > 0 {
            self.signals.work.notify_waiters();
        }
        Ok(swept)
    }

    async fn overdue(&self, overdue: Overdue) -> Result<Vec<TaskId>, TaskError> {
        let now = Timestamp::now();
        let condition = overdue.condition();
        let sql = format!(
            "SELECT id FROM tasks WHERE {condition} AND deleted_at IS NULL ORDER BY id LIMIT {BATCH}"
        );
        let mut values = vec![now.to_value()];
        if condition.contains("$2") {
            values.push(now.before(self.settings.lease).to_value());
        }
        // Safe: constants and a number.
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments(values)?)
            .fetch_all(&mut *self.store.reader().await?)
            .await?;
        let ids = rows.iter().map(|row| read(row, "id"));
        Ok(ids.collect::<Result<_, StoreError>>()?)
    }

    /// In the order of ids, so that two sweepers cannot wait for each other.
    async fn settle(&self, overdue: Overdue, ids: &[TaskId]) -> Result<usize, TaskError> {
        let mut tx = self.store.begin().await?;
        let mut done = Vec::new();
        for &id in ids {
            let task = locked(&mut tx, id).await?;
            // Another sweeper, or the worker itself, may have been faster.
            if overdue.holds(&task, tx.now(), self.settings.lease) {
                self.settle_one(&mut tx, overdue, task).await?;
                done.push(id);
            }
        }
        tx.commit().await?;
        done.iter().for_each(|&id| self.changed(id));
        Ok(done.len())
    }

    async fn settle_one(
        &self,
        tx: &mut Tx,
        overdue: Overdue,
        task: Stored<record::Task>,
    ) -> Result<(), TaskError> {
        let now = tx.now();
        match overdue {
            Overdue::Lease => self.end(tx, task, Ending::Lost).await?,
            Overdue::Deadline => {
                let failure = timed_out(&task);
                self.end(tx, task, Ending::TimedOut(failure)).await?
            }
            Overdue::Wait => advance(tx, &task, TaskEvent::Requeue, |_| {}).await?,
            Overdue::Start => {
                let failure = TaskFailure::lasting(
                    "queue_timeout",
                    "no worker was free for it before its queue timeout",
                );
                advance(tx, &task, TaskEvent::Cancel, |task| {
                    task.error = Some(store::Json(failure.document()));
                    task.finished_at = Some(now);
                })
                .await?
            }
        };
        Ok(())
    }
}

/// The failure of an attempt that took too long. Another attempt may be faster.
pub(super) fn timed_out(task: &record::Task) -> TaskFailure {
    let limit = Duration::from_micros(task.timeout_us.unwrap_or(0).unsigned_abs());
    TaskFailure::passing(
        "timed_out",
        format!("took longer than its timeout of {} s", limit.as_secs_f64()),
    )
}
