#![expect(clippy::unwrap_used, reason = "tests")]

//! The scheduler over the slot cache and the fake backend, without threads.

mod fairness;
mod latency;
mod lifecycle;
mod world;
