//! Releases that take themselves back, as pure functions: what a strategy says, what the requests say
//! about the candidate, and what follows from both.
//!
//! But for [`controller`], [`webhook`] and the keeper of [`sample`], nothing here reads a clock, a socket or a
//! table. That is what lets the same code decide in production, be replayed from its records, and be tried on ten
//! thousand made-up releases before anyone trusts it (`sluice release simulate`).
//!
//! - [`strategy`]: the words of a deployment's `strategy`, checked.
//! - [`agreement`]: whether two answers say the same.
//! - [`analysis`]: outcomes of requests to evidence; `docs/release-analysis.md` has the mathematics.
//! - [`planner`]: strategy, state and evidence to the next action.
//! - [`controller`]: asks the planner what comes next, and does it.
//! - [`sample`]: which pairs of answers are kept for reading.
//! - [`simulate`]: planner and analyser on synthetic or recorded traffic.
//! - [`webhook`]: tells others what was decided.

pub mod agreement;
pub mod analysis;
pub mod controller;
pub mod planner;
pub mod sample;
pub mod simulate;
pub mod strategy;
pub mod webhook;
