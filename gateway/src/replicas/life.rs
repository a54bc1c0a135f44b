//! When a replica whose executor is lost is loaded again, and when it is given up.
//!
//! A value: no clock, no task, no model in it. [`super::supervisor`] tells it what
//! happened and does what it says.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::ReplicasConfig;

/// What a replica is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its executor works.
    Serving,
    /// Its executor is lost; it is loaded again at this instant.
    Waiting(Instant),
    /// It has been loading since this instant.
    Loading(Instant),
    /// It was lost too often, or may not be loaded again.
    GivenUp,
}

impl State {
    /// Its name in answers and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Waiting(_) => "waiting",
            Self::Loading(_) => "loading",
            Self::GivenUp => "given_up",
        }
    }
}

/// The pauses before restarts, and how many there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Restarts within the window; one more is given up.
    pub restarts: u32,
    /// In which they are counted.
    pub window: Duration,
    /// Before the second restart in the window; each further one doubles it. The first
    /// is made at once.
    pub pause: Duration,
    /// No pause is longer.
    pub pause_max: Duration,
}

impl From<&ReplicasConfig> for RestartPolicy {
    fn from(config: &ReplicasConfig) -> Self {
        Self {
            restarts: config.max_restarts,
            window: config.restart_window,
            pause: config.restart_pause,
            pause_max: config.restart_pause_max,
        }
    }
}

impl RestartPolicy {
    /// Before the restart that follows `before` others.
    fn pause_after(&self, before: usize) -> Duration {
        let Some(doublings) = before.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = u32::try_from(doublings)
            .ok()
            .and_then(|doublings| 2_u32.checked_pow(doublings));
        let pause = factor.and_then(|factor| self.pause.checked_mul(factor));
        pause.unwrap_or(Duration::MAX).min(self.pause_max)
    }
}

/// The life of one replica, which begins when it was loaded.
#[derive(Debug)]
pub(super) struct Life {
    state: State,
    policy: RestartPolicy,
    /// When restarts were begun, oldest first; no more than the policy allows.
    restarts: VecDeque<Instant>,
}

impl Life {
    /// A replica that has just been loaded.
    #[must_use]
    pub(super) fn new(policy: RestartPolicy) -> Self {
        Self {
            state: State::Serving,
            policy,
            restarts: VecDeque::new(),
        }
    }

    /// What it is doing.
    #[must_use]
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Its executor was found lost. What is not serving cannot be lost again.
    pub(super) fn lose(&mut self, now: Instant) -> State {
        if self.state == State::Serving {
            self.plan(now);
        }
        self.state
    }

    /// Whether loading is to begin now; then it has begun.
    #[must_use]
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        match self.state {
            State::Waiting(until) if until <= now => {
                self.restarts.push_back(now);
                self.state = State::Loading(now);
                true
            }
            _ => false,
        }
    }

    /// Loading has ended.
    pub(super) fn end(&mut self, loaded: bool, now: Instant) -> State {
        if matches!(self.state, State::Loading(_)) {
            match loaded {
                true => self.state = State::Serving,
                false => self.plan(now),
            }
        }
        self.state
    }

    /// What was loaded is not wanted just now: nothing came of it, and nothing is counted.
    pub(super) fn put_off(&mut self, now: Instant) {
        if matches!(self.state, State::Loading(_)) {
            self.restarts.pop_back();
            self.state = State::Waiting(now);
        }
    }

    /// Time until it serves, if loading takes `load`; `None` when it never will.
    #[must_use]
    pub(super) fn expected(&self, now: Instant, load: Duration) -> Option<Duration> {
        match self.state {
            State::Serving => Some(load),
            State::Waiting(until) => Some(until.saturating_duration_since(now) + load),
            State::Loading(since) => {
                Some(load.saturating_sub(now.saturating_duration_since(since)))
            }
            State::GivenUp => None,
        }
    }

    fn plan(&mut self, now: Instant) {
        let window = self.policy.window;
        let is_old = |begun: &Instant| now.saturating_duration_since(*begun) >= window;
        while self.restarts.front().is_some_and(is_old) {
            self.restarts.pop_front();
        }
        let before = self.restarts.len();
        self.state = match before < self.policy.restarts as usize {
            true => State::Waiting(now + self.policy.pause_after(before)),
            false => State::GivenUp,
        };
    }
}

#[cfg(test)]
mod tests;
