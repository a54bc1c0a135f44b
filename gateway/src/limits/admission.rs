//! How much may be in flight at once, over all keys.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A count with a ceiling. Nothing waits: there is room, or there is not.
#[derive(Debug)]
pub struct Admission {
    in_flight: AtomicUsize,
    limit: usize,
}

impl Admission {
    /// Room for `limit` requests.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            limit,
        }
    }

    /// Takes a place if there is one. Each `true` needs one [`Admission::leave`].
    pub(crate) fn enter(&self) -> bool {
        let before = self.in_flight.fetch_add(1, Relaxed);
        if before >= self.limit {
            self.in_flight.fetch_sub(1, Relaxed);
        }
        before < self.limit
    }

    /// Gives a place back.
    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// More than half of the places are taken: what can be left undone should be.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight() > self.limit / 2
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }
}
