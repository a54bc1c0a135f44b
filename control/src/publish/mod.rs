//! From the records to the data plane: routes, keys and quotas, as immutable snapshots.
//!
//! The [`Publisher`] asks the database what is live each second, and at once when woken; what has changed is
//! published to the gateway in one store. It has no input but the records and decides nothing, so a round
//! may be lost, repeated or late. The data plane never waits for it:
//!
//! - The last snapshot lies in a file (`control/publish.json` in the data directory, readable by its owner only: it holds the hashes of
//!   keys). A process that starts while the database is down serves what was served before.
//! - While the database does not answer, what is published stays; keys expire by this machine's clock all the same.
//! - A revision is routed to once it is loaded here. Until then its predecessor goes on.

mod file;
mod keys;
mod publisher;
mod pulse;
mod routes;
mod snapshot;
mod standing;

pub use file::SnapshotFile;
#[cfg(test)]
pub(crate) use keys::key_entries;
pub(crate) use keys::person_rights as rights;
pub(crate) use publisher::told;
pub use publisher::{Publisher, Trial, TrialError};
pub use pulse::Pulse;
pub(crate) use routes::Place;
pub use routes::{BrakeError, Routes};
pub use snapshot::{
    FileKeys, PublishedKey, PublishedQuota, PublishedRelease, PublishedWarm, Snapshot,
};
pub(crate) use standing::{Standing, both, clearance, secrecy};

#[cfg(test)]
mod tests;
