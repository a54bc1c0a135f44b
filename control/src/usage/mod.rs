//! What was used, by whom: from finished requests to the ledger, exactly once.
//!
//! ```text
//! request ends → gateway's bounded queue → [`Tally`]: sums in memory, by person, key, deployment, version, status
//!   → every half second: one line a sum, appended to the journal's current segment and fsynced
//!   → every second, when the database answers: a segment is one transaction; then its file goes
//! ```
//!
//! - **kill -9 or a power cut loses at most one second**: what ended within the last half second, and what was being written.
//! - **Exactly once**: a line's id is made before it is written. A segment that is sent twice, because the process was killed
//!   between the commit and the removal, is recognised by its ids.
//! - **The database may be away**: segments of 1 MiB wait, up to [`LedgerSettings::max_waiting`]. Beyond that the oldest are
//!   kept, new sums are dropped, counted in [`LedgerState::dropped`], and said as errors in the log.
//! - Nobody's use: revisions on trial, requests that reached no model, listings.
//!
//! `cpu_us` and `gpu_us` are the time that a request's sequences were on the device, alone or in a batch with others.

mod journal;
mod ledger;
mod tally;

pub use journal::Journal;
pub use ledger::{Ledger, LedgerSettings, LedgerState};
pub use tally::Tally;

#[cfg(test)]
mod tests;
