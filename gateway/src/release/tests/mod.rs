#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod answers;
mod fallback;
mod ledger;
mod load;
mod policy;
mod raw;
mod rig;
mod shadow;
