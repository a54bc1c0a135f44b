//! The life of an upload in parts.

use super::machine::Machine;
use super::words::words;

words! {
    /// Where an upload stands.
    pub enum UploadState ("state of an upload") {
        /// Takes parts.
        Open = "open",
        /// All parts are there; they are joined and digested.
        Completing = "completing",
        Completed = "completed",
        /// The whole did not have the digest or the size that was announced.
        Refused = "refused",
        Aborted = "aborted",
        /// Nobody went on with it in time.
        Expired = "expired",
    }
}

words! {
    /// What can happen to an upload.
    pub enum UploadEvent ("event of an upload") {
        Complete = "complete",
        /// Joining was cut short, by a crash for instance, and may be asked for again.
        Reopen = "reopen",
        Verify = "verify",
        Refuse = "refuse",
        Abort = "abort",
        Expire = "expire",
    }
}

impl Machine for UploadState {
    type Event = UploadEvent;

    const NAME: &'static str = "upload";
    const SUMMARY: &'static str = "A blob exists only once its bytes were digested: `completed` is reached by `verify` alone.";
    const INITIAL: Self = Self::Open;
    const STATES: &'static [Self] = Self::ALL;
    const EVENTS: &'static [UploadEvent] = UploadEvent::ALL;

    fn transition(self, event: UploadEvent) -> Option<Self> {
        Some(match (self, event) {
            (Self::Open, UploadEvent::Complete) => Self::Completing,
            (Self::Completing, UploadEvent::Reopen) => Self::Open,
            (Self::Completing, UploadEvent::Verify) => Self::Completed,
            (Self::Completing, UploadEvent::Refuse) => Self::Refused,
            (Self::Open | Self::Completing, UploadEvent::Abort) => Self::Aborted,
            (Self::Open | Self::Completing, UploadEvent::Expire) => Self::Expired,
            _ => return None,
        })
    }
}
