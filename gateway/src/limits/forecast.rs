//! Whether a server elsewhere would answer before a request's deadline, from how it has answered
//! lately.
//!
//! Nothing is known of an upstream but how long its answers took, how often one came while it was
//! busy, and how many requests are with it. Its fastest recent answer is what work takes there.
//! Where answers hardly take longer than that, or far less than the request has, nothing is in its
//! way, and the next one is expected as soon, so that a burst on an idle upstream is not refused
//! for being a burst. Otherwise it is taken as full: answers come
//! as fast as it can give them, and a request waits for all that are there already (Little's law).
//! Where answers lately came too late, there is work in the way of which nobody knows: what was
//! given up is often computed all the same. Then an answer is expected after at least as long as was
//! waited in vain, until the upstream has caught up.
//!
//! A request is refused by this only while others are in flight: the only one goes through, so
//! that a server that has become faster is noticed. [`Pace`] is pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Weight of the newest answer in the time that answers take, and in the share of those that came
/// too late.
const WEIGHT: f64 = 0.2;

/// Weight of the newest answer in how often answers come: small, since many may come at once.
const RATE_WEIGHT: f64 = 0.03;

/// After this long without an answer nothing is known any more.
const FORGET: Duration = Duration::from_secs(30);

/// The least time is that of the last so many seconds, and at most twice as many.
const WINDOW: Duration = Duration::from_secs(10);

/// Averages say what half of the requests take; most are to meet their deadline.
const MARGIN: f64 = 1.25;

/// Answers that take longer than the least time by this factor have waited.
const WAITED: f64 = 1.05;

/// An upstream that answers in a smaller share of the time that a request has is not full.
const FULL: f64 = 1.0 / 3.0;

/// A larger share of answers that were given up is a sign of work of which nobody knows.
const GIVEN_UP: f64 = 0.2;

/// How an upstream has answered lately. Times in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// Smoothed time to an answer.
    latency: f64,
    /// Smoothed share of answers that were given up.
    given_up: f64,
    /// Least time of this window and of the one before.
    least: [f64; 2],
    window: Option<Instant>,
    last: Option<Instant>,
    /// The last whole answer, if the upstream has been busy since.
    busy_since: Option<Instant>,
    /// Fading sums: time between whole answers while it was busy, and their number.
    busy: f64,
    answers: f64,
}

impl Pace {
    /// An answer that took so long; or, if not `whole`, one that was not waited for any longer.
    /// `others` are still in flight.
    fn note(&mut self, now: Instant, took: Duration, whole: bool, others: bool) {
        let took = took.as_secs_f64();
        if self.is_old(now) {
            *self = Self::default();
        }
        let since = match others {
            true => self.busy_since,
            false => self.busy_since.take(),
        };
        // Who leaves at once has not waited in vain.
        if whole || took >= self.latency / 2.0 {
            self.given_up += WEIGHT * (f64::from(u8::from(!whole)) - self.given_up);
        }
        // What was given up would have taken longer: it can only say that answers are slower.
        if !whole && took < self.latency {
            return;
        }
        let known = self.last.is_some();
        self.latency = match known {
            true => self.latency + WEIGHT * (took - self.latency),
            false => took,
        };
        self.last = Some(now);
        if !whole {
            return;
        }
        if self.window.is_none_or(|began| now > began + WINDOW) {
            let before = match self.window {
                Some(_) => self.least[0],
                None => took,
            };
            (self.least, self.window) = ([took, before], Some(now));
        }
        self.least[0] = self.least[0].min(took);
        if let Some(since) = since {
            let gap = now.saturating_duration_since(since).as_secs_f64();
            self.busy = self.busy * (1.0 - RATE_WEIGHT) + gap;
            self.answers = self.answers * (1.0 - RATE_WEIGHT) + 1.0;
        }
        self.busy_since = others.then_some(now);
    }

    fn is_old(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now > last + FORGET)
    }

    /// When an answer is to be expected for a request that is the `in_flight`th and has `left`;
    /// `None` while nothing is known.
    fn expected(&self, now: Instant, in_flight: u32, left: Duration) -> Option<Duration> {
        self.last.filter(|_| !self.is_old(now))?;
        let least = match self.window {
            Some(_) => self.least[0].min(self.least[1]).min(self.latency),
            None => self.latency,
        };
        let waits = self.latency > WAITED * least
            && self.latency > FULL * left.as_secs_f64()
            && self.answers > 0.0;
        let mut expected = match waits {
            true => least.max(f64::from(in_flight) * self.busy / self.answers),
            false => self.latency,
        };
        if self.given_up > GIVEN_UP {
            expected = expected.max(self.latency);
        }
        Duration::try_from_secs_f64(expected * MARGIN).ok()
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
            && let left = deadline.saturating_duration_since(now)
            && let Some(expected) = state.pace.expected(now, in_flight, left)
            && expected > left
        {
            return Err(expected);
        }
        state.in_flight = in_flight;
        Ok(Asking {
            forecast: Arc::clone(self),
            began: now,
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
        let others = state.in_flight > 0;
        let took = now.saturating_duration_since(self.began);
        state.pace.note(now, took, self.answered, others);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PATIENCE: Duration = Duration::from_secs(1);

    /// An upstream that answers `workers` requests at once, each after about `service`, in their
    /// order and also those that were given up, asked about every `every` for twenty seconds, each
    /// with a patience of one. What became of the requests after the first second: answered in
    /// time, too late, refused.
    fn simulate(workers: usize, service: Duration, every: Duration) -> (usize, usize, usize) {
        let mut random = StdRng::seed_from_u64(20);
        let mut about = |time: Duration| time.mul_f64(random.random_range(0.5..1.5));
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut busy_until = vec![start; workers];
        // When the client has its answer or gives up, whether it has it, and when it asked.
        let mut open: Vec<(Instant, bool, Instant)> = Vec::new();
        let (mut good, mut late, mut refused) = (0, 0, 0);
        let mut now = start;
        while now < start + Duration::from_secs(20) {
            open.sort_unstable();
            while open.first().is_some_and(|it| it.0 <= now) {
                let (ended, whole, asked) = open.remove(0);
                pace.note(ended, ended - asked, whole, !open.is_empty());
                if asked > start + PATIENCE {
                    good += usize::from(whole);
                    late += usize::from(!whole);
                }
            }
            let in_flight = u32::try_from(open.len()).unwrap() + 1;
            let expected = pace.expected(now, in_flight, PATIENCE);
            let expected = expected.filter(|_| in_flight > 1);
            if expected.is_some_and(|expected| expected > PATIENCE) {
                refused += usize::from(now > start + PATIENCE);
            } else {
                let free = busy_until.iter_mut().min().unwrap();
                *free = (*free).max(now) + about(service);
                let over = now + PATIENCE;
                open.push(((*free).min(over), *free <= over, now));
            }
            now += about(every);
        }
        (good, late, refused)
    }

    #[test]
    fn three_times_too_much_is_refused_at_the_door_and_not_after_the_deadline() {
        // What each can answer in nineteen seconds, and the requests that come in a second.
        for (workers, service, every, capacity) in [
            (4, 200 * MS, 1000 * MS / 60, 380),
            (1, 200 * MS, 1000 * MS / 15, 95),
            (8, 300 * MS, 1000 * MS / 80, 506),
            (16, 50 * MS, 1000 * MS / 960, 6080),
        ] {
            let (good, late, refused) = simulate(workers, service, every);
            let seen = format!("{workers}: {good} good, {late} late, {refused} refused");
            assert!(late * 20 <= good + late, "{seen}");
            assert!(good * 10 >= capacity * 8, "{seen}");
            assert!(refused > good, "{seen}");
        }
    }

    #[test]
    fn an_upstream_that_keeps_up_is_refused_next_to_nothing() {
        // 64 at once, half a second each: 80 a second are 40 at once.
        let (good, late, refused) = simulate(64, 500 * MS, 12 * MS);
        // One in a hundred, when many happen to be long at once.
        let is_well = good > 1400 && late == 0 && refused * 100 <= good;
        assert!(is_well, "{good} good, {late} late, {refused} refused");
    }

    #[test]
    fn a_burst_on_an_idle_upstream_is_taken() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for second in 0..5 {
            let took = [200 * MS, 400 * MS][usize::from(second % 2 == 0)];
            pace.note(start + Duration::from_secs(second), took, true, true);
        }
        let then = start + Duration::from_secs(5);
        let expected = pace.expected(then, 50, 2 * PATIENCE);
        assert!(expected.is_some_and(|it| it < 500 * MS), "{expected:?}");
    }

    #[test]
    fn what_was_long_ago_says_nothing() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.note(start, Duration::from_secs(5), true, false);
        assert!(pace.expected(start + FORGET, 2, PATIENCE).is_some());
        assert_eq!(pace.expected(start + FORGET + MS, 2, PATIENCE), None);
    }

    #[test]
    fn the_only_request_is_always_tried() {
        let forecast = Arc::new(Forecast::default());
        let now = Instant::now();
        let slow = forecast.ask(now - Duration::from_secs(5), None);
        slow.unwrap().answered();
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
