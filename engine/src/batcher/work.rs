//! A [`BatchQueue`] between async callers and worker threads: the shell around
//! the pure queue. Callers hand in a job and await a [`Ticket`]; threads take
//! batches. One mutex, held for microseconds, and one condition variable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{BatchQueue, Budget, Item, ItemId};
use crate::error::SubmitError;
use crate::request::Priority;

/// An accepted job has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// The deadline passed first.
    #[error("the deadline passed before the result was there")]
    Deadline,
    /// The run failed, or the worker was lost in it.
    #[error("{0}")]
    Failed(String),
    /// The workers were lost before the job's run began: another executor may take it.
    #[error("{0}")]
    NotBegun(String),
}

/// Where the time of one job went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkTimings {
    /// From submission to the beginning of its run.
    pub queue: Duration,
    /// The run of its batch.
    pub compute: Duration,
    /// Jobs in its batch.
    pub batch: usize,
}

/// Counters of a single-shot model, read at scrape time. They correspond to
/// Triton's `nv_inference_*` metrics.
#[derive(Debug, Default)]
pub struct WorkStats {
    /// Jobs that were answered (`nv_inference_request_success`).
    pub success: AtomicU64,
    /// Jobs whose run failed (`nv_inference_request_failure`).
    pub failure: AtomicU64,
    /// Jobs whose deadline passed in the queue.
    pub expired: AtomicU64,
    /// Jobs run (`nv_inference_count`).
    pub count: AtomicU64,
    /// Batches run (`nv_inference_exec_count`).
    pub exec_count: AtomicU64,
    /// Tokens run, without padding.
    pub tokens: AtomicU64,
    /// Microseconds that jobs waited, summed (`nv_inference_queue_duration_us`).
    pub queue_us: AtomicU64,
    /// Microseconds that batches ran, once for each of their jobs
    /// (`nv_inference_compute_infer_duration_us`).
    pub compute_us: AtomicU64,
}

/// A job on its way to a worker.
#[derive(Debug)]
pub(crate) struct Work<J, R> {
    pub(crate) job: J,
    reply: oneshot::Sender<Result<(R, WorkTimings), WorkError>>,
    submitted: Instant,
}

/// What a job asks of the queue.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms {
    /// Cost, in the budget's unit; at least 1 is counted.
    pub(crate) tokens: usize,
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<Instant>,
}

#[derive(Debug)]
struct State<J, R> {
    queue: BatchQueue<Work<J, R>>,
    /// Workers that hold a batch.
    busy: usize,
    /// Tokens of the batches that they hold.
    running: usize,
    /// Why nothing is accepted any more.
    closed: Option<String>,
    /// A worker was lost: not a shutdown but a failure.
    failed: bool,
    /// Seconds of one worker for one token, smoothed; 0 while unknown.
    pace: f64,
}

/// The queue and the workers' rendezvous.
#[derive(Debug)]
pub(crate) struct WorkQueue<J, R> {
    state: Mutex<State<J, R>>,
    wake: Condvar,
    workers: usize,
    /// Workers whose threads have not ended.
    threads: AtomicUsize,
    pub(crate) stats: WorkStats,
}

impl<J, R> WorkQueue<J, R> {
    pub(crate) fn new(max_waiting: usize, workers: usize) -> Self {
        Self {
            state: Mutex::new(State {
                queue: BatchQueue::new(max_waiting),
                busy: 0,
                running: 0,
                closed: None,
                failed: false,
                pace: 0.0,
            }),
            wake: Condvar::new(),
            workers: workers.max(1),
            threads: AtomicUsize::new(0),
            stats: WorkStats::default(),
        }
    }

    /// Queues a job; never blocks on a run.
    pub(crate) fn submit(
        self: &Arc<Self>,
        job: J,
        terms: Terms,
    ) -> Result<Ticket<J, R>, SubmitError> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if let Some(reason) = &state.closed {
            return Err(SubmitError::Unavailable(reason.clone()));
        }
        let wait = self.expected_wait(&state, terms.priority);
        let whole = wait + self.expected_service(&state, terms.tokens);
        if let Some(deadline) = terms.deadline
            && now + whole + whole / 8 >= deadline
        {
            return Err(SubmitError::DeadlineUnmeetable {
                expected_wait: whole,
            });
        }
        let (reply, answer) = oneshot::channel();
        let item = Item {
            tokens: terms.tokens.max(1),
            priority: terms.priority,
            deadline: terms.deadline,
            value: Work {
                job,
                reply,
                submitted: now,
            },
        };
        let waiting = state.queue.len();
        let id = state
            .queue
            .push(item, now)
            .map_err(|_| SubmitError::QueueFull {
                waiting,
                retry_after: wait.max(Duration::from_millis(1)),
            })?;
        drop(state);
        self.wake.notify_one();
        Ok(Ticket {
            queue: Arc::clone(self),
            id,
            answer,
            deadline: terms.deadline,
        })
    }

    /// How long the tokens ahead of a new job of this class take, and what runs: of that half
    /// is over on average.
    fn expected_wait(&self, state: &State<J, R>, priority: Priority) -> Duration {
        let running = match state.busy < self.workers {
            true => 0.0,
            false => state.running as f64 / 2.0,
        };
        let ahead = state.queue.tokens_from(priority) as f64 + running;
        seconds(ahead * state.pace / self.workers as f64)
    }

    /// How long a job of so many tokens takes itself. Nothing when all workers are idle: only so
    /// is it noticed when they have become faster.
    fn expected_service(&self, state: &State<J, R>, tokens: usize) -> Duration {
        match state.busy {
            0 => Duration::ZERO,
            _ => seconds(tokens as f64 * state.pace),
        }
    }

    /// The next batch for a worker, as soon as there is one; `None` after
    /// [`close`](Self::close) once the queue is empty.
    pub(crate) fn take(&self, budget: &Budget) -> Option<Batch<'_, J, R>> {
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            let expired = state.queue.expire(now);
            if !expired.is_empty() {
                self.stats.expired.fetch_add(expired.len() as u64, Relaxed);
                for item in expired {
                    // The caller may be gone.
                    let _ = item.value.reply.send(Err(WorkError::Deadline));
                }
            }
            let items = state.queue.pop(budget, now);
            if !items.is_empty() {
                state.busy += 1;
                let tokens: usize = items.iter().map(|item| item.tokens).sum();
                state.running += tokens;
                return Some(Batch {
                    tokens,
                    alone: state.busy == 1 && state.queue.is_empty(),
                    works: items.into_iter().map(|item| item.value).collect(),
                    started: now,
                    queue: self,
                });
            }
            if state.closed.is_some() {
                return None;
            }
            self.wake.wait(&mut state);
        }
    }

    /// Accepts no more; what waits still runs, then the workers end.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state
            .closed
            .get_or_insert_with(|| "the model is being unloaded".to_owned());
        drop(state);
        self.wake.notify_all();
    }

    /// Accepts no more and fails what waits.
    pub(crate) fn fail(&self, reason: &str) {
        let mut state = self.state.lock();
        state.failed = true;
        state.closed = Some(reason.to_owned());
        let everything = Budget {
            tokens: usize::MAX,
            items: usize::MAX,
            padding: usize::MAX,
            max_age: Duration::MAX,
        };
        loop {
            let items = state.queue.pop(&everything, Instant::now());
            if items.is_empty() {
                break;
            }
            self.stats.failure.fetch_add(items.len() as u64, Relaxed);
            for item in items {
                let error = WorkError::NotBegun(reason.to_owned());
                let _ = item.value.reply.send(Err(error));
            }
        }
        drop(state);
        self.wake.notify_all();
    }

    /// Whether no worker was lost.
    pub(crate) fn healthy(&self) -> bool {
        !self.state.lock().failed
    }

    /// Whether all workers have ended and given their memory back.
    pub(crate) fn ended(&self) -> bool {
        self.threads.load(SeqCst) == 0
    }

    /// Jobs waiting and workers running.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.queue.len(), state.busy)
    }
}

/// At most an hour, which is for ever.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds)
        .unwrap_or(Duration::MAX)
        .min(Duration::from_secs(3600))
}

/// A batch in a worker's hands. Dropped unanswered (a panic), its jobs fail.
pub(crate) struct Batch<'q, J, R> {
    pub(crate) works: Vec<Work<J, R>>,
    /// Nothing else runs or waits: all cores are free for this batch.
    pub(crate) alone: bool,
    tokens: usize,
    started: Instant,
    queue: &'q WorkQueue<J, R>,
}

impl<J, R> Batch<'_, J, R> {
    /// The jobs, in the batch's order.
    pub(crate) fn jobs(&self) -> impl ExactSizeIterator<Item = &J> {
        self.works.iter().map(|work| &work.job)
    }

    /// Answers each job; results are in the batch's order.
    pub(crate) fn answer(mut self, results: impl IntoIterator<Item = Result<R, WorkError>>) {
        let works = std::mem::take(&mut self.works);
        let compute = self.started.elapsed();
        let stats = &self.queue.stats;
        let count = works.len() as u64;
        stats.exec_count.fetch_add(1, Relaxed);
        stats.count.fetch_add(count, Relaxed);
        stats.tokens.fetch_add(self.tokens as u64, Relaxed);
        stats
            .compute_us
            .fetch_add(compute.as_micros() as u64 * count, Relaxed);
        for (work, result) in works.into_iter().zip(results) {
            let timings = WorkTimings {
                queue: self.started.saturating_duration_since(work.submitted),
                compute,
                batch: count as usize,
            };
            let outcome = match result {
                Ok(_) => &stats.success,
                Err(_) => &stats.failure,
            };
            outcome.fetch_add(1, Relaxed);
            stats
                .queue_us
                .fetch_add(timings.queue.as_micros() as u64, Relaxed);
            // The caller may be gone.
            let _ = work.reply.send(result.map(|result| (result, timings)));
        }
        self.queue.note_pace(self.tokens, compute);
    }
}

impl<J, R> WorkQueue<J, R> {
    fn note_pace(&self, tokens: usize, compute: Duration) {
        const WEIGHT: f64 = 0.1;
        let pace = compute.as_secs_f64() / tokens.max(1) as f64;
        let mut state = self.state.lock();
        state.pace += match state.pace {
            0.0 => pace,
            known => WEIGHT * (pace - known),
        };
    }
}

impl<J, R> Drop for Batch<'_, J, R> {
    fn drop(&mut self) {
        // Not empty: the worker panicked. Dropping the replies tells the callers.
        let lost = self.works.len() as u64;
        self.queue.stats.failure.fetch_add(lost, Relaxed);
        let mut state = self.queue.state.lock();
        state.busy -= 1;
        state.running -= self.tokens;
    }
}

/// A job's result to come. Dropping it takes the job out of the queue.
pub(crate) struct Ticket<J, R> {
    queue: Arc<WorkQueue<J, R>>,
    id: ItemId,
    answer: oneshot::Receiver<Result<(R, WorkTimings), WorkError>>,
    deadline: Option<Instant>,
}

impl<J, R> Ticket<J, R> {
    /// Waits for the result, no longer than the deadline.
    pub(crate) async fn wait(mut self) -> Result<(R, WorkTimings), WorkError> {
        let answer = match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), &mut self.answer)
                .await
                .map_err(|_| WorkError::Deadline)?,
            None => (&mut self.answer).await,
        };
        answer.unwrap_or_else(|_| Err(WorkError::Failed("the worker is lost".to_owned())))
    }
}

impl<J, R> Drop for Ticket<J, R> {
    fn drop(&mut self) {
        drop(self.queue.state.lock().queue.remove(self.id));
    }
}

/// Starts a thread that runs `body` on one batch after another. A panic, or the
/// error with which `body` gives up, fails the whole queue: the model is unhealthy
/// from then on.
pub(crate) fn spawn_worker<J, R>(
    queue: Arc<WorkQueue<J, R>>,
    thread: String,
    budget: Budget,
    mut body: impl FnMut(Batch<'_, J, R>) -> Result<(), String> + Send + 'static,
) -> std::io::Result<()>
where
    J: Send + 'static,
    R: Send + 'static,
{
    let counted = Arc::clone(&queue);
    let work = move || {
        let run = std::panic::AssertUnwindSafe(|| {
            while let Some(batch) = queue.take(&budget) {
                body(batch)?;
            }
            Ok(())
        });
        let end = std::panic::catch_unwind(run);
        let end = end.unwrap_or_else(|_| Err("a worker of the model panicked".to_owned()));
        if let Err(reason) = end {
            queue.fail(&reason);
        }
        // What it ran on goes before the count by which others know that it is gone.
        drop(body);
        queue.threads.fetch_sub(1, SeqCst);
    };
    counted.threads.fetch_add(1, SeqCst);
    let spawned = std::thread::Builder::new().name(thread).spawn(work);
    if spawned.is_err() {
        counted.threads.fetch_sub(1, SeqCst);
    }
    spawned.map(drop)
}

#[cfg(test)]
mod tests;
