//! Whether the database answers: known beforehand, so that nobody who is in a hurry has to find out by waiting for it.
//!
//! A database that was stopped refuses connections, one that hangs takes them and says nothing; both are found by asking
//! for nothing at all, over and over, with a limit.

use std::time::Duration;

use tokio::sync::watch;

use crate::store::Store;

/// Between two questions.
const BEAT: Duration = Duration::from_millis(500);
/// How long an answer to nothing may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the database of this process.
#[derive(Debug)]
pub struct Pulse {
    away: watch::Sender<bool>,
}

impl Pulse {
    /// Of a database that is not open yet.
    pub(super) fn new() -> Self {
        Self {
            away: watch::Sender::new(true),
        }
    }

    /// Whether it is known not to answer.
    pub fn is_away(&self) -> bool {
        *self.away.borrow()
    }

    /// Returns once it is known not to answer.
    pub async fn lost(&self) {
        // The sender lives as long as `self`.
        _ = self.away.subscribe().wait_for(|away| *away).await;
    }

    /// It was heard of, or not.
    pub(crate) fn set_away(&self, away: bool) {
        let changed = self
            .away
            .send_if_modified(|was| std::mem::replace(was, away) != away);
        match (changed, away) {
            (true, true) => tracing::warn!("the database does not answer, and is not waited for"),
            (true, false) => tracing::info!("the database answers"),
            (false, _) => {}
        }
    }

    /// Listens until `stop` is over.
    pub async fn run(&self, store: &Store, stop: impl Future<Output = ()>) {
        let listening = async {
            loop {
                let answered = tokio::time::timeout(PATIENCE, store.ping()).await;
                self.set_away(!matches!(answered, Ok(Ok(()))));
                tokio::time::sleep(BEAT).await;
            }
        };
        tokio::select! {
            () = listening => {}
            () = stop => {}
        }
    }
}
