//! The strings by which a test pulls the fake backend.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::error::BackendError;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// [`BackendError::Step`].
    Step,
    /// [`BackendError::Fatal`].
    Fatal,
    /// A panic on the device thread.
    Panic,
}

/// Shared between a test and the backend on its device thread. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct FakeControl {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Steps begun.
    steps: u64,
    /// Steps still allowed; `None`: any number.
    allowed: Option<u64>,
    /// Failures to come, by number of step (the first step is 0).
    failures: BTreeMap<u64, Failure>,
    /// Every step fails.
    failing: Option<Failure>,
    /// Warm-ups that fail.
    failing_warmups: u64,
    /// Warm-ups begun.
    warmups: u64,
    /// Fail the next copy.
    failing_copies: u64,
    copied_tokens: u64,
    new_tokens: u64,
    most_rows: usize,
    most_new_tokens: usize,
}

impl FakeControl {
    /// No failure, no stall.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Step number `step` (counted from 0, over the backend's life) fails.
    pub fn fail_at(&self, step: u64, failure: Failure) {
        self.shared.state.lock().failures.insert(step, failure);
    }

    /// The next step to begin fails.
    pub fn fail_next(&self, failure: Failure) {
        let mut state = self.shared.state.lock();
        let next = state.steps;
        state.failures.insert(next, failure);
    }

    /// From now on every step fails (`None`: none does that was not told to by number).
    pub fn fail_all(&self, failure: Option<Failure>) {
        self.shared.state.lock().failing = failure;
    }

    /// The next `count` warm-ups fail: backends built with this control cannot be
    /// loaded meanwhile.
    pub fn fail_warmups(&self, count: u64) {
        self.shared.state.lock().failing_warmups = count;
    }

    /// Warm-ups begun so far, each of a backend built with this control.
    #[must_use]
    pub fn warmups(&self) -> u64 {
        self.shared.state.lock().warmups
    }

    pub(super) fn begin_warmup(&self) -> Result<(), BackendError> {
        let mut state = self.shared.state.lock();
        state.warmups += 1;
        if state.failing_warmups > 0 {
            state.failing_warmups -= 1;
            return Err(BackendError::Fatal("injected in the warm-up".to_owned()));
        }
        Ok(())
    }

    /// The next `count` prefix copies fail.
    pub fn fail_copies(&self, count: u64) {
        self.shared.state.lock().failing_copies = count;
    }

    /// From now on every step blocks until [`Self::allow`] or [`Self::release`].
    pub fn hold(&self) {
        self.shared.state.lock().allowed = Some(0);
    }

    /// While held: lets `steps` more steps pass.
    pub fn allow(&self, steps: u64) {
        let mut state = self.shared.state.lock();
        state.allowed = state.allowed.map(|allowed| allowed + steps);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Ends [`Self::hold`].
    pub fn release(&self) {
        self.shared.state.lock().allowed = None;
        self.shared.changed.notify_all();
    }

    /// Blocks until `steps` steps in all have begun (a held step has begun).
    pub fn wait_for_steps(&self, steps: u64) {
        let mut state = self.shared.state.lock();
        while state.steps < steps {
            self.shared.changed.wait(&mut state);
        }
    }

    /// Steps begun so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.shared.state.lock().steps
    }

    /// Tokens copied between slots so far.
    #[must_use]
    pub fn copied_tokens(&self) -> u64 {
        self.shared.state.lock().copied_tokens
    }

    /// Tokens run through the model so far.
    #[must_use]
    pub fn new_tokens(&self) -> u64 {
        self.shared.state.lock().new_tokens
    }

    /// Rows of the largest step so far.
    #[must_use]
    pub fn most_rows(&self) -> usize {
        self.shared.state.lock().most_rows
    }

    /// New tokens of the largest step so far.
    #[must_use]
    pub fn most_new_tokens(&self) -> usize {
        self.shared.state.lock().most_new_tokens
    }

    pub(super) fn begin_step(&self, rows: usize, new_tokens: usize) -> Result<(), BackendError> {
        let mut state = self.shared.state.lock();
        let step = state.steps;
        state.steps += 1;
        state.most_rows = state.most_rows.max(rows);
        state.most_new_tokens = state.most_new_tokens.max(new_tokens);
        state.new_tokens += new_tokens as u64;
        self.shared.changed.notify_all();
        while state.allowed == Some(0) {
            self.shared.changed.wait(&mut state);
        }
        state.allowed = state.allowed.map(|allowed| allowed - 1);
        let failure = state.failures.remove(&step).or(state.failing);
        drop(state);
        match failure {
            None => Ok(()),
            Some(Failure::Step) => Err(BackendError::Step(format!("injected in step {step}"))),
            Some(Failure::Fatal) => Err(BackendError::Fatal(format!("injected in step {step}"))),
            Some(Failure::Panic) => panic!("injected in step {step}"),
        }
    }

    pub(super) fn begin_copy(&self, tokens: u32) -> Result<(), BackendError> {
        let mut state = self.shared.state.lock();
        if state.failing_copies > 0 {
            state.failing_copies -= 1;
            return Err(BackendError::Step("injected in a copy".to_owned()));
        }
        state.copied_tokens += u64::from(tokens);
        Ok(())
    }
}
