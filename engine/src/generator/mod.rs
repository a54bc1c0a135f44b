//! Generation as a service: one device thread per model, and the handle by which
//! the async world talks to it.
//!
//! [`GeneratorHandle::submit`] validates, takes a place in the queue (or refuses
//! at once) and hands the request over through one bounded channel. The device
//! thread ([`device`]) loops `schedule → execute → sample → publish`; events come
//! back through one channel per request whose capacity covers all that can ever be
//! sent, so the device never waits for a client. Dropping the [`Generation`]
//! cancels: the slot is free within one step.
//!
//! Memory: at most `max_waiting` + slots requests exist; K/V and logits are bounded
//! as [`GeneratorOptions`] and [`crate::backend::Capabilities`] state.

mod device;
mod options;
mod stats;
mod stream;
#[cfg(test)]
mod tests;
mod validate;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::backend::{BackendFactory, Capabilities};
use crate::error::{LoadError, SubmitError};
use crate::request::{GenerateRequest, GenerationEvent, Meter, Priority};
use device::Command;
pub use options::GeneratorOptions;
pub use stats::{BATCH_SIZE_BOUNDS, GeneratorSnapshot, GeneratorStats};
use stream::Submission;

/// Events of a sequence beside its tokens: `Prompt`, and `Finished` or `Failed`.
const OTHER_EVENTS: usize = 2;

/// Room in the channel for [`Command::Wake`] beside the admitted requests.
const WAKES: usize = 16;

/// A running generator. Cheap to clone; when the last handle is dropped, what runs
/// is finished and the thread ends.
#[derive(Debug, Clone)]
pub struct GeneratorHandle {
    shared: Arc<Shared>,
    commands: SyncSender<Command>,
}

/// What handles, generations and the device thread have in common.
#[derive(Debug)]
struct Shared {
    name: String,
    options: GeneratorOptions,
    capabilities: Capabilities,
    stats: GeneratorStats,
    /// Requests that are admitted and not started, all priorities.
    places: AtomicU64,
    closing: AtomicBool,
    aborting: AtomicBool,
    /// Counts cancellations, so that the device thread looks for them only when
    /// there are new ones.
    cancellations: AtomicU64,
    /// Why the backend is unusable.
    failure: OnceLock<String>,
    epoch: Instant,
    /// When the step in progress began, in nanoseconds after `epoch`; 0: none.
    step_began: AtomicU64,
}

impl GeneratorHandle {
    /// Starts the device thread, builds the backend on it and warms it up; returns
    /// when it is ready to serve.
    ///
    /// # Errors
    /// Whatever the factory or the warm-up refuses.
    pub fn start(
        name: &str,
        factory: BackendFactory,
        options: GeneratorOptions,
    ) -> Result<Self, LoadError> {
        let (commands, shared) = device::start(name, factory, options)?;
        Ok(Self { shared, commands })
    }

    /// Submits one sequence. Never blocks.
    ///
    /// `max_tokens` is cut to what the context has left after the prompt. The token
    /// that ends a sequence by [`crate::request::FinishReason::Stop`] (end-of-sequence
    /// or a stop token) is counted but not published.
    ///
    /// # Errors
    /// See [`SubmitError`]; nothing was started.
    pub fn submit(&self, request: GenerateRequest) -> Result<Generation, SubmitError> {
        self.try_submit(request).inspect_err(|_| {
            self.shared.stats.refused.fetch_add(1, Relaxed);
        })
    }

    fn try_submit(&self, mut request: GenerateRequest) -> Result<Generation, SubmitError> {
        let shared = &self.shared;
        shared.check_open()?;
        validate::check(&mut request, &shared.capabilities)?;
        shared.check_deadline(&request)?;
        let place = Place::take(shared, request.priority)?;
        let (sender, receiver) = mpsc::channel(request.params.max_tokens + OTHER_EVENTS);
        let cancelled = Arc::new(AtomicBool::new(false));
        let prompt = Arc::clone(&request.prompt);
        let meter = Meter::default();
        let submission = Submission {
            request,
            events: sender,
            cancelled: Arc::clone(&cancelled),
            meter: meter.clone(),
            place,
            submitted: Instant::now(),
        };
        match self
            .commands
            .try_send(Command::Submit(Box::new(submission)))
        {
            Ok(()) => Ok(Generation {
                events: receiver,
                cancelled,
                meter,
                prompt,
                ended: false,
                shared: Arc::clone(shared),
            }),
            // Places bound the submissions in the channel, so it is never full of them.
            Err(TrySendError::Full(_)) => Err(shared.queue_full()),
            Err(TrySendError::Disconnected(_)) => Err(shared.unavailable()),
        }
    }

    /// The name it was started with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The backend's, fixed since the start.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    /// The options it was started with.
    #[must_use]
    pub fn options(&self) -> &GeneratorOptions {
        &self.shared.options
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> &GeneratorStats {
        &self.shared.stats
    }

    /// Time until a request submitted now would get its first step.
    #[must_use]
    pub fn expected_wait(&self, priority: Priority) -> Duration {
        let shared = &self.shared;
        shared
            .stats
            .expected_wait(priority, shared.capabilities.slots)
    }

    /// Whether it accepts and serves requests.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.shared.check_open().is_ok()
    }

    /// How long the step in progress has been running; `None` between steps. A
    /// liveness probe compares it with what a step may take.
    #[must_use]
    pub fn step_age(&self) -> Option<Duration> {
        let began = Duration::from_nanos(self.shared.step_began.load(Relaxed));
        (!began.is_zero()).then(|| self.shared.epoch.elapsed().saturating_sub(began))
    }

    /// Refuses new requests; finishes those that run and wait; then the thread
    /// ends. Returns at once.
    pub fn close(&self) {
        self.shared.closing.store(true, SeqCst);
        self.wake();
    }

    /// As [`Self::close`], but those that run and wait fail after the current step.
    pub fn abort(&self) {
        self.shared.aborting.store(true, SeqCst);
        self.close();
    }

    /// Whether the device thread has ended and given its memory back.
    #[must_use]
    pub fn closed(&self) -> bool {
        // The probe is refused only once the thread has dropped its end.
        matches!(
            self.commands.try_send(Command::Wake),
            Err(TrySendError::Disconnected(_))
        )
    }

    fn wake(&self) {
        // A full channel means that the thread is awake anyway.
        let _ = self.commands.try_send(Command::Wake);
    }
}

impl Shared {
    fn check_open(&self) -> Result<(), SubmitError> {
        if self.failure.get().is_some() || self.closing.load(SeqCst) {
            Err(self.unavailable())
        } else {
            Ok(())
        }
    }

    fn check_deadline(&self, request: &GenerateRequest) -> Result<(), SubmitError> {
        let Some(deadline) = request.deadline else {
            return Ok(());
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let slots = self.capabilities.slots;
        let wait = self.stats.expected_wait(request.priority, slots);
        // An idle model takes everything: only so is it noticed when it has become faster.
        let service = match request.whole && self.stats.load() > 0 {
            true => self.stats.expected_service(request.params.max_tokens),
            false => Duration::ZERO,
        };
        if left.is_zero() || with_margin(wait + service) > left {
            Err(SubmitError::DeadlineUnmeetable {
                expected_wait: wait + service,
            })
        } else {
            Ok(())
        }
    }

    fn queue_full(&self) -> SubmitError {
        let waiting = self.stats.waiting();
        SubmitError::QueueFull {
            waiting: usize::try_from(waiting).unwrap_or(usize::MAX),
            retry_after: self
                .stats
                .turnover(self.capabilities.slots)
                .max(Duration::from_millis(1)),
        }
    }

    fn unavailable(&self) -> SubmitError {
        SubmitError::Unavailable(match self.failure.get() {
            Some(reason) => reason.clone(),
            None => format!("`{}` is being unloaded", self.name),
        })
    }
}

/// Averages say what half of the requests take; most are to meet their deadline.
fn with_margin(expected: Duration) -> Duration {
    expected + expected / 8
}

/// The right to wait, counted from submission to the first step. Given back when
/// dropped, wherever the request is lost.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    priority: Priority,
}

impl Place {
    fn take(shared: &Arc<Shared>, priority: Priority) -> Result<Self, SubmitError> {
        let slots = u64::from(shared.capabilities.slots);
        let free = slots.saturating_sub(shared.stats.running.load(Relaxed));
        let limit = shared.options.max_waiting as u64 + free;
        shared
            .places
            .fetch_update(SeqCst, SeqCst, |taken| (taken < limit).then_some(taken + 1))
            .map_err(|_| shared.queue_full())?;
        shared.stats.waiting[priority as usize].fetch_add(1, Relaxed);
        Ok(Self {
            shared: Arc::clone(shared),
            priority,
        })
    }

    /// For a preempted sequence, which was admitted before.
    fn again(shared: &Arc<Shared>, priority: Priority) -> Self {
        shared.places.fetch_add(1, SeqCst);
        shared.stats.waiting[priority as usize].fetch_add(1, Relaxed);
        Self {
            shared: Arc::clone(shared),
            priority,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.places.fetch_sub(1, SeqCst);
        self.shared.stats.waiting[self.priority as usize].fetch_sub(1, Relaxed);
    }
}

/// The events of one sequence. Dropping it cancels the sequence: its slot is free
/// within one step.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::Receiver<GenerationEvent>,
    cancelled: Arc<AtomicBool>,
    meter: Meter,
    prompt: Arc<[u32]>,
    ended: bool,
    shared: Arc<Shared>,
}

impl Generation {
    /// The next event; `None` after [`GenerationEvent::Finished`],
    /// [`GenerationEvent::Failed`], `NotBegun` or `Refused`, one of which
    /// always comes.
    pub async fn next(&mut self) -> Option<GenerationEvent> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Self::next`], for hand-written streams.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<GenerationEvent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.events
            .poll_recv(context)
            .map(|event| Some(self.note(event)))
    }

    /// An event that is already there. For collecting what one step has produced.
    pub fn try_next(&mut self) -> Option<GenerationEvent> {
        use mpsc::error::TryRecvError;
        if self.ended {
            return None;
        }
        match self.events.try_recv() {
            Ok(event) => Some(self.note(Some(event))),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(self.note(None)),
        }
    }

    /// What was computed so far, also after this was dropped.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The prompt's token ids, as submitted.
    #[must_use]
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// Ends the sequence within one step, with
    /// [`crate::request::FinishReason::Cancelled`].
    pub fn cancel(&self) {
        if !self.cancelled.swap(true, SeqCst) {
            self.shared.cancellations.fetch_add(1, SeqCst);
        }
    }

    fn note(&mut self, event: Option<GenerationEvent>) -> GenerationEvent {
        // The thread ended with the request still in its channel.
        let event = event
            .unwrap_or_else(|| GenerationEvent::NotBegun(self.shared.unavailable().to_string()));
        self.ended = matches!(
            event,
            GenerationEvent::Finished(_)
                | GenerationEvent::Failed(_)
                | GenerationEvent::NotBegun(_)
                | GenerationEvent::Refused(_)
        );
        event
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.ended {
            self.cancel();
        }
    }
}
