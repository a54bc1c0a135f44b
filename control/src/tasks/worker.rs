//! Works the queue: claims as many tasks as there are free slots, keeps their leases, and ends what has to
//! end. Runs inside `sluice serve` and as `sluice worker`; any number may share a database.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::attempt::Ending;
use super::context::{StopReason, Stopper, TaskContext};
use super::executor::{Executor, processes};
use super::journal::ClaimName;
use super::kind::{AnyTask, Kinds};
use super::queue::{Claim, Queue};
use super::recorder::Recorder;
use super::sweep::timed_out;
use super::{TaskError, TaskFailure};
use crate::domain::task::TaskState;
use crate::id::TaskId;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Tasks at once.
    pub slots: usize,
    /// Attempts' scratch folders and logs are made in here.
    pub scratch: PathBuf,
    /// Between two heartbeats, and so how soon a task hears that it is cancelled.
    pub heartbeat: Duration,
    /// Between two looks into an empty queue. What this process puts in is found at once.
    pub poll: Duration,
    /// Between two sweeps over leases that ran out and waits that are over.
    pub sweep: Duration,
    /// Between two writes of what an attempt reports.
    pub report: Duration,
    /// How long tasks may go on after the worker is told to stop; the rest is given back.
    pub drain: Duration,
    /// How long an attempt may take to stop. Longer than a program's grace, so that its end is orderly.
    pub stop: Duration,
    /// Bytes of an attempt's log on disk.
    pub log_file_bytes: u64,
    /// How long logs are kept on disk.
    pub keep_logs: Duration,
}

impl WorkerSettings {
    pub fn new(scratch: impl Into<PathBuf>) -> Self {
        Self {
            slots: 4,
            scratch: scratch.into(),
            heartbeat: Duration::from_secs(1),
            poll: Duration::from_millis(500),
            sweep: Duration::from_secs(2),
            report: Duration::from_millis(500),
            drain: Duration::from_secs(20),
            stop: Duration::from_secs(15),
            log_file_bytes: 64 * 1024 * 1024,
            keep_logs: Duration::from_secs(24 * 3600),
        }
    }
}

/// A worker at work. Dropped, it stops without a word, as if it were killed: use [`Worker::drain`].
#[derive(Debug)]
pub struct Worker {
    name: String,
    leaving: CancellationToken,
    working: JoinSet<()>,
}

impl Worker {
    pub fn start(
        queue: Queue,
        kinds: Kinds,
        executor: Arc<dyn Executor>,
        settings: WorkerSettings,
    ) -> Self {
        // Heartbeats are for all that a name holds, so no two processes, nor two lives of one, share it.
        let name = format!("{}-{}", std::process::id(), Uuid::now_v7().simple());
        let leaving = CancellationToken::new();
        let shared = Arc::new(Shared {
            name: name.clone(),
            queue,
            kinds,
            executor,
            settings,
            running: Mutex::default(),
        });
        let mut working = JoinSet::new();
        working.spawn(shared.run(leaving.clone()));
        Self {
            name,
            leaving,
            working,
        }
    }

    /// As it stands in the rows that it holds.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Claims no more, lets short tasks end, gives the others back, and returns when nothing runs any more.
    pub async fn drain(mut self) {
        self.leaving.cancel();
        while self.working.join_next().await.is_some() {}
    }
}

struct Shared {
    name: String,
    queue: Queue,
    kinds: Kinds,
    executor: Arc<dyn Executor>,
    settings: WorkerSettings,
    running: Mutex<HashMap<TaskId, (i64, Stopper)>>,
}

impl Shared {
    async fn run(self: Arc<Self>, leaving: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.settings.slots.max(1)));
        // Both end with this function: what they do is of use only while attempts run.
        let mut beside = JoinSet::new();
        beside.spawn(Arc::clone(&self).keep_leases());
        beside.spawn(Arc::clone(&self).sweep());
        let mut attempts = JoinSet::new();
        loop {
            let work = self.queue.signals.work.notified();
            tokio::pin!(work);
            // From here on a notice is not missed, also while the queue is looked at.
            work.as_mut().enable();
            let claimed = tokio::select! {
                () = leaving.cancelled() => break,
                claimed = self.claim(&slots) => claimed,
            };
            if claimed.is_empty() {
                tokio::select! {
                    () = leaving.cancelled() => break,
                    () = work => {}
                    () = sleep(self.settings.poll) => {}
                }
            }
            for (claim, permit) in claimed {
                attempts.spawn(Arc::clone(&self).attempt(claim, permit));
            }
            while attempts.try_join_next().is_some() {}
        }
        self.leave(attempts).await;
    }

    async fn leave(&self, mut attempts: JoinSet<()>) {
        let all = async { while attempts.join_next().await.is_some() {} };
        tokio::pin!(all);
        if timeout(self.settings.drain, &mut all).await.is_err() {
            for (_, stopper) in self.running.lock().values() {
                stopper.stop(StopReason::Draining);
            }
            all.await;
        }
    }

    /// Waits for a free slot, then fills as many as it can.
    async fn claim(&self, slots: &Arc<Semaphore>) -> Vec<(Claim, OwnedSemaphorePermit)> {
        // The semaphore is never closed.
        let Ok(first) = Arc::clone(slots).acquire_owned().await else {
            return Vec::new();
        };
        let mut permits = vec![first];
        while let Ok(permit) = Arc::clone(slots).try_acquire_owned() {
            permits.push(permit);
        }
        let claimed = self
            .queue
            .claim(&self.name, &self.kinds.limits(), permits.len())
            .await;
        match claimed {
            Ok(claims) => claims.into_iter().zip(permits).collect(),
            Err(error) => {
                tracing::warn!(error = %TaskFailure::from(error), "no tasks can be claimed");
                Vec::new()
            }
        }
    }

    async fn keep_leases(self: Arc<Self>) {
        loop {
            sleep(self.settings.heartbeat).await;
            // Those of before the heartbeat: one that is claimed meanwhile is not in its answer.
            let before: Vec<_> = self
                .running
                .lock()
                .iter()
                .map(|(id, (token, stopper))| (*id, *token, stopper.clone()))
                .collect();
            if before.is_empty() {
                continue;
            }
            match self.queue.heartbeat(&self.name).await {
                Ok(held) => {
                    let held: HashMap<_, _> = held
                        .into_iter()
                        .map(|(id, token, state)| ((id, token), state))
                        .collect();
                    for (id, token, stopper) in before {
                        match held.get(&(id, token)) {
                            Some(TaskState::Cancelling) => stopper.stop(StopReason::Cancelled),
                            Some(_) => {}
                            None => stopper.stop(StopReason::Fenced),
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %TaskFailure::from(error), "leases cannot be renewed");
                }
            }
        }
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            // Killed workers' programs first, so that a second attempt does not run beside the first.
            let scratch = self.settings.scratch.clone();
            let keep = self.settings.keep_logs;
            let tidied = tokio::task::spawn_blocking(move || {
                let orphans = processes::end_orphans();
                if orphans > 0 {
                    tracing::warn!(orphans, "ended processes that killed workers had left");
                }
                forget_old_logs(&scratch, keep);
            });
            _ = tidied.await;
            if let Err(error) = self.queue.sweep().await {
                tracing::warn!(error = %TaskFailure::from(error), "the queue cannot be swept");
            }
            for (kind, task) in self.kinds.all() {
                if let Err(error) = task.settle(&self.queue).await {
                    tracing::warn!(kind, %error, "what tasks have left cannot be settled");
                }
            }
            sleep(self.settings.sweep).await;
        }
    }

    async fn attempt(self: Arc<Self>, mut claim: Claim, permit: OwnedSemaphorePermit) {
        let stopper = Stopper::default();
        let held = (claim.token(), stopper.clone());
        self.running.lock().insert(claim.id, held);
        if let Err(error) = self.attempt_held(&mut claim, stopper).await {
            match error {
                TaskError::Fenced { .. } => {
                    tracing::info!(%error, "an attempt came to nothing");
                }
                error => {
                    tracing::error!(task = %claim.id, error = %TaskFailure::from(error), "the end of an attempt could not be written")
                }
            }
        }
        self.running.lock().remove(&claim.id);
        drop(permit);
    }

    async fn attempt_held(&self, claim: &mut Claim, stopper: Stopper) -> Result<(), TaskError> {
        if let Err(error) = self.queue.start(claim).await {
            // Cancelled before its start; or lost, and then this is refused too.
            self.queue.finish(claim, Ending::Cancelled).await?;
            return Err(error);
        }
        let ending = match self.kinds.get(&claim.task.kind) {
            Some(work) => self.work(claim, work, &stopper).await,
            None => Ending::GivenBack,
        };
        self.finish(claim, ending).await
    }

    /// Does the work, with all that it needs around it.
    async fn work(&self, claim: &Claim, work: Arc<dyn AnyTask>, stopper: &Stopper) -> Ending {
        let folder = self
            .settings
            .scratch
            .join(claim.id.to_string())
            .join(claim.attempt().to_string());
        let scratch = folder.join("work");
        let prepared = async {
            tokio::fs::create_dir_all(&scratch).await?;
            let recorder = Recorder::new(&folder.join("log.txt"), self.settings.log_file_bytes)?;
            let checkpoints = match claim.attempt() {
                1 => HashMap::new(),
                _ => self.queue.checkpoints(claim.id).await?,
            };
            Ok::<_, TaskFailure>((Arc::new(recorder), checkpoints))
        };
        let (recorder, checkpoints) = match prepared.await {
            Ok(prepared) => prepared,
            Err(failure) => return Ending::Failed(failure),
        };
        let context = TaskContext {
            queue: self.queue.clone(),
            claim: ClaimName::from(claim),
            recorder: Arc::clone(&recorder),
            checkpoints: Mutex::new(checkpoints),
            stopper: stopper.clone(),
            scratch,
            executor: Arc::clone(&self.executor),
            stage: Mutex::new((0.0, 1.0)),
        };
        let over = CancellationToken::new();
        let working = async {
            let ending = self.until_stopped(claim, &context, work.as_ref()).await;
            over.cancel();
            ending
        };
        // Joined, not raced: a report that is being written when the work ends would be lost.
        let reporting = self.keep_reporting(&context.claim, &recorder, &over);
        let (ending, ()) = tokio::join!(working, reporting);
        let report = recorder.take();
        if !report.is_empty()
            && let Err(error) = self.queue.report(&context.claim, &report).await
        {
            tracing::debug!(task = %claim.id, %error, "a last report was not written");
        }
        _ = tokio::fs::remove_dir_all(&context.scratch).await;
        ending
    }

    async fn until_stopped(
        &self,
        claim: &Claim,
        context: &TaskContext,
        work: &dyn AnyTask,
    ) -> Ending {
        let stopper = &context.stopper;
        let working =
            AssertUnwindSafe(work.run(claim.task.params.0.clone(), context)).catch_unwind();
        tokio::pin!(working);
        let deadline = async {
            match claim.task.timeout_us {
                Some(us) => sleep(Duration::from_micros(us.unsigned_abs())).await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            result = &mut working => Some(result),
            () = stopper.stopped() => None,
            () = deadline => {
                stopper.stop(StopReason::TimedOut);
                None
            }
        };
        let result = match result {
            Some(result) => Some(result),
            None => timeout(self.settings.stop, working).await.ok(),
        };
        let failed = match result {
            Some(Ok(Ok(result))) => return Ending::Succeeded(result),
            Some(Ok(Err(failure))) => Some(failure),
            Some(Err(_)) => Some(TaskFailure::lasting(
                "panicked",
                "the program has an error here: the attempt panicked",
            )),
            None => None,
        };
        match (stopper.reason(), failed) {
            (None, Some(failure)) => Ending::Failed(failure),
            (Some(StopReason::TimedOut), _) => Ending::TimedOut(timed_out(&claim.task)),
            (Some(StopReason::Cancelled), _) => Ending::Cancelled,
            (Some(StopReason::Draining | StopReason::Fenced) | None, _) => Ending::GivenBack,
        }
    }

    /// Writes what is reported, until the work is over.
    async fn keep_reporting(
        &self,
        claim: &ClaimName,
        recorder: &Recorder,
        over: &CancellationToken,
    ) {
        while over
            .run_until_cancelled(sleep(self.settings.report))
            .await
            .is_some()
        {
            let report = recorder.take();
            if report.is_empty() {
                continue;
            }
            match self.queue.report(claim, &report).await {
                Ok(()) => {}
                // The heartbeat will say so too, and stop the attempt.
                Err(TaskError::Fenced { .. }) => return,
                Err(error) => {
                    tracing::warn!(task = %claim.id, %error, "a report is not written yet");
                    recorder.put_back(report);
                }
            }
        }
    }

    /// Writes the end. A database that is away for a moment should not cost the work.
    async fn finish(&self, claim: &Claim, ending: Ending) -> Result<(), TaskError> {
        let lease = self.queue.settings.lease;
        let began = std::time::Instant::now();
        loop {
            match self.queue.finish(claim, ending.clone()).await {
                Err(TaskError::Store(error)) if error.is_retryable() && began.elapsed() < lease => {
                    tracing::warn!(task = %claim.id, %error, "the end of an attempt is not written yet");
                    sleep(Duration::from_millis(200)).await;
                }
                other => return other.map(drop),
            }
        }
    }
}

/// Deletes the folders of attempts that ended long ago.
fn forget_old_logs(scratch: &Path, keep: Duration) {
    let Ok(folders) = std::fs::read_dir(scratch) else {
        return;
    };
    for folder in folders.flatten() {
        // Only what has a task's name is ours.
        let ours = folder
            .file_name()
            .to_str()
            .is_some_and(|name| name.parse::<TaskId>().is_ok());
        if ours && newest_change(&folder.path()).is_some_and(|age| age > keep) {
            _ = std::fs::remove_dir_all(folder.path());
        }
    }
}

/// How long ago an attempt's folder, or its log, changed last.
fn newest_change(task: &Path) -> Option<Duration> {
    let age = |path: &Path| {
        std::fs::metadata(path)
            .ok()?
            .modified()
            .ok()?
            .elapsed()
            .ok()
    };
    let attempts = std::fs::read_dir(task).ok()?.flatten();
    let ages =
        attempts.flat_map(|attempt| [age(&attempt.path()), age(&attempt.path().join("log.txt"))]);
    ages.flatten().chain(age(task)).min()
}
