//! The bounded queue between requests and the owner thread. First come, first
//! served; requests that fit the first one's shape may be taken along.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{InferError, Inference, NamedTensor};

/// One checked request.
#[derive(Debug)]
pub(super) struct Job {
    /// Examples in it.
    pub(super) rows: usize,
    /// In the graph's order.
    pub(super) inputs: Vec<NamedTensor>,
    /// Outputs asked for, in this order; never empty.
    pub(super) wanted: Vec<Arc<str>>,
    pub(super) submitted: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) answer: oneshot::Sender<Result<Inference, InferError>>,
}

impl Job {
    /// Whether anybody still wants the answer.
    fn is_alive(&self, now: Instant) -> bool {
        !self.answer.is_closed() && self.deadline.is_none_or(|deadline| now < deadline)
    }

    /// Answers it. A client that is gone does not care.
    pub(super) fn answer(self, result: Result<Inference, InferError>) {
        _ = self.answer.send(result);
    }

    /// Whether both can be rows of one run: equal shapes but for the first
    /// dimension, and the same outputs.
    fn merges_with(&self, other: &Self) -> bool {
        let row = |tensor: &NamedTensor| tensor.shape.get(1..).map(<[i64]>::to_vec);
        self.wanted == other.wanted
            && self.inputs.len() == other.inputs.len()
            && self
                .inputs
                .iter()
                .zip(&other.inputs)
                .all(|(a, b)| row(a) == row(b))
    }
}

#[derive(Debug)]
struct State {
    jobs: VecDeque<Job>,
    /// Why nothing is taken any more.
    closed: Option<String>,
}

/// Shared by the model's handle and its thread and by nobody else, so that the handle
/// sees by the count of owners that the thread is gone.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    capacity: usize,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                closed: None,
            }),
            arrived: Condvar::new(),
            capacity: capacity.max(1),
        }
    }

    /// Queues a request. When there is no room, the places of those that nobody
    /// waits for any more are freed first.
    pub(super) fn push(
        &self,
        job: Job,
        now: Instant,
        retry_after: impl FnOnce(usize) -> Duration,
    ) -> Result<(), InferError> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.closed {
            return Err(InferError::Unavailable(reason.clone()));
        }
        if state.jobs.len() >= self.capacity {
            state.jobs.retain(|job| job.is_alive(now));
        }
        let waiting = state.jobs.len();
        if waiting >= self.capacity {
            let retry_after = retry_after(waiting);
            return Err(InferError::QueueFull {
                waiting,
                retry_after,
            });
        }
        state.jobs.push_back(job);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for work: the oldest request and, up to `max_rows` in all, those
    /// waiting right behind it that merge with it. Never waits for a batch to
    /// fill. `None`: closed, and nothing is left.
    pub(super) fn pop(&self, max_rows: usize) -> Option<Vec<Job>> {
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            if let Some(batch) = take(&mut state.jobs, max_rows, now) {
                return Some(batch);
            }
            if state.closed.is_some() {
                return None;
            }
            self.arrived.wait(&mut state);
        }
    }

    /// Refuses new requests from now on. The first reason stays.
    pub(super) fn close(&self, reason: &str) {
        let mut state = self.state.lock();
        state.closed.get_or_insert_with(|| reason.to_owned());
        self.arrived.notify_all();
    }

    /// Closes, and refuses those waiting too.
    pub(super) fn fail(&self, reason: &str) {
        self.close(reason);
        let waiting = std::mem::take(&mut self.state.lock().jobs);
        for job in waiting {
            job.answer(Err(InferError::Unavailable(reason.to_owned())));
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.state.lock().jobs.len()
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.lock().closed.is_none()
    }
}

/// The next batch of those still alive; `None` when none is. Pure but for the
/// answers to the expired.
fn take(jobs: &mut VecDeque<Job>, max_rows: usize, now: Instant) -> Option<Vec<Job>> {
    let mut batch: Vec<Job> = Vec::new();
    let mut rows = 0;
    while let Some(job) = jobs.pop_front() {
        if !job.is_alive(now) {
            job.answer(Err(InferError::Deadline));
            continue;
        }
        let fits = rows + job.rows <= max_rows;
        if batch
            .first()
            .is_some_and(|first| !fits || !first.merges_with(&job))
        {
            jobs.push_front(job);
            break;
        }
        rows += job.rows;
        batch.push(job);
        if rows >= max_rows {
            break;
        }
    }
    (!batch.is_empty()).then_some(batch)
}
