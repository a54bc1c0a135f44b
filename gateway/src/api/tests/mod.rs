//! The endpoints through real HTTP, with a fake model behind them.
#![expect(clippy::unwrap_used, reason = "tests")]

mod chat;
mod completions;
mod constraints;
mod encoders;
mod fields;
mod ledger;
mod limits;
mod malformed;
mod others;
mod prefixes;
mod rig;
