//! How far a simulation has come, and how long the rest will take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cli::output::{self, bar};

/// How often the line is written anew.
const EVERY: Duration = Duration::from_millis(200);

/// A line of standard error, if that is a terminal; gone when dropped.
pub(super) struct Bar {
    total: u64,
    done: AtomicU64,
    begun: Instant,
    /// When it is written again, in milliseconds since `begun`.
    due: AtomicU64,
}

impl Bar {
    pub(super) fn new(total: u64) -> Self {
        output::progress(&line(0, total, Duration::ZERO));
        Self {
            total,
            done: AtomicU64::new(0),
            begun: Instant::now(),
            due: AtomicU64::new(millis(EVERY)),
        }
    }

    /// One more release has been simulated.
    pub(super) fn tick(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let took = self.begun.elapsed();
        let (now, due) = (millis(took), self.due.load(Ordering::Relaxed));
        if now < due {
            return;
        }
        // One thread writes; the others go on.
        let next = now.saturating_add(millis(EVERY));
        if self
            .due
            .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            output::progress(&line(done, self.total, took));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        output::progress("");
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a part of a bar")]
fn line(done: u64, total: u64, took: Duration) -> String {
    let share = done as f64 / total.max(1) as f64;
    let left = match done {
        0 => String::new(),
        // Releases differ in what they take, so this is no promise.
        _ => format!(
            ", about {} left",
            left(took.mul_f64((1.0 - share).max(0.0) / share))
        ),
    };
    format!("{} {done} of {total} releases{left}", bar(share))
}

fn left(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_what_is_left() {
        let at = |done, seconds| line(done, 100, Duration::from_secs(seconds));
        assert!(at(0, 0).ends_with(" 0 of 100 releases"));
        assert!(at(25, 10).ends_with(" 25 of 100 releases, about 30 s left"));
        assert!(at(10, 60).ends_with(" 10 of 100 releases, about 9 min left"));
        assert!(at(100, 60).ends_with(" 100 of 100 releases, about 0 s left"));
    }
}
