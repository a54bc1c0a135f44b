//! Whether a server elsewhere would answer before a request's deadline, from how it has answered
//! lately.
//!
//! Nothing is known of an upstream but how long its answers took and how many requests were with
//! it meanwhile. Its fastest recent answer is what work takes there; what the others took longer,
//! they waited, and by Little's law waiting grows with the requests in flight. So an answer is
//! expected after the least time plus the usual wait, scaled by how much fuller it is now. Where
//! nothing waits, nothing is scaled, and a burst on an idle upstream is not refused for being a
//! burst.
//!
//! A request is refused by this only while others are in flight: the only one goes through, so
//! that a server that has become faster is noticed. [`Pace`] is pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Weight of the newest answer.
const WEIGHT: f64 = 0.2;

/// After this long without an answer nothing is known any more.
const FORGET: Duration = Duration::from_secs(30);

/// The least time is that of the last so many seconds, and at most twice as many.
const WINDOW: Duration = Duration::from_secs(10);

/// Averages say what half of the requests take; most are to meet their deadline.
const MARGIN: f64 = 1.1;

/// How an upstream has answered lately. Times in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// Smoothed time to an answer, and the requests in flight when it was asked for.
    latency: f64,
    in_flight: f64,
    /// Least time of this window and of the one before.
    least: [f64; 2],
    window: Option<Instant>,
    last: Option<Instant>,
}

impl Pace {
    /// An answer that took so long, with so many in flight when it began; or, if not `whole`, one
    /// that was not waited for any longer.
    fn note(&mut self, now: Instant, took: Duration, in_flight: u32, whole: bool) {
        let took = took.as_secs_f64();
        if self.is_old(now) {
            *self = Self::default();
        }
        // What was given up would have taken longer: it can only say that answers are slower.
        if !whole && took < self.latency {
            return;
        }
        let known = self.last.is_some();
        let smooth = |old: f64, new: f64| {
            if known {
                old + WEIGHT * (new - old)
            } else {
                new
            }
        };
        self.latency = smooth(self.latency, took);
        self.in_flight = smooth(self.in_flight, f64::from(in_flight));
        self.last = Some(now);
        if !whole && known {
            return;
        }
        if self.window.is_none_or(|began| now > began + WINDOW) {
            let before = if known { self.least[0] } else { took };
            (self.least, self.window) = ([took, before], Some(now));
        }
        self.least[0] = self.least[0].min(took);
    }

    fn is_old(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now > last + FORGET)
    }

    /// When an answer is to be expected for a request that is the `in_flight`th; `None` while
    /// nothing is known.
    fn expected(&self, now: Instant, in_flight: u32) -> Option<Duration> {
        self.last.filter(|_| !self.is_old(now))?;
        let least = self.least[0].min(self.least[1]).min(self.latency);
        let wait = self.latency - least;
        let fuller = f64::from(in_flight) / self.in_flight.max(1.0);
        Duration::try_from_secs_f64((least + wait * fuller) * MARGIN).ok()
    }
}

#[derive(Debug, Default)]
struct State {
    pace: Pace,
    in_flight: u32,
}

/// The forecast of one deployment's upstreams.
#[derive(Debug, Default)]
pub(crate) struct Forecast(Mutex<State>);

/// A request that is with an upstream, until it is dropped.
#[derive(Debug)]
pub(crate) struct Asking {
    forecast: Arc<Forecast>,
    began: Instant,
    in_flight: u32,
    answered: bool,
}

impl Forecast {
    /// Counts a request.
    ///
    /// # Errors
    /// Its answer is not to be expected before `deadline`, but after so long.
    pub(crate) fn ask(
        self: &Arc<Self>,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Result<Asking, Duration> {
        let mut state = self.0.lock();
        let in_flight = state.in_flight + 1;
        if let Some(deadline) = deadline
            && in_flight > 1
            && let Some(expected) = state.pace.expected(now, in_flight)
            && now + expected > deadline
        {
            return Err(expected);
        }
        state.in_flight = in_flight;
        Ok(Asking {
            forecast: Arc::clone(self),
            began: now,
            in_flight,
            answered: false,
        })
    }
}

impl Asking {
    /// The head of the answer is there.
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.forecast.0.lock();
        state.in_flight -= 1;
        let took = now.saturating_duration_since(self.began);
        state.pace.note(now, took, self.in_flight, self.answered);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// An upstream that answers `workers` requests at once, each after `service`, in their order,
    /// asked every `every` for `total`, each with `patience`. What became of the requests after the
    /// first second: answered in time, too late, refused.
    fn simulate(
        workers: usize,
        service: Duration,
        every: Duration,
        patience: Duration,
        total: Duration,
    ) -> (usize, usize, usize) {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut busy_until: VecDeque<Instant> = vec![start; workers].into();
        // When the client has its answer or gives up, the answer's time, and what it began with.
        let mut open: Vec<(Instant, Instant, Instant, u32)> = Vec::new();
        let (mut good, mut late, mut refused) = (0, 0, 0);
        let mut now = start;
        while now < start + total {
            open.sort_by_key(|it| it.0);
            while open.first().is_some_and(|it| it.0 <= now) {
                let (ends, answer, began, n) = open.remove(0);
                let whole = ends == answer;
                pace.note(ends, ends - began, n, whole);
                if began > start + Duration::from_secs(1) {
                    if whole { good += 1 } else { late += 1 }
                }
            }
            let n = open.len() as u32 + 1;
            let expected = pace.expected(now, n).filter(|_| n > 1);
            if expected.is_some_and(|expected| expected > patience) {
                refused += usize::from(now > start + Duration::from_secs(1));
            } else {
                let at = busy_until.pop_front().map_or(now, |free| free.max(now)) + service;
                busy_until.push_back(at);
                open.push((at.min(now + patience), at, now, n));
            }
            now += every;
        }
        (good, late, refused)
    }

    #[test]
    fn three_times_too_much_is_refused_at_the_door_and_not_after_the_deadline() {
        let second = Duration::from_secs(1);
        // Four at once, 200 ms each: 20 a second, asked 60 times a second.
        let (good, late, refused) = simulate(4, 200 * MS, 1000 * MS / 60, second, 20 * second);
        assert!(
            late * 20 <= good + late,
            "{good} good, {late} late, {refused}"
        );
        assert!(good >= 18 * 18, "{good} of the {} that it can", 19 * 20);
    }

    #[test]
    fn an_upstream_that_keeps_up_is_refused_nothing() {
        let second = Duration::from_secs(1);
        // 64 at once, half a second each: 100 a second are 50 at once.
        let (_, late, refused) = simulate(64, 500 * MS, 10 * MS, second, 10 * second);
        assert_eq!((late, refused), (0, 0));
    }

    #[test]
    fn a_burst_on_an_idle_upstream_is_taken() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for second in 0..5 {
            pace.note(start + Duration::from_secs(second), 300 * MS, 1, true);
        }
        let expected = pace.expected(start + Duration::from_secs(5), 50);
        assert!(expected.is_some_and(|it| it < 400 * MS), "{expected:?}");
    }

    #[test]
    fn what_was_long_ago_says_nothing() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.note(start, Duration::from_secs(5), 10, true);
        assert!(pace.expected(start + FORGET, 2).is_some());
        assert_eq!(pace.expected(start + FORGET + MS, 2), None);
    }

    #[test]
    fn the_only_request_is_always_tried() {
        let forecast = Arc::new(Forecast::default());
        let now = Instant::now();
        let slow = forecast.ask(now - Duration::from_secs(5), None).ok();
        slow.map(Asking::answered);
        let soon = Some(now + Duration::from_secs(1));
        let first = forecast.ask(now, soon);
        assert!(first.is_ok());
        let second = forecast.ask(now, soon).err();
        assert!(
            second.is_some_and(|it| it > Duration::from_secs(4)),
            "{second:?}"
        );
        drop(first);
    }
}
