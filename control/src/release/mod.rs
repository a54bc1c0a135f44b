//! Releases that take themselves back, as pure functions: what a strategy says, what the requests say
//! about the candidate, and what follows from both.
//!
//! But for [`controller`], nothing here reads a clock, a socket or a table. That is what lets the same code decide
//! in production, be replayed from its records, and be tried on ten thousand made-up releases before anyone
//! trusts it (`sluice release simulate`).
//!
//! - [`strategy`]: the words of a deployment's `strategy`, checked.
//! - [`analysis`]: outcomes of requests to evidence; `docs/release-analysis.md` has the mathematics.
//! - [`planner`]: strategy, state and evidence to the next action.
//! - [`controller`]: asks the planner what comes next, and does it.
//! - [`simulate`]: planner and analyser on synthetic or recorded traffic.

pub mod agreement;
pub mod analysis;
pub mod controller;
pub mod planner;
pub mod simulate;
pub mod strategy;
